"""The wall clock may jump: it dates what is stored, and nothing waits, times out or is ordered by it."""

import ast
import itertools
import sqlite3
import time

import pytest

DATING = {
    "src/influence_cli/store/writer.py",
    "src/influence_cli/store/labels.py",
    "src/influence_cli/store/run_directory.py",
    "src/influence_cli/viewer/formats.py",
    "src/influence_cli/sittings/provenance.py",
    "src/influence_cli/sittings/sweep/preparing.py",
    "src/influence_cli/sweeps/sweep.py",
    "src/influence_cli/sittings/detaching.py",
    "src/influence_cli/sharding/simulating.py",
    "src/influence_cli/sharding/scoring.py",
    "src/influence_cli/sharding/orphans.py",
    "plugins/influence_slurm/launcher.py",
    "src/influence_cli/cli/importing.py",
    "src/influence_cli/sittings/generate.py",
    "plugins/influence_openai/failures.py",  # a date in Retry-After of a server that sends no Date of its own
    "plugins/influence_trackers/tensorboard.py",
}
"""Where the wall clock is read: to write down when something happened, or to show how long ago."""


def wall_clock_readers(repository):
    for file in [*(repository / "src").rglob("*.py"), *(repository / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"):
                    yield file.relative_to(repository).as_posix()


def test_nothing_but_dates_is_read_from_the_wall_clock(repository):
    read = {file for file in wall_clock_readers(repository) if "/testing/" not in file}
    assert read <= DATING


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_run_is_whole_whatever_the_wall_clock_does(simulate, place, monkeypatch, jump):
    real, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * (next(calls) % 7))
    answer = simulate("--n", "8", "--out", "runs/made", "--json")
    monkeypatch.undo()
    assert answer.code == 0, answer.stderr
    assert answer.document["conversations"]["complete"] == 8
    assert 0.0 <= answer.document["seconds"] < 60.0
    with sqlite3.connect(place / "runs" / "made" / "run.db") as database:
        assert 0.0 <= database.execute("SELECT seconds FROM run").fetchone()[0] < 60.0
    database.close()
