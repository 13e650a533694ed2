"""The conformance suite for searchers: what every one promises, as tests.

Subclass it where your tests are, and give it what makes your searcher::

    class TestMySearcher(SearcherConformance):
        @pytest.fixture
        def make_searcher(self):
            return lambda study: MySearcher(study, MyOptions())
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from influence_cli.schemas.spaces import Choices, Dimension, Integers
from influence_cli.schemas.sweeps import Parameters, Reading, Study, TrialRecord
from influence_cli.sweeps.protocol import Searcher

MakeSearcher = Callable[[Study], Searcher]
MakeStudy = Callable[..., Study]

SPACE = {"turns": "1..4", "samples": [1, 4, 16], "how": ["reward", "random"], "mix": [{"a": 0.5}, {"b": 1.0}]}
TRIALS = 5


def value_of(parameters: Parameters) -> float:
    """Return what a trial with these parameters came to."""
    return float(len(repr(parameters["mix"]))) + math.fsum(
        float(value) for value in parameters.values() if isinstance(value, int | float)
    )


def done(number: int, parameters: Parameters, study: Study) -> TrialRecord:
    """Return the record of a trial that is done."""
    readings = tuple(
        Reading(objective=each.name, value=value_of(parameters) * (-1.0) ** index, over="nothing")
        for index, each in enumerate(study.objectives)
    )
    return TrialRecord(number=number, parameters=parameters, state="done", readings=readings)


class SearcherConformance:
    """Tests of one searcher; override ``make_searcher``, which may be called several times for one study."""

    objectives = ("heldout_reward:max",)
    """What the studies of these tests aim at."""

    @pytest.fixture
    def make_searcher(self) -> MakeSearcher:
        """Return what makes the searcher under test."""
        raise NotImplementedError

    @pytest.fixture
    def make_study(self, tmp_path: Path) -> MakeStudy:
        """Return what makes a study with a folder of its own."""
        numbers = iter(range(1_000))

        def make(seed: int = 1) -> Study:
            name = f"study-{next(numbers)}"
            folder = tmp_path / name
            folder.mkdir()
            return Study.model_validate(
                {
                    "name": name,
                    "folder": str(folder),
                    "seed": seed,
                    "space": SPACE,
                    "objectives": self.objectives,
                    "trials": TRIALS,
                }
            )

        return make

    def test_every_dimension_has_a_value_inside_it(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """Each proposal has a value for each dimension, in the order of the space."""
        study = make_study()
        for parameters in proposals(make_searcher, study):
            assert list(parameters) == list(study.space)
            for name, dimension in study.space.items():
                assert holds(dimension, parameters[name]), (name, parameters[name])

    def test_one_seed_proposes_alike(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """Two studies of one seed whose trials go alike are one study."""
        first, second = (list(proposals(make_searcher, make_study(3))) for _ in range(2))
        assert first == second

    def test_what_was_asked_is_answered_again(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """After a kill between asking and storing, another process hears the same, and goes on alike."""
        whole = list(proposals(make_searcher, make_study(5)))
        study = make_study(5)
        broken: list[Parameters] = []
        asked: Parameters | None = None
        for first, last in ((0, 2), (2, TRIALS)):
            with closing(make_searcher(study)) as searcher:
                for number in range(first, last):
                    again = searcher.ask(number)
                    assert again is not None
                    assert asked is None or again == asked
                    assert searcher.ask(number) == again
                    broken.append(again)
                    searcher.tell(done(number, again, study))
                    asked = None
                asked = searcher.ask(last) if last < TRIALS else None
        assert broken == whole

    def test_a_trial_told_twice_is_told_once(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """However trials end, hearing of it again changes nothing."""
        study, other = make_study(7), make_study(7)
        with closing(make_searcher(study)) as searcher, closing(make_searcher(other)) as plain:
            for number, state in enumerate(("done", "failed", "pruned")):
                parameters = searcher.ask(number)
                assert parameters is not None
                assert plain.ask(number) == parameters
                trial = done(number, parameters, study)
                if state != "done":
                    trial = trial.model_copy(update={"state": state, "readings": ()})
                plain.tell(trial)
                for _ in range(2):
                    searcher.tell(trial)
            assert searcher.ask(3) == plain.ask(3)

    def test_a_failed_trial_may_be_tried_again(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """A trial that failed and is done after all is one that is done, to a searcher that remembers too."""
        study, other = make_study(8), make_study(8)
        with closing(make_searcher(study)) as searcher:
            parameters = searcher.ask(0)
            assert parameters is not None
            searcher.tell(TrialRecord(number=0, parameters=parameters, state="failed"))
        with closing(make_searcher(study)) as searcher, closing(make_searcher(other)) as plain:
            for _ in range(2):
                searcher.tell(done(0, parameters, study))
            plain.tell(done(0, parameters, other))
            asked, expected = searcher.ask(1), plain.ask(1)
            assert asked is not None
            assert expected is not None
            assert list(asked) == list(expected)

    def test_a_lost_memory_is_made_up_for(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """A searcher that never was asked hears of trials, and goes on from there."""
        study, other = make_study(9), make_study(9)
        told = [done(number, parameters, other) for number, parameters in enumerate(proposals(make_searcher, study))]
        with closing(make_searcher(other)) as new:
            for trial in told[:-1]:
                new.tell(trial)
            parameters = new.ask(TRIALS - 1)
            assert parameters is not None
            assert all(holds(dimension, parameters[name]) for name, dimension in other.space.items())

    def test_a_value_on_the_way_is_taken_twice(self, make_searcher: MakeSearcher, make_study: MakeStudy) -> None:
        """The first trial, reported on again, is not given up: there is nothing to hold it against."""
        study = make_study()
        with closing(make_searcher(study)) as searcher:
            searcher.ask(0)
            assert [searcher.report(0, 1, 2.5) for _ in range(2)] == [False, False]


def proposals(make_searcher: MakeSearcher, study: Study) -> Iterator[Parameters]:
    """Yield the proposals of a study whose trials are told as they come."""
    with closing(make_searcher(study)) as searcher:
        for number in range(TRIALS):
            parameters = searcher.ask(number)
            assert parameters is not None
            yield parameters
            searcher.tell(done(number, parameters, study))


def holds(dimension: Dimension, value: object) -> bool:
    """Return whether ``value`` is one of ``dimension``."""
    if isinstance(dimension, Choices):
        return value in dimension.values
    if isinstance(dimension, Integers):
        return isinstance(value, int) and dimension.low <= value <= dimension.high
    return isinstance(value, float) and dimension.low <= value <= dimension.high
