"""Under faults of servers, disks, clocks and processes nothing is lost, kept twice or paid for twice without need."""

import signal
import subprocess
import sys

import pytest

from influence_cli.testing.disks import can_mount, filled, full_while_at_work, small_disk
from influence_cli.testing.faults import (
    STAGES,
    Result,
    Stage,
    audit,
    ended,
    expected_of,
    held_up,
    misbehaving,
    outage,
    put_through,
    start,
    two_at_once,
)
from influence_cli.testing.server import serve

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


def put(make_stage, disturb, name="simulate", fault="fault", **changes) -> Result:
    expected = expected_of(make_stage(name, "whole", **changes))
    result = put_through(make_stage(name, **changes), fault, disturb, expected)
    assert result.expected > 0
    assert result.sound, result
    return result


@pytest.mark.slow
def test_a_server_that_spoils_a_third_of_its_answers_loses_nothing(make_stage):
    result = put(make_stage, misbehaving("server_error", 0.3))
    assert result.injected > 0


def test_a_server_that_is_away_for_a_while_fails_no_conversation(make_stage):
    result = put(make_stage, outage(1.5))
    assert (result.injected, result.failed_at_first, result.resumes) == (1, 0, 0)


@pytest.mark.slow
def test_a_process_that_is_held_up_goes_on(make_stage):
    result = put(make_stage, held_up(1.0))
    assert result.exit_codes == [0]


def test_of_two_processes_on_a_run_the_second_is_refused_and_the_dead_one_leaves_no_lock(make_stage):
    result = put(make_stage, two_at_once, n=24)
    assert result.injected == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("fault", "share"), [("rate_limit", 0.5), ("drop", 0.5), ("malformed", 0.3), ("slow", 0.2)])
def test_each_command_bears_each_fault_of_a_server(make_stage, stage, fault, share):
    result = put(make_stage, misbehaving(fault, share), stage, fault)
    assert result.injected > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGKILL, (-9,)), (signal.SIGTERM, (3,))], ids=["kill", "term"])
def test_each_command_bears_signals_at_any_moment(make_stage, stage, number, codes):
    result = put(make_stage, ended(number, 2, [0.05, 0.2], codes), stage, n=24)
    assert result.injected > 0


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
    make_stage, disk, tiny_folder, server, stage
):
    expected = expected_of(make_stage(stage, "whole", n=24))
    on_disk = Stage(stage, disk / "run", tiny_folder, server, n=24, options=OPTIONS)
    result = put_through(on_disk, "disk full", full_while_at_work(disk, after=3), expected)
    assert result.sound, result
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
