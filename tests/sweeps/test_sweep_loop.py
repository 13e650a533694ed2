"""The loop over trials: every trial once, failures counted, budgets kept, stops resumable, bad ones given up."""

import asyncio
import shutil
import signal

import pytest

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError
from influence_cli.launching.protocol import Task
from influence_cli.launching.records import add_record, drop_records, read_records, record_of
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.sweeps import TrialRecord
from influence_cli.store.connection import connect
from influence_cli.store.run_directory import locked
from influence_cli.sweeps import watching
from influence_cli.sweeps.directory import create_sweep, find_sweep, open_sweep
from influence_cli.sweeps.records import TrialStore
from influence_cli.sweeps.searchers import Random
from influence_cli.sweeps.sweep import RETRIES

from .conftest import POLL, Toy, ToyLauncher, add_iteration, made_run


def strength(config):
    return config.algorithm.options["strength"]


def good(config):
    return Toy(rewards=(5.0, 5.0 + strength(config)), gap=strength(config))


def values(outcome):
    return [trial.readings[0].value for trial in outcome.trials if trial.readings]


def test_every_trial_is_an_ordinary_run_read_at_its_last_iteration(make_sweep, have):
    directory = make_sweep(objectives=["heldout_reward", "harm", "targeting_gap", "tokens"])
    outcome, launcher, told = have(directory, good)
    assert (outcome.exit_code, outcome.reason) == (EXIT_DONE, "")
    assert values(outcome) == pytest.approx([5.1, 5.2, 5.3, 5.4])
    last = outcome.trials[-1]
    assert [each.objective for each in last.readings] == ["heldout_reward", "harm", "targeting_gap", "tokens"]
    assert [each.value for each in last.readings] == pytest.approx([5.4, 0.1, 0.4, 80])
    assert last.readings[0].low is not None
    assert (last.steps, last.tokens) == ({1: pytest.approx(5.4)}, 80)
    assert [trial.state for trial in told] == ["running", "done"] * 4
    assert launcher.commands[0][3:6] == ["train", "-c", str((directory.path / "base.yaml").resolve())]
    assert launcher.commands[0][6:8] == ["--set", "algorithm.options.strength=0.1"]
    assert "seed=7" in launcher.commands[0]


def test_a_finished_sweep_has_nothing_to_do_again(make_sweep, have):
    directory = make_sweep()
    first, _, _ = have(directory, good)
    again, launcher, told = have(directory, good)
    assert (again.trials, launcher.commands, told) == (first.trials, [], [])


def test_trials_run_side_by_side_and_no_more_than_allowed(make_sweep, have):
    outcome, launcher, _ = have(make_sweep(parallel=3), good)
    assert launcher.most == 3
    assert len(values(outcome)) == 4


def test_a_failed_trial_is_counted_with_its_reason_and_never_scored(make_sweep, have):
    directory = make_sweep()

    def toy(config):
        return (
            Toy(code=2, until=1, said="talk\nerror: The loss is no number.\n")
            if strength(config) == 0.2
            else good(config)
        )

    outcome, _, _ = have(directory, toy)
    failed = outcome.trials[1]
    assert (failed.state, failed.reason, failed.readings) == ("failed", "The loss is no number.", ())
    assert outcome.exit_code == EXIT_FAILURES
    assert "1 of 4 trials failed" in outcome.reason
    assert len(values(outcome)) == 3


def test_failed_trials_are_tried_again_where_that_is_asked_for_and_only_there(make_sweep, have):
    directory = make_sweep()

    def toy(config):
        return Toy(code=2, until=1, said="error: It is down.\n") if strength(config) in (0.2, 0.3) else good(config)

    failed, _, _ = have(directory, toy)
    assert ([trial.state for trial in failed.trials], failed.over) == (["done", "failed", "failed", "done"], True)
    again, launcher, _ = have(directory, good)
    assert (again.trials, launcher.commands) == (failed.trials, [])
    mended, launcher, told = have(directory, good, retry_failed=True)
    assert (mended.exit_code, values(mended)) == (EXIT_DONE, pytest.approx([5.1, 5.2, 5.3, 5.4]))
    assert [trial.parameters for trial in mended.trials] == [trial.parameters for trial in failed.trials]
    assert ["--resume" in command for command in launcher.commands] == [True, True]
    assert [(trial.number, trial.state) for trial in told] == [
        (n, state) for n in (1, 2) for state in ("running", "done")
    ]


def test_a_trial_tried_again_that_fails_again_has_the_new_reason(make_sweep, have):
    directory = make_sweep(search={"strength": [0.1, 0.2]})
    have(directory, lambda config: Toy(code=2, until=0, said="error: It is down.\n"))
    for path in (directory.path / "trials").iterdir():
        shutil.rmtree(path)
    again, _, _ = have(directory, lambda config: Toy(code=2, until=0, said="error: It is away.\n"), retry_failed=True)
    assert [(trial.state, trial.reason) for trial in again.trials] == [("failed", "It is away.")] * 2


def test_a_run_of_which_too_much_failed_is_not_taken_for_done(make_sweep, have):
    """As after a kill between the end of the run and the record of it."""
    directory = make_sweep(search={"strength": [0.1]})
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0))
    config = directory.base | {"environments": ["tiny"]}
    run = made_run(directory.runs(0)[0], TrainConfig.model_validate(config))
    with run.writer() as writer:
        add_iteration(writer, 0, 5.0)
        writer.set_state("done")
    connection = connect(run.database, write=True)
    connection.execute("UPDATE trajectory SET status = 'failed' WHERE episode_id = 1")
    connection.close()
    _, launcher, _ = have(directory, lambda config: Toy())
    assert ["--resume" in command for command in launcher.commands] == [True]


def test_a_run_ended_by_a_signal_is_taken_up_again(make_sweep, have):
    outcome, launcher, _ = have(make_sweep(), lambda config: Toy(good(config).rewards, code=-signal.SIGKILL, until=1))
    assert outcome.exit_code == EXIT_DONE
    assert values(outcome) == pytest.approx([5.1, 5.2, 5.3, 5.4])
    assert ["--resume" in command for command in launcher.commands] == [False, True] * 4


def test_a_run_that_signals_end_again_and_again_is_given_up_for_now_and_never_told(make_sweep, have, monkeypatch):
    directory = make_sweep(search={"strength": [0.1, 0.2]})

    def killed(self, task, path, config, *_):
        async def work():
            with made_run(path, config).writer():
                return -signal.SIGKILL if strength(config) == 0.1 else 0

        return work()

    with monkeypatch.context() as patch:
        patch.setattr(ToyLauncher, "_run", killed)
        outcome, launcher, _ = have(directory, good)
    assert len([command for command in launcher.commands if "000" in " ".join(command)]) == 1 + RETRIES
    assert (outcome.exit_code, outcome.trials[0].state) == (EXIT_STOPPED, "running")
    assert "1 trials were stopped and can be taken up, the last: ended by SIGKILL" in outcome.reason
    again, _, _ = have(directory, good)
    assert (again.trials[0].state, again.trials[0].reason) == ("done", "")


def failing(times, code, said):
    """Return a run that ends with ``code`` so often, and then well; and how often it was begun."""
    begun = []

    async def run(self, task, path, config, *_):
        begun.append(path.name)
        with made_run(path, config).writer() as writer:
            if len(begun) <= times:
                task.log.write_text(said)
                writer.set_state("failed")
                return code
            add_iteration(writer, 1, 5.5)
            writer.begin_stage(1, "evaluate")
            writer.finish_stage(1, "evaluate", {})
            writer.set_state("done")
        return 0

    return run, begun


@pytest.mark.parametrize(("times", "state"), [(2, "done"), (10, "failed")])
def test_too_many_failed_conversations_are_tried_again_before_the_trial_fails(
    make_sweep, have, monkeypatch, times, state
):
    run, begun = failing(
        times, EXIT_FAILURES, "error: 3 of 8 conversations failed. They are tried again with --resume.\n"
    )
    monkeypatch.setattr(ToyLauncher, "_run", run)
    outcome, _, _ = have(make_sweep(search={"strength": [0.1]}), good)
    assert (outcome.trials[0].state, len(begun)) == (state, 1 + min(times, RETRIES))


def test_a_full_disk_fails_no_trial(make_sweep, have, monkeypatch):
    directory = make_sweep(search={"strength": [0.1]})
    run, begun = failing(1, 2, "error: run.db: the disk is full. Free some space.\n")
    monkeypatch.setattr(ToyLauncher, "_run", run)
    outcome, _, _ = have(directory, good)
    assert (outcome.exit_code, outcome.trials[0].state, len(begun)) == (EXIT_STOPPED, "running", 1)
    assert "the disk is full" in outcome.reason
    assert have(directory, good)[0].exit_code == EXIT_DONE


def test_a_machine_that_has_no_trial_ends_the_sweep(make_sweep, have, monkeypatch):
    async def killed(self, task, path, config, *_):
        with made_run(path, config).writer():
            return -signal.SIGKILL

    monkeypatch.setattr(ToyLauncher, "_run", killed)
    outcome, _, _ = have(make_sweep(stop_after_failed=2), good)
    assert outcome.exit_code == EXIT_FAILURES
    assert "all of the first 2 trials failed, the last: ended by SIGKILL" in outcome.reason


def test_an_error_of_the_launcher_later_on_is_the_trials_alone(make_sweep, have, monkeypatch):
    start = ToyLauncher.start

    async def refuse_second(self, task):
        if task.name.endswith("-001"):
            raise InfluenceError("No room.")
        return await start(self, task)

    directory = make_sweep()
    with monkeypatch.context() as patch:
        patch.setattr(ToyLauncher, "start", refuse_second)
        outcome, _, _ = have(directory, good)
    assert [trial.state for trial in outcome.trials] == ["done", "running", "done", "done"]
    assert (outcome.exit_code, outcome.trials[1].reason) == (EXIT_STOPPED, "No room.")
    assert have(directory, good)[0].exit_code == EXIT_DONE


def test_a_run_that_cannot_be_read_is_a_failed_trial(make_sweep, have, monkeypatch):
    readings_of = watching.readings_of

    def damaged(path, objectives):
        if path.name == "001":
            raise InfluenceError("It is damaged.")
        return readings_of(path, objectives)

    monkeypatch.setattr(watching, "readings_of", damaged)
    outcome, _, _ = have(make_sweep(), good)
    assert [trial.state for trial in outcome.trials] == ["done", "failed", "done", "done"]
    assert outcome.trials[1].reason == "It is damaged."


@pytest.mark.parametrize("left", [b"", None])
def test_a_run_killed_before_it_had_tables_is_taken_up(make_sweep, have, left):
    directory = make_sweep()
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0))
    run = made_run(directory.runs(0)[0], TrainConfig.model_validate(directory.base))
    if left is None:
        connect(run.database, write=True).close()
    else:
        run.database.write_bytes(left)
    assert watching.run_state(run.path) == "stopped"
    outcome, launcher, _ = have(directory, lambda config: Toy())
    assert (outcome.exit_code, "--resume" in launcher.commands[0]) == (EXIT_DONE, True)


def test_it_stops_where_every_trial_fails(make_sweep, have):
    directory = make_sweep(
        search={"strength": "uniform(0.1,0.9)"}, searcher={"name": "random"}, trials=50, stop_after_failed=3
    )
    outcome, launcher, _ = have(directory, lambda config: Toy(code=2, until=0, said="error: No such model.\n"))
    assert outcome.exit_code == EXIT_FAILURES
    assert outcome.reason == "all of the first 3 trials failed, the last: No such model"
    assert len(launcher.commands) == 3


def test_a_run_without_a_usable_rating_has_no_value(make_sweep, have):
    outcome, _, _ = have(make_sweep(), lambda config: Toy(rewards=(5.0, None)) if False else Toy(until=0))
    assert {trial.state for trial in outcome.trials} == {"failed"}
    assert "no conversation has a usable figure" in outcome.trials[0].reason


def test_the_budget_of_tokens_is_shared_and_ends_resumably(make_sweep, have):
    directory = make_sweep(budget={"tokens": 200})
    outcome, launcher, _ = have(directory, good)
    assert (outcome.exit_code, outcome.reason) == (EXIT_STOPPED, "the budget of 200 tokens is used up")
    left = [int(command[command.index("--max-tokens") + 1]) for command in launcher.commands]
    assert left == [200, 120, 40]
    states = [trial.state for trial in outcome.trials]
    assert states == ["done", "done", "running"]
    wider = directory.remember(
        directory.config.model_copy(update={"budget": directory.config.budget.model_copy(update={"tokens": 1_000})})
    )
    again, launcher, _ = have(wider, good)
    assert again.exit_code == EXIT_DONE
    assert "--resume" in launcher.commands[0]
    assert values(again) == pytest.approx([5.1, 5.2, 5.3, 5.4])


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


def test_a_trial_whose_run_had_ended_before_the_kill_is_only_read(make_sweep, have):
    directory = make_sweep()
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0))
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
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0))
    (directory.runs(0)[0] / "logs").mkdir(parents=True)
    outcome, _, _ = have(directory, good)
    assert outcome.exit_code == EXIT_DONE


def test_a_run_that_another_process_still_has_is_waited_for(make_sweep, have):
    """As on a cluster, where a job outlives the sweep that started it."""
    directory = make_sweep()
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0))
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


class GivesUp(Random):
    """Gives up whatever is below 5.5 after iteration 1."""

    def report(self, number, step, value):
        return step == 1 and value < 5.5


def test_a_trial_that_learns_badly_is_given_up_on_the_way(make_sweep, have):
    directory = make_sweep(search={"strength": "uniform(0.1,0.9)"}, searcher={"name": "random"}, trials=6)

    def toy(config):
        return Toy(rewards=(5.0, 5.0 + strength(config), 6.0), hold=strength(config) < 0.5)

    outcome, _, _ = have(directory, toy, searcher=GivesUp)
    for trial in outcome.trials:
        bad = trial.parameters["strength"] < 0.5
        assert trial.state == ("pruned" if bad else "done")
        assert ("after iteration 1" in trial.reason) == bad
        assert bool(trial.readings) != bad
    assert {trial.state for trial in outcome.trials} == {"pruned", "done"}
    assert outcome.exit_code == EXIT_DONE
    again, launcher, _ = have(directory, toy, searcher=GivesUp)
    assert (again.trials, launcher.commands) == (outcome.trials, [])


def test_a_trial_given_up_just_before_a_kill_is_not_begun_again(make_sweep, have):
    directory = make_sweep()
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0, steps={1: 5.1}))

    class GridThatGivesUp(GivesUp):
        def ask(self, number):
            return None

        def __init__(self, study, options):
            pass

    outcome, launcher, _ = have(directory, good, searcher=GridThatGivesUp)
    assert [trial.state for trial in outcome.trials] == ["pruned"]
    assert launcher.commands == []


def record(directory, number, launcher="local"):
    task = Task(f"{directory.path.name}-{number:03d}", ("influence",), directory.log(number))
    add_record(directory.path, record_of(task, f"job-{number}", launcher, {}, "2026-01-01T00:00:00+00:00"))


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


def test_seeds_repeat_a_trial_and_give_its_interval(make_sweep, have):
    directory = make_sweep(search={"strength": [0.5]}, seeds=3)
    outcome, launcher, _ = have(directory, lambda config: Toy(rewards=(5.0, 5.0 + (config.seed - 7))))
    (reading,) = outcome.trials[0].readings
    assert (reading.value, reading.over) == (pytest.approx(6.0), "seeds")
    assert (reading.low, reading.high) == (pytest.approx(6.0 - 2.484, abs=1e-3), pytest.approx(6.0 + 2.484, abs=1e-3))
    assert [path.name for path in directory.runs(0)] == ["seed-0", "seed-1", "seed-2"]
    assert len(launcher.commands) == 3


def test_simulations_can_be_swept_too(make_sweep, have):
    directory = make_sweep(command="simulate", search={"turns": [1, 2]}, objectives=["reward", "harm"])
    outcome, launcher, _ = have(directory, lambda config: Toy(rewards=(4.0 + config.turns,)))
    assert values(outcome) == pytest.approx([5.0, 6.0])
    assert launcher.commands[0][3] == "simulate"


def test_an_error_of_the_launcher_ends_the_sweep_and_leaves_it_resumable(make_sweep, have, monkeypatch):
    from . import conftest

    async def refuse(self, task):
        raise InfluenceError("No room.")

    directory = make_sweep(parallel=2)
    with monkeypatch.context() as patch:
        patch.setattr(conftest.ToyLauncher, "start", refuse)
        with pytest.raises(InfluenceError, match="No room"):
            have(directory, good)
    outcome, _, _ = have(directory, good)
    assert outcome.exit_code == EXIT_DONE


def test_a_sweep_is_found_by_path_and_name_and_only_if_it_is_one(make_sweep, tmp_path, monkeypatch):
    directory = make_sweep("runs/mine")
    monkeypatch.chdir(tmp_path)
    assert find_sweep("mine").resolve() == directory.path
    assert find_sweep("latest").resolve() == directory.path
    assert open_sweep(directory.path).manifest == directory.manifest
    with pytest.raises(InfluenceError, match="Did you mean 'mine'"):
        find_sweep("mien")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InfluenceError, match="is no sweep"):
        find_sweep("empty")
    with pytest.raises(InfluenceError, match="holds another sweep"):
        create_sweep(directory.path, directory.manifest, {})


def test_two_processes_cannot_have_one_sweep(make_sweep):
    directory = make_sweep()
    with (
        locked(directory.path),
        pytest.raises(InfluenceError, match="is being written by process"),
        locked(directory.path),
    ):
        pass
