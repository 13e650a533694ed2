"""Optuna's searchers keep every promise of a searcher; they learn, prune and remember."""

import math
import sqlite3
from contextlib import closing

import pytest

pytest.importorskip("optuna")

from influence_cli.errors import InfluenceError
from influence_cli.schemas.sweeps import Study
from influence_cli.testing.searchers import SearcherConformance, done
from influence_optuna.options import Nsga2Options, SearcherOptions, TpeOptions
from influence_optuna.searchers import Nsga2, OptunaRandom, Tpe


class TestTpe(SearcherConformance):
    @pytest.fixture
    def make_searcher(self):
        return lambda study: Tpe(study, TpeOptions(startup_trials=3))


class TestTpeOfTwoObjectives(SearcherConformance):
    objectives = ("heldout_reward:max", "harm:min")

    @pytest.fixture
    def make_searcher(self):
        return lambda study: Tpe(study, TpeOptions(startup_trials=3))


class TestNsga2(SearcherConformance):
    objectives = ("heldout_reward:max", "harm:min")

    @pytest.fixture
    def make_searcher(self):
        return lambda study: Nsga2(study, Nsga2Options(population=3))


class TestRandomThatIsPruned(SearcherConformance):
    @pytest.fixture
    def make_searcher(self):
        return lambda study: OptunaRandom(study, SearcherOptions(pruner="halving"))


@pytest.fixture
def study(tmp_path):
    def make(space, trials=20, objectives=("heldout_reward:max",), name="study"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Study(name=name, folder=str(folder), seed=2, space=space, objectives=objectives, trials=trials)

    return make


def searched(searcher, of, value):
    """The parameters of all trials, told as they come."""
    found = []
    for number in range(of.trials):
        parameters = searcher.ask(number)
        found.append(parameters)
        trial = done(number, {**parameters, "mix": ""}, of)
        reading = trial.readings[0].model_copy(update={"value": value(parameters)})
        searcher.tell(trial.model_copy(update={"parameters": parameters, "readings": (reading,)}))
    return found


def test_tpe_comes_nearer_than_it_began(study):
    of = study({"lr": "log(1e-6,1e-2)"})

    def value(parameters):
        return -abs(math.log10(parameters["lr"]) + 3.0)

    with closing(Tpe(of, TpeOptions(startup_trials=8))) as searcher:
        found = [value(parameters) for parameters in searched(searcher, of, value)]
    assert sum(found[-8:]) / 8 > sum(found[:8]) / 8 + 0.3


def test_a_trial_below_the_median_is_given_up_and_one_above_is_not(study):
    of = study({"n": [1, 2]})
    options = SearcherOptions(pruner="median", warmup_trials=3, warmup_iterations=2)
    with closing(OptunaRandom(of, options)) as searcher:
        for number, value in enumerate((5.0, 6.0, 7.0)):
            parameters = searcher.ask(number)
            assert not any(searcher.report(number, step, value) for step in (1, 2, 3))
            reading = done(number, {**parameters, "mix": ""}, of).readings[0]
            trial = done(number, {**parameters, "mix": ""}, of)
            searcher.tell(
                trial.model_copy(
                    update={
                        "parameters": parameters,
                        "readings": (reading.model_copy(update={"value": value}),),
                        "steps": {1: value},
                    }
                )
            )
        searcher.ask(3)
        assert [searcher.report(3, step, 4.0) for step in (1, 2)] == [False, True]
        searcher.ask(4)
        assert [searcher.report(4, step, 9.0) for step in (1, 2)] == [False, False]


def test_it_remembers_in_sqlite_in_the_sweeps_folder(study, tmp_path):
    of = study({"n": [1, 2]})
    with closing(OptunaRandom(of, SearcherOptions())) as searcher:
        searcher.ask(0)
    with closing(sqlite3.connect(tmp_path / "study" / "optuna.db")) as database:
        assert database.execute("SELECT study_name FROM studies").fetchall() == [("study",)]


def test_a_storage_elsewhere_holds_several_sweeps(study, tmp_path):
    options = SearcherOptions(storage=f"sqlite:///{tmp_path / 'shared.db'}")
    for name in ("one", "two"):
        with closing(OptunaRandom(study({"n": [1, 2]}, name=name), options)) as searcher:
            searcher.ask(0)
    with closing(sqlite3.connect(tmp_path / "shared.db")) as database:
        assert [row[0] for row in database.execute("SELECT study_name FROM studies")] == ["one", "two"]
    assert not (tmp_path / "one" / "optuna.db").exists()


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("nowhere", "is no address"),
        ("sqlite:////no/such/folder/a.db", "cannot be reached"),
        ("what://there", "cannot be reached"),
        ("postgresql+pg8000://me:secret@localhost/x", "needs a driver"),
    ],
)
def test_a_storage_that_cannot_be_had_is_one_line_without_a_password(study, storage, told):
    with pytest.raises(InfluenceError, match=told) as caught:
        OptunaRandom(study({"n": [1, 2]}), SearcherOptions(storage=storage))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_pruning_by_several_objectives_is_refused(study):
    of = study({"n": [1, 2]}, objectives=("heldout_reward:max", "harm:min"))
    with pytest.raises(InfluenceError, match="one objective"):
        Tpe(of, TpeOptions(pruner="median"))


def test_a_trial_of_optunas_without_a_number_is_given_up(study):
    of = study({"n": [1, 2]})
    with closing(OptunaRandom(of, SearcherOptions())) as searcher:
        searcher._study.ask()  # what a kill right after it leaves behind
    with closing(OptunaRandom(of, SearcherOptions())) as searcher:
        assert searcher.ask(0) in ({"n": 1}, {"n": 2})
        assert [trial.state.name for trial in searcher._study.get_trials()] == ["FAIL", "RUNNING"]
