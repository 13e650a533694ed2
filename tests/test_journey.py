"""The commands as functions of the public face: the same runs, the same objects."""

import asyncio
from pathlib import Path

import pytest

from influence_cli import api
from influence_cli.cli import output

MODEL = "scripted:demo"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(tiny_folder):
    return api.simulate(tiny_folder, model=MODEL, n=4, out="runs/made", settings={"turns": 2})


def test_a_run_is_made_scored_read_and_reported(made, capfd):
    assert (made.exit_code, made.path) == (0, Path("runs/made"))
    assert made.document["conversations"]["complete"] == 4
    scored = api.score(made.path, ["computed", "harm"], judges=[MODEL])
    assert scored.document["schema"] == "influence.score/1"
    assert scored.exit_code == 0
    with api.read_run("made") as run:
        found = list(run.trajectories())
    assert len(found) == 4
    assert max(trajectory["turns"] for trajectory in found) <= 2
    document = api.report("made")
    assert document["schema"] == "influence.report/1"
    assert "reply-length" in {measure["id"] for measure in document["measures"]}
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


def test_more_of_a_run_is_taken_up_and_two_are_compared(made, tiny_folder):
    grown = api.resume("made", settings={"n": 6})
    assert grown.document["conversations"]["earlier"] == 4
    assert grown.document["conversations"]["complete"] == 2
    api.simulate([tiny_folder], model=MODEL, n=6, out="runs/other", settings={"seed": 1})
    assert api.compare("made", "other")["schema"] == "influence.compare/1"


def test_an_agent_is_trained_and_goes_on(tiny_folder):
    how = {"algorithm": "scripted", "iterations": 1, "model": MODEL, "settings": {"selection.fraction": 0.5}}
    trained = api.train(tiny_folder, out="runs/trained", **how)
    assert [row["iteration"] for row in trained.document["iterations"]] == [0, 1]
    more = api.resume(trained.path, settings={"iterations": 2})
    assert len(more.document["iterations"]) == 3


def test_mistakes_raise_and_leave_the_talk_as_it_was(tiny_folder):
    with pytest.raises(api.InfluenceError, match="sead"):
        api.simulate(tiny_folder, model=MODEL, settings={"sead": 1})
    assert not output.is_quiet()
    assert not Path("runs").exists()


def test_it_works_where_an_event_loop_runs_already(tiny_folder):
    async def notebook():
        return api.simulate(tiny_folder, model=MODEL, n=2)

    assert asyncio.run(notebook()).document["conversations"]["complete"] == 2
