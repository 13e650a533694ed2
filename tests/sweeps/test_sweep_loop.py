"""The loop over trials: every trial once, side by side, within the budget; bad ones given up on the way."""

import pytest

from influence_cli.errors import EXIT_DONE, EXIT_STOPPED

from .conftest import GivesUp, Toy, good, strength, values


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
