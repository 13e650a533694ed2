"""The commands as functions of the public face: the same runs, the same objects."""

import asyncio
import gc
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from influence_cli import api

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


@pytest.mark.parametrize("command", ["simulate", "train"])
def test_signals_and_the_collector_are_as_they_were_when_a_function_returns(tiny_folder, command):
    def mine(number, frame):
        raise AssertionError

    def state():
        return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], gc.get_threshold(), gc.get_freeze_count()

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    threshold = gc.get_threshold()
    gc.unfreeze()  # whatever ran here before
    gc.set_threshold(701, 11, 9)
    try:
        expected = state()
        if command == "simulate":
            api.simulate(tiny_folder, model=MODEL, n=1, out="runs/made")
        else:
            how = {"algorithm": "scripted", "iterations": 1, "settings": {"selection.fraction": 0.5}}
            api.train(tiny_folder, model=MODEL, out="runs/made", **how)
        assert state() == expected
    finally:
        gc.set_threshold(*threshold)
        for number, handler in before.items():
            signal.signal(number, handler)


# -- several processes ------------------------------------------------------------------------------------------------


def conversations(run) -> list[dict]:
    """What was said in a run and how it was rated, without times."""
    with api.read_run(run) as reader:
        return [
            {name: trajectory[name] for name in ("scenario", "initial_state", "sample", "population", "mean_rating")}
            | {"said": [(m["turn"], m["speaker"], m["text"]) for m in trajectory["messages"]]}
            for trajectory in reader.trajectories()
        ]


def scores(run) -> list[tuple]:
    with api.read_run(run) as reader:
        query = "SELECT e.scenario, e.initial_state, e.sample, s.turn, s.rubric, s.value FROM score s JOIN episode e"
        return sorted(tuple(row) for row in reader.rows(f"{query} ON e.id = s.episode_id"))


def test_a_run_in_shards_is_the_run_of_one_process_and_so_are_its_scores(made, tiny_folder, capfd):
    split = api.simulate(tiny_folder, model=MODEL, n=4, out="runs/split", settings={"turns": 2}, shards=2)
    assert split.exit_code == 0
    assert conversations("split") == conversations("made")
    for name in ("conversations", "turns", "tokens", "mean_rating"):
        assert split.document[name] == made.document[name], name
    how = {"judges": [MODEL], "settings": {"judges.draws": 7}}
    parted = api.score("split", ["harm", "reply-length"], launcher=api.Launching(restarts=1), shards=2, **how)
    whole = api.score("made", ["harm", "reply-length"], **how)
    assert (parted.exit_code, parted.document["scores"]) == (0, whole.document["scores"])
    assert scores("split") == scores("made")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


def test_a_run_of_one_process_goes_on_in_shards_from_where_a_loop_runs(tiny_folder):
    short = {"budget.tokens": 300, "concurrency": 1}
    first = api.simulate(tiny_folder, model=MODEL, n=4, out="runs/made", settings=short)
    assert (first.exit_code, first.document["state"]) == (3, "stopped")

    async def notebook():
        return api.resume("made", settings={"budget.tokens": 10**6}, shards=2)

    again = asyncio.run(notebook())
    assert again.exit_code == 0
    done = again.document["conversations"]
    assert done["complete"] + done["earlier"] == 4


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"shards": 0}, "0 shards are none"),
        ({"launcher": "lokal"}, "Did you mean 'local'"),
        ({"launcher": api.Launching("local", options={"places": 1}), "shards": 2}, "local has no such option"),
    ],
)
def test_what_cannot_be_launched_raises_and_leaves_nothing_behind(tiny_folder, how, told):
    with pytest.raises(api.InfluenceError, match=told):
        api.simulate(tiny_folder, model=MODEL, n=4, out="runs/made", **how)
    assert not Path("runs").exists()


def test_what_cannot_be_split_raises(made, tiny_folder):
    with pytest.raises(api.InfluenceError, match="belong to the whole run"):
        api.score(made.path, probes=True, control=True, shards=2)
    how = {"algorithm": "scripted", "iterations": 1, "model": MODEL, "settings": {"selection.fraction": 0.5}}
    trained = api.train(tiny_folder, out="runs/trained", **how)
    with pytest.raises(api.InfluenceError, match="is not split into shards"):
        api.resume(trained.path, shards=2)


# -- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_is_had_shown_and_goes_on(tiny_folder, capfd):
    swept = api.sweep(
        tiny_folder,
        command="simulate",
        search={"turns": [1, 2, 3]},
        also=["tokens"],
        trials=2,
        model=MODEL,
        n=2,
        out="runs/swept",
        sweep_settings={"searcher.name": "grid", "parallel": 2},
    )
    assert (swept.exit_code, swept.document["schema"]) == (0, "influence.sweep.show/1")
    assert swept.document | {"reason": None} == swept.document
    shown = api.sweep_show("swept")
    assert shown == {name: value for name, value in swept.document.items() if name != "reason"}
    assert [each["name"] for each in shown["objectives"]] == ["reward", "tokens"]
    best = api.sweep_best(swept.path)
    assert (best["schema"], best["trial"]) == ("influence.sweep.best/1", shown["trials"][shown["best"]])
    assert len(conversations(best["trial"]["runs"][0])) == 2
    grown = api.resume("swept", settings={"trials": 3})
    assert [trial["state"] for trial in grown.document["trials"]] == ["done"] * 3
    assert api.sweep_best("latest", trial=2)["trial"]["number"] == 2
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


def test_a_sweep_that_could_not_begin_raises_and_leaves_nothing_behind(tiny_folder):
    with pytest.raises(api.InfluenceError, match="Nothing is searched"):
        api.sweep(tiny_folder, command="simulate", model=MODEL, out="runs/swept")
    with pytest.raises(api.InfluenceError, match="turns"):
        api.sweep(tiny_folder, command="simulate", search={"turns": [0, 1]}, model=MODEL, out="runs/swept")
    assert not Path("runs").exists()
    with pytest.raises(api.InfluenceError, match="nothing"):
        api.sweep_show("nothing")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_mistakes_raise_and_leave_nothing_behind(tiny_folder):
    with pytest.raises(api.InfluenceError, match="sead"):
        api.simulate(tiny_folder, model=MODEL, settings={"sead": 1})
    assert not Path("runs").exists()


def test_what_a_person_has_to_know_is_logged_and_not_printed(tiny_folder, place, caplog):
    own = Path(shutil.copytree(tiny_folder, place / "own" / "tiny"))
    run = api.simulate(own, model=MODEL, n=2).path
    shutil.rmtree(own)
    judged = f"api.score({str(run)!r}, ['computed', 'environment'], judges=[{MODEL!r}])"
    with caplog.at_level(logging.WARNING, "influence_cli"):
        api.score(run, ["computed", "environment"], judges=[MODEL])
    assert "What" in caplog.text
    assert "is left out" in caplog.text
    # In a process of its own: pytest listens to the log, so that nothing of it would be printed here in any case.
    code = f"from influence_cli import api; {judged}; api.report({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_works_where_an_event_loop_runs_already(tiny_folder):
    async def notebook():
        return api.simulate(tiny_folder, model=MODEL, n=2)

    assert asyncio.run(notebook()).document["conversations"]["complete"] == 2
