"""``influence import``."""

import json

import pytest


@pytest.fixture
def fixtures(repository):
    return repository / "tests" / "fixtures" / "imports"


@pytest.fixture
def imported(influence, fixtures, place):
    """A run of eight conversations from a table."""
    answer = influence("import", fixtures / "pandas-2.2.3-protocol-5.pkl", "--env", "tea", "--out", "runs/table")
    assert answer.code == 0, answer.stderr
    return place / "runs" / "table"


def test_a_table_becomes_a_run(influence, imported):
    row = influence("runs", "list", "--json").document["runs"][0]
    assert (row["command"], row["complete"], row["state"]) == ("import", 8, "done")
    assert influence("runs", "check", "table").code == 0


def test_importing_again_changes_nothing(influence, fixtures, imported):
    answer = influence(
        "import", fixtures / "pandas-1.5.3-protocol-4.pkl", "--env", "tea", "--out", "runs/table", "--json"
    )
    document = answer.document
    assert document["schema"] == "influence.import/1"
    assert (document["conversations"], document["known"], document["scores"]) == (0, 8, 0)
    assert influence("runs", "show", "table", "--json").document["conversations"]["complete"] == 8


def test_without_out_the_run_is_called_like_the_file(influence, fixtures, place):
    influence("import", fixtures / "small-talk.eval")
    answer = influence("import", fixtures / "small-talk.eval")
    assert "6 were there already" in answer.stdout
    assert [path.name for path in (place / "runs").iterdir()] == ["small-talk"]


def test_the_report_of_a_log_has_its_scores_tokens_and_no_reward(influence, fixtures):
    influence("import", fixtures / "small-talk.eval")
    document = influence("report", "small-talk", "--json").document
    (run,) = document["runs"]
    assert run["environments"] == ["small-talk"]
    assert run["conversations"]["failed"] == 2
    assert run["calls"][0]["prompt_tokens"] == 500
    assert {measure["id"] for measure in document["measures"]} == {
        "turns",
        "includes",
        "warmth",
        "both-kind",
        "both-plain",
    }
    assert {example["measure"] for example in document["examples"]} == {"both-kind"}
    assert influence("report", "small-talk", "--quiet").code == 0
    assert influence("report", "small-talk", "--md").code == 0


def test_failed_samples_are_counted(influence, fixtures):
    answer = influence("import", fixtures / "small-talk.json")
    assert answer.code == 0
    assert "1 of the conversations had failed" in answer.stderr


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_our_own_exports_come_back_as_they_were(influence, made_run, place, format_):
    influence("export", made_run, "--to", format_, "--out", f"made.{format_}")
    assert influence("import", f"made.{format_}", "--out", "runs/again").code == 0
    assert influence("runs", "check", "again").code == 0
    for run in ("made", "again"):
        influence("export", run, "--to", "jsonl", "--out", f"{run}.jsonl")
    before, after = ((place / f"{run}.jsonl").read_text().splitlines() for run in ("made", "again"))
    assert [json.loads(line) for line in after] == [json.loads(line) for line in before]


def test_a_run_that_was_simulated_is_not_imported_into(influence, made_run, fixtures):
    answer = influence("import", fixtures / "small-talk.json", "--out", made_run)
    assert answer.code == 2
    assert "is a run of `influence simulate`" in answer.stderr


def test_rows_that_make_no_sense_are_counted_and_end_with_one(influence, place):
    good = {"env_name": "a_b", "initial_state_id": 1, "trajectory_id": 1, "traj_rew": 2.0,
            "history": [{"role": "environment", "content": "Hi"}, {"role": "agent", "content": "Hello"}]}  # fmt: skip
    rows = [good, *({**good, "trajectory_id": n, "history": None} for n in range(2, 10))]
    (place / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = influence("import", "table.jsonl")
    assert answer.code == 1
    assert "1 conversations" in answer.stdout
    assert "Left out: row 2" in answer.stderr
    assert "... and 3 more." in answer.stderr


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"x", "in no format that is known here"),
        ("a.jsonl", b"", "holds no row"),
        ("a.jsonl", b"{\n", "a.jsonl:1: this line is no JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1: this line is no object"),
        ("a.jsonl", b'{"a": 1}\n', "no column 'env_name'"),
        ("a.parquet", b"x", "is no Parquet file"),
        ("a.pkl", b"cos\nsystem\n(S'touch pwned'\ntR.", "os.system"),
        ("a.eval", b"x", "is no .eval log"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line_and_leaves_no_run(influence, place, name, content, told):
    (place / name).write_bytes(content)
    answer = influence("import", name)
    assert answer.code == 2
    assert told in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (place / "pwned").exists()
    assert not (place / "runs").exists()


def test_everything_works_on_an_imported_run(influence, imported, script):
    assert influence("runs", "search", "table", "Hello").code == 0
    judge = script("choices:\n  - {role: judge, weights: {'2': 1}}\n")
    answer = influence("score", "table", "--with", "deception,computed", "--judge", judge, "--quiet", "--json")
    assert answer.code == 0, answer.stderr
    measures = {m["id"] for m in influence("report", "table", "--json").document["measures"]}
    assert {"reward", "harm", "deception"} <= measures
    assert influence("compare", "table@0", "table@1", "--json").document["paired"]
    assert influence("export", "table", "--to", "jsonl", "--out", "-").code == 0
