"""``influence export``."""

import json


def test_jsonl_is_written_beside_and_counted(influence, made_run, place):
    answer = influence("export", "made", "--to", "jsonl")
    assert (answer.code, answer.stdout) == (0, "")
    assert answer.stderr == "8 trajectories are in made.jsonl.\n"
    lines = (place / "made.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert {json.loads(line)["environment"] for line in lines} == {"tiny"}


def test_jsonl_on_stdout_is_nothing_but_data(influence, made_run, place):
    answer = influence("export", "made", "--to", "jsonl", "--out", "-")
    assert (answer.code, answer.stderr) == (0, "")
    assert len([json.loads(line) for line in answer.stdout.splitlines()]) == 8
    assert not (place / "made.jsonl").exists()


def test_parquet_is_written_where_it_is_asked_for(influence, made_run, place):
    import pyarrow.parquet

    answer = influence("export", "latest", "--to", "parquet", "--out", "t.parquet", "--json")
    assert answer.document == {"schema": "influence.export/1", "file": "t.parquet", "trajectories": 8}
    assert pyarrow.parquet.read_table(place / "t.parquet").num_rows == 8


def test_an_unknown_format_suggests_the_nearest_and_writes_nothing(influence, made_run, place):
    answer = influence("export", "made", "--to", "json")
    assert answer.code == 2
    assert "Unknown exporter 'json'. Did you mean 'jsonl'?" in answer.stderr
    assert [path.name for path in place.iterdir()] == ["runs"]


def test_an_unknown_option_of_a_format_is_told(influence, made_run):
    answer = influence("export", "made", "--to", "jsonl", "-o", "colour=red")
    assert answer.code == 2
    assert "-o colour: jsonl has no such option." in answer.stderr


def test_a_file_that_cannot_be_written_is_told_in_one_line(influence, made_run, place):
    answer = influence("export", "made", "--to", "jsonl", "--out", place / "nowhere" / "t.jsonl")
    assert answer.code == 2
    assert answer.stderr.count("\n") == 1
    assert "nowhere" in answer.stderr
