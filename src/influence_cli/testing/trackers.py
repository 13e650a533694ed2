"""The conformance suite for trackers: what every one promises, as tests.

Subclass it where your tests are, and give it what makes your tracker::

    class TestMyTracker(TrackerConformance):
        @pytest.fixture
        def make_tracker(self):
            return lambda: MyTracker(MyOptions())
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from influence_cli.training.protocol import Example, TrackedRun, Tracker

MakeTracker = Callable[[], Tracker]

CONFIG = {
    "run_id": "a-run",
    "config": {"seed": 7, "iterations": 2, "populations": {}, "roles": {"agent": {"model": None}}},
}
METRICS = {"heldout/reward/mean": 5.25, "train/rows": 16.0, "loss/step-0": 2.5}
HOSTILE = "user: <script>alert(1)</script>\n\n```\n# heading\n\x1b[31mred \u202e \ud7ff\x00 end"


class TrackerConformance:
    """Tests of one tracker; override ``make_tracker``, which may be called several times a test."""

    @pytest.fixture
    def make_tracker(self) -> MakeTracker:
        """Return what makes the tracker under test."""
        raise NotImplementedError

    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[..., TrackedRun]:
        """Return what makes the facts of a run, new or resumed, with a folder that exists."""
        folder = tmp_path / "tracker"
        folder.mkdir()

        def make(*, resumed: bool = False) -> TrackedRun:
            return TrackedRun(name="a-run", folder=str(folder), config=CONFIG, resumed=resumed)

        return make

    @pytest.mark.parametrize("state", ["done", "stopped", "failed"])
    def test_a_run_is_followed_to_its_end(
        self, make_tracker: MakeTracker, run: Callable[..., TrackedRun], state: str
    ) -> None:
        """Figures and conversations of each iteration are taken, and every way to end."""
        tracker = make_tracker()
        tracker.start(run())
        for iteration in range(3):
            tracker.log(iteration, METRICS, [Example(title="tea/one #0", reward=5.5, text="user: Hello.")])
        tracker.close(state)

    def test_a_run_that_was_broken_off_is_gone_on_with(
        self, make_tracker: MakeTracker, run: Callable[..., TrackedRun]
    ) -> None:
        """Another tracker, in another process, takes up what the first one began and never closed."""
        first = make_tracker()
        first.start(run())
        first.log(0, METRICS, [])
        second = make_tracker()
        second.start(run(resumed=True))
        second.log(1, METRICS, [])
        second.close("done")

    def test_text_of_models_harms_nothing(self, make_tracker: MakeTracker, run: Callable[..., TrackedRun]) -> None:
        """Markup, control characters and unpaired signs are taken as they come."""
        tracker = make_tracker()
        tracker.start(run())
        tracker.log(0, METRICS, [Example(title=HOSTILE.replace("\n", " "), reward=1.0, text=HOSTILE)])
        tracker.close("done")

    def test_nothing_is_written_outside_of_the_folder(
        self, make_tracker: MakeTracker, run: Callable[..., TrackedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By its defaults a tracker leaves the working directory alone."""
        place = tmp_path / "place"
        place.mkdir()
        monkeypatch.chdir(place)
        tracker = make_tracker()
        tracker.start(run())
        tracker.log(0, METRICS, [])
        tracker.close("done")
        assert list(place.iterdir()) == []
