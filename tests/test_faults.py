"""Under faults of servers, disks, clocks and processes nothing is lost, kept twice or paid for twice without need."""

import importlib.util
import json
import signal
import subprocess
import sys

import pytest

from influence_cli.testing.disks import can_mount, filled, full_while_at_work, small_disk
from influence_cli.testing.faults import (
    Result,
    ended,
    expected_of,
    held_up,
    misbehaving,
    outage,
    put_through,
    start,
    trial_killed,
    two_at_once,
)
from influence_cli.testing.server import serve
from influence_cli.testing.stages import STAGES, Stage, audit

OPTIONS = ("timeout=20", "retry_delay=0.02", "initial_concurrency=16")


@pytest.fixture(scope="module")
def server():
    with serve(latency=0.05, spread=0.8, seed=3, retry_after=0.02, slow_seconds=0.5) as running:
        yield running


@pytest.fixture
def make_stage(server, tiny_folder, tmp_path):
    def make(name="simulate", label="run", **changes):
        server.configure(faults={}, latency=0.05)
        return Stage(name, tmp_path / label, tiny_folder, server, **{"n": 6, "options": OPTIONS, **changes})

    return make


@pytest.fixture(scope="module")
def undisturbed():
    """What undisturbed runs leave behind, by command and size: it is the same each time."""
    return {}


@pytest.fixture
def expected_from(undisturbed, make_stage):
    def expected(name, **changes):
        key = name, *sorted(changes.items())
        if key not in undisturbed:
            undisturbed[key] = expected_of(make_stage(name, "whole", **changes))
        return undisturbed[key]

    return expected


@pytest.fixture
def put(make_stage, expected_from):
    def put_one(disturb, name="simulate", fault="fault", **changes) -> Result:
        return checked(put_through(make_stage(name, **changes), fault, disturb, expected_from(name, **changes)))

    return put_one


def checked(result) -> Result:
    assert result.expected > 0
    assert result.sound, result
    return result


@pytest.mark.slow
def test_a_server_that_spoils_a_third_of_its_answers_loses_nothing(put):
    result = put(misbehaving("server_error", 0.3))
    assert result.injected > 0


def test_a_server_that_is_away_for_a_while_fails_no_conversation(put):
    result = put(outage(1.5))
    assert (result.injected, result.failed_at_first, result.resumes) == (1, 0, 0)


@pytest.mark.slow
def test_a_process_that_is_held_up_goes_on(put):
    result = put(held_up(1.0))
    assert result.exit_codes == [0]


def test_of_two_processes_on_a_run_the_second_is_refused_and_the_dead_one_leaves_no_lock(put):
    result = put(two_at_once, n=24)
    assert result.injected == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("fault", "share"), [("rate_limit", 0.5), ("drop", 0.5), ("malformed", 0.3), ("slow", 0.2)])
def test_each_command_bears_each_fault_of_a_server(put, stage, fault, share):
    result = put(misbehaving(fault, share), stage, fault)
    assert result.injected > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGKILL, (-9,)), (signal.SIGTERM, (3,))], ids=["kill", "term"])
def test_each_command_bears_signals_at_any_moment(put, stage, number, codes):
    result = put(ended(number, 2, [0.05, 0.2], codes), stage, n=24)
    assert result.injected > 0


@pytest.mark.slow
def test_a_sweep_takes_up_a_trial_whose_process_was_killed(put):
    result = put(trial_killed, "sweep", n=24)
    assert (result.injected, result.exit_codes) == (1, [0])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES[2:])
def test_of_two_processes_on_training_or_a_sweep_the_second_is_refused(put, stage):
    assert put(two_at_once, stage, n=24).injected == 1


@pytest.fixture
def disk(tmp_path):
    if not can_mount(tmp_path / "probe"):
        pytest.skip("no disk can be mounted here")
    with small_disk(tmp_path / "disk", 48) as mounted:  # room for a log of 4,000 pages beside the run
        yield mounted


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", STAGES)
def test_each_command_says_that_the_disk_is_full_and_goes_on_once_it_is_not(
    expected_from, disk, tiny_folder, server, stage
):
    expected = expected_from(stage, n=24)
    server.configure(faults={}, latency=0.05)
    on_disk = Stage(stage, disk / "run", tiny_folder, server, n=24, options=OPTIONS)
    result = checked(put_through(on_disk, "disk full", full_while_at_work(disk, after=3), expected))
    assert result.injected == 1
    assert result.exit_codes == [2]


@pytest.mark.parametrize("command", ["score", "export", "report"])
def test_a_run_on_a_full_disk_is_told_so_in_one_line_and_stays_whole(make_stage, disk, tiny_folder, server, command):
    stage = Stage("score", disk / "run", tiny_folder, server, n=4, options=OPTIONS)
    stage.prepare()
    more = {
        "score": ["--with", "harm", "--judge", "scripted:demo"],
        "export": ["--to", "jsonl", "--out", str(disk / "x")],
        "report": [],
    }
    with filled(disk):
        arguments = [sys.executable, "-m", "influence_cli", command, str(stage.folder), *more[command]]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "full" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (disk / "x").exists()
    assert audit(stage).problems == []


def test_a_disk_that_is_full_before_the_start_is_told_in_one_line(make_stage, disk):
    stage = make_stage()
    with filled(disk):
        process = start([*stage.begin()[:-4], "--out", str(disk / "run"), "--quiet"])
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.count("\n") == 1, said
    assert "full" in said


def test_the_published_table_is_that_of_the_figures_and_nothing_in_it_is_lost_or_there_twice(repository):
    spec = importlib.util.spec_from_file_location("fault_table", repository / "benchmarks" / "fault_table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    document = json.loads((repository / "benchmarks" / "results" / "faults.json").read_text())
    assert table.markdown(document) in (repository / "docs" / "reliability.md").read_text()
    assert {row["stage"] for row in document["rows"]} == set(STAGES)
    assert all(row["sound"] for row in document["rows"])
    assert {row[figure] for row in document["rows"] for figure in ("lost", "duplicated", "needless")} == {0}
    assert all(row["sitting"] < len(document["sittings"]) for row in document["rows"])
