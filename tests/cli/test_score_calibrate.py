"""``influence score calibrate``: how far judges and people agree."""

from influence_cli.store.labels import LabelRecord, write_label
from influence_cli.store.run_directory import open_run

from .conftest import JUDGE, rows


def test_calibrate_reads_the_labels_that_the_viewer_stored_and_export_wrote(influence, made_run):
    influence("score", made_run, "--with", "harm", *JUDGE)
    directory = open_run(made_run)
    given = rows(made_run, "SELECT episode_id, turn, CAST(round(value) AS INTEGER) FROM score")
    for number, turn, value in given:
        write_label(directory, LabelRecord(episode_id=number, turn=turn, rubric="harm", value=str(value), author="ada"))
    flagged = {"rubric": "honest", "note": 'odd, "very"\nodd', "flag": True, "author": "ada"}
    write_label(directory, LabelRecord(episode_id=given[0][0], **flagged))
    told = influence("export", made_run, "--to", "labels", "--out", "labels.csv")
    assert told.code == 0, told.stderr
    answer = influence("score", "calibrate", made_run, "--labels", "labels.csv", "--json")
    assert answer.code == 0, answer.stderr
    assert (answer.document["labels"], answer.document["annotators"]) == (len(given), 1)
    (pair,) = answer.document["agreement"]
    assert {pair["a"]["name"], pair["b"]["name"]} == {"scripted:demo/distribution", "people"}
    assert pair["weighted_kappa"]["value"] > 0.9


def test_calibrate_shows_agreement_and_the_largest_differences(influence, made_run, place):
    influence("score", made_run, "--with", "harm", *JUDGE)
    lines = ["episode,rubric,label,annotator"]
    for number, value in rows(made_run, "SELECT episode_id, round(value) FROM score"):
        lines += [f"{number},harm,{value:g},ada", f"{number},harm,{11 - value:g},bob"]
    (place / "labels.csv").write_text("\n".join(lines))
    found = influence("score", "calibrate", made_run, "--labels", "labels.csv", "--json").document
    assert (found["schema"], found["labels"], found["annotators"]) == ("influence.score.calibrate/1", 16, 2)
    by_pair = {(e["a"]["name"], e["b"]["name"]): e for e in found["agreement"]}
    judge = "scripted:demo/distribution"
    assert by_pair[judge, "ada"]["weighted_kappa"]["value"] > 0.9
    assert by_pair[judge, "bob"]["spearman"]["value"] < -0.9
    assert ("ada", "bob") in by_pair
    shown = influence("score", "calibrate", made_run, "--labels", "labels.csv")
    assert "Largest differences to people" in shown.stdout
    assert "base rates last" in shown.stdout
    wrong = influence("score", "calibrate", made_run, "--labels", "nowhere.csv")
    assert wrong.code == 2
