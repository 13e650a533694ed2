"""Trials that fail: counted with their reason, never scored, tried again where that can help, and the end where none works."""

import shutil
import signal

import pytest

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError
from influence_cli.schemas.configs import TrainConfig
from influence_cli.store.connection import connect
from influence_cli.sweeps import watching
from influence_cli.sweeps.sweep import RETRIES

from .conftest import Toy, ToyLauncher, add_iteration, begin_trial, good, made_run, strength, values


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
    begin_trial(directory)
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


def test_an_error_of_the_launcher_ends_the_sweep_and_leaves_it_resumable(make_sweep, have, monkeypatch):
    async def refuse(self, task):
        raise InfluenceError("No room.")

    directory = make_sweep(parallel=2)
    with monkeypatch.context() as patch:
        patch.setattr(ToyLauncher, "start", refuse)
        with pytest.raises(InfluenceError, match="No room"):
            have(directory, good)
    outcome, _, _ = have(directory, good)
    assert outcome.exit_code == EXIT_DONE


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
