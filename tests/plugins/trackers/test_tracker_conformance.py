"""Our trackers keep every promise of a tracker."""

import pytest

from influence_cli.testing.trackers import TrackerConformance
from influence_trackers.options import MlflowOptions, TensorBoardOptions, WandbOptions


@pytest.mark.slow
class TestTensorBoard(TrackerConformance):
    @pytest.fixture
    def make_tracker(self):
        pytest.importorskip("tensorboard")
        from influence_trackers.tensorboard import TensorBoardTracker

        return lambda: TensorBoardTracker(TensorBoardOptions())


@pytest.mark.slow
class TestMlflow(TrackerConformance):
    @pytest.fixture
    def make_tracker(self):
        pytest.importorskip("mlflow")
        from influence_trackers.mlflow_store import MlflowTracker

        return lambda: MlflowTracker(MlflowOptions())


@pytest.mark.slow
class TestWandb(TrackerConformance):
    @pytest.fixture
    def make_tracker(self, monkeypatch, tmp_path):
        pytest.importorskip("wandb")
        from influence_trackers.weights_and_biases import WandbTracker

        for name in ("CACHE", "DATA", "CONFIG"):
            monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
        return lambda: WandbTracker(WandbOptions())
