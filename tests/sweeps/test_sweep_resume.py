"""A sweep stopped or killed anywhere: runs and jobs that it left are taken up, waited for or read, and none is had twice."""

import asyncio
import signal

import pytest

from influence_cli.errors import EXIT_DONE, EXIT_STOPPED, InfluenceError
from influence_cli.launching.protocol import Task
from influence_cli.launching.records import add_record, drop_records, read_records, record_of
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.sweeps import TrialRecord
from influence_cli.store.connection import connect
from influence_cli.sweeps import watching
from influence_cli.sweeps.records import TrialStore

from .conftest import POLL, GivesUp, Toy, add_iteration, begin_trial, good, made_run, values


def record(directory, number, launcher="local"):
    task = Task(f"{directory.path.name}-{number:03d}", ("influence",), directory.log(number))
    add_record(directory.path, record_of(task, f"job-{number}", launcher, {}, "2026-01-01T00:00:00+00:00"))


def test_a_stop_leaves_trials_that_are_taken_up_with_the_same_parameters(make_sweep, have):
    directory = make_sweep(parallel=2, search={"strength": "uniform(0.1,0.9)"}, searcher={"name": "random"}, trials=4)

    async def stop(sweep, launcher):
        while launcher.active < 2:
            await asyncio.sleep(POLL)
        sweep.stop()

    outcome, _, _ = have(directory, lambda config: Toy(hold=True), after=stop)
    assert (outcome.exit_code, outcome.reason) == (EXIT_STOPPED, "stopped by a signal")
    assert [trial.state for trial in outcome.trials] == ["running", "running"]
    again, launcher, _ = have(directory, good)
    assert [trial.parameters for trial in again.trials[:2]] == [trial.parameters for trial in outcome.trials]
    assert {trial.state for trial in again.trials} == {"done"}
    assert [("--resume" in command) for command in launcher.commands] == [True, True, False, False]


def test_a_run_ended_by_a_signal_is_taken_up_again(make_sweep, have):
    outcome, launcher, _ = have(make_sweep(), lambda config: Toy(good(config).rewards, code=-signal.SIGKILL, until=1))
    assert outcome.exit_code == EXIT_DONE
    assert values(outcome) == pytest.approx([5.1, 5.2, 5.3, 5.4])
    assert ["--resume" in command for command in launcher.commands] == [False, True] * 4


@pytest.mark.parametrize("left", [b"", None])
def test_a_run_killed_before_it_had_tables_is_taken_up(make_sweep, have, left):
    directory = make_sweep()
    begin_trial(directory)
    run = made_run(directory.runs(0)[0], TrainConfig.model_validate(directory.base))
    if left is None:
        connect(run.database, write=True).close()
    else:
        run.database.write_bytes(left)
    assert watching.run_state(run.path) == "stopped"
    outcome, launcher, _ = have(directory, lambda config: Toy())
    assert (outcome.exit_code, "--resume" in launcher.commands[0]) == (EXIT_DONE, True)


def test_a_trial_whose_run_had_ended_before_the_kill_is_only_read(make_sweep, have):
    directory = make_sweep()
    begin_trial(directory)
    config = directory.base | {"environments": ["tiny"]}
    run = made_run(directory.runs(0)[0], TrainConfig.model_validate(config))
    with run.writer() as writer:
        add_iteration(writer, 1, 9.0)
        writer.begin_stage(1, "evaluate")
        writer.finish_stage(1, "evaluate", {})
        writer.set_state("done")
    outcome, launcher, _ = have(directory, good)
    assert values(outcome)[0] == 9.0
    assert len(launcher.commands) == 3


def test_what_a_kill_left_before_there_was_a_run_is_swept_away(make_sweep, have):
    directory = make_sweep()
    begin_trial(directory)
    (directory.runs(0)[0] / "logs").mkdir(parents=True)
    outcome, _, _ = have(directory, good)
    assert outcome.exit_code == EXIT_DONE


def test_a_trial_given_up_just_before_a_kill_is_not_begun_again(make_sweep, have):
    directory = make_sweep()
    begin_trial(directory, steps={1: 5.1})

    class GridThatGivesUp(GivesUp):
        def ask(self, number):
            return None

        def __init__(self, study, options):
            pass

    outcome, launcher, _ = have(directory, good, searcher=GridThatGivesUp)
    assert [trial.state for trial in outcome.trials] == ["pruned"]
    assert launcher.commands == []


def test_a_run_that_another_process_still_has_is_waited_for(make_sweep, have):
    """As on a cluster, where a job outlives the sweep that started it."""
    directory = make_sweep()
    begin_trial(directory)
    run = made_run(directory.runs(0)[0], TrainConfig.model_validate(directory.base))
    held = run.writer()
    writer = held.__enter__()
    writer.set_state("running")

    async def finish(sweep, launcher):
        await asyncio.sleep(5 * POLL)
        assert launcher.commands == []
        add_iteration(writer, 1, 8.0)
        writer.begin_stage(1, "evaluate")
        writer.finish_stage(1, "evaluate", {})
        writer.set_state("done")
        held.__exit__(None, None, None)

    outcome, launcher, _ = have(directory, good, after=finish)
    assert values(outcome)[0] == 8.0
    assert len(launcher.commands) == 3


def test_jobs_that_survive_a_kill_are_known_while_they_work_and_no_longer(make_sweep, have):
    directory = make_sweep()
    known = []

    async def look(sweep, launcher):
        while not known:
            known.extend((each.id, each.launcher) for each in read_records(directory.path))
            await asyncio.sleep(0)

    have(directory, good, after=look, survives=True)
    assert known == [("job-sweep-000", "local")]
    assert read_records(directory.path) == []


def test_a_job_that_an_earlier_sitting_left_in_the_queue_is_waited_for_and_not_started_twice(make_sweep, have):
    directory = make_sweep()
    with TrialStore(directory.path, write=True) as store:
        for number, each in enumerate((0.1, 0.2)):
            store.save(TrialRecord(number=number, parameters={"strength": each}, started=1.0))
            record(directory, number)

    async def begins_late(cancelled):
        await asyncio.sleep(5 * POLL)
        with made_run(directory.runs(0)[0], TrainConfig.model_validate(directory.base)).writer() as writer:
            add_iteration(writer, 1, 9.0)
            writer.begin_stage(1, "evaluate")
            writer.finish_stage(1, "evaluate", {})
            writer.set_state("done")
        return 0

    outcome, launcher, _ = have(directory, good, survives=True, left={"job-0": begins_late})
    assert values(outcome) == pytest.approx([9.0, 5.2, 5.3, 5.4])
    assert len(launcher.commands) == 3
    assert read_records(directory.path) == []


def test_a_job_of_another_launcher_is_not_worked_beside(make_sweep, have):
    directory = make_sweep()
    record(directory, 0, "slurm")
    with pytest.raises(InfluenceError, match="job-0 of slurm may be at work on trial 0.*influence jobs cancel job-0"):
        have(directory, good)
    drop_records(directory.path, [f"{directory.path.name}-000"])
    assert have(directory, good)[0].exit_code == EXIT_DONE
