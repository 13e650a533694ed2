"""Each tracker keeps figures, conversations and settings where its own tools find them; with the real packages."""

import json
import logging
from pathlib import Path

import pytest

from influence_cli.listening import Unwatched
from influence_cli.plugins.registry import make_registry
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.train import begin, go, take_up
from influence_cli.training.scripted import ScriptedLearner

HEARD = Unwatched()
FLAGS = {
    "default.model": "scripted:demo",
    "algorithm.name": "scripted",
    "iterations": 2,
    "samples": 3,
    "selection.fraction": "1/2",
    "turns": 1,
}


def trained(folder: Path, environment: Path, trackers: dict):
    flags = {**FLAGS, "environments": [str(environment)], "trackers": trackers}
    return begin(make_registry(), Sources(flags), folder, HEARD)


class BrokenOffError(Exception):
    """The process ends."""


def run_twice(folder, environment, trackers, monkeypatch):
    """Train, broken off in the second iteration, and go on; return the figures of the held-out conversations."""
    real = ScriptedLearner.train

    def train(self, job, told):
        if job.iteration == 1:
            raise BrokenOffError
        return real(self, job, told)

    monkeypatch.setattr(ScriptedLearner, "train", train)
    with pytest.raises(BrokenOffError):
        go(trained(folder, environment, trackers), HEARD)
    monkeypatch.setattr(ScriptedLearner, "train", real)
    result = go(take_up(make_registry(), str(folder), Sources(), HEARD), HEARD)
    assert result.notes == ()
    return [row["heldout"]["reward"]["mean"] for row in result.iterations]


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path, tiny_folder, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    means = run_twice(tmp_path / "run", tiny_folder, {"tensorboard": {}}, monkeypatch)
    found = EventAccumulator(str(tmp_path / "run/trackers/tensorboard")).Reload()
    events = found.Scalars("heldout/reward/mean")
    assert [event.step for event in events] == [0, 1, 2]
    assert [event.value for event in events] == pytest.approx(means)
    tags = found.Tags()
    assert {"stages/train/rows", "stages/select/best", "system/peak_rss_mib", "seconds/train"} <= set(tags["scalars"])
    assert {"config", "example/0", "state"} <= set(tags["tensors"])
    text = found.Tensors("example/0")[0].tensor_proto.string_val[0].decode()
    assert "    agent: " in text


@pytest.mark.slow
def test_wandb_keeps_an_offline_run(tmp_path, tiny_folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    logged = []
    real = wandb.sdk.wandb_run.Run.log

    def log(self, data, *arguments, **more):
        logged.append(dict(data))
        return real(self, data, *arguments, **more)

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", log)
    means = run_twice(tmp_path / "run", tiny_folder, {"wandb": {"project": "test"}}, monkeypatch)
    files = sorted((tmp_path / "run/trackers/wandb/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert files[0].stem == files[1].stem
    assert all(file.stat().st_size > 0 for file in files)
    assert [entry["iteration"] for entry in logged] == [0, 1, 2]
    assert [entry["heldout/reward/mean"] for entry in logged] == means
    assert all(entry["examples"].data for entry in logged)


@pytest.mark.slow
def test_mlflow_keeps_a_run_in_files(tmp_path, tiny_folder, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    means = run_twice(tmp_path / "run", tiny_folder, {"mlflow": {"experiment": "test"}}, monkeypatch)
    folder = tmp_path / "run/trackers/mlflow"
    client = MlflowClient(tracking_uri=(folder / "store").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    assert run.info.run_id == json.loads((folder / "run.json").read_text())["run"]
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "heldout/reward/mean")
    assert [(point.step, point.value) for point in history] == list(enumerate(means))
    assert run.data.params["config.iterations"] == "2"
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "examples"} <= artifacts


def test_a_tracker_that_fails_is_left_out_and_told_of(tmp_path, tiny_folder, monkeypatch, caplog):
    class Failing:
        def __init__(self, options):
            self.told = []

        def start(self, run):
            assert Path(run.folder).is_dir()

        def log(self, iteration, metrics, examples):
            raise OSError("the server is gone")

        def close(self, state):
            raise AssertionError("it was left out")

    plan = trained(tmp_path / "run", tiny_folder, {})
    plan.trackers["failing"] = Failing(None)
    with caplog.at_level(logging.WARNING):
        result = go(plan, HEARD)
    assert result.state == "done"
    assert result.notes == ("The tracker failing failed and was left out: OSError: the server is gone",)
    assert caplog.text.count("The tracker failing failed") == 1


def test_every_iteration_is_told_once_with_figures_and_conversations(tmp_path, tiny_folder):
    class Listening:
        def __init__(self):
            self.heard = []

        def start(self, run):
            self.heard.append(("start", run.name, run.resumed))

        def log(self, iteration, metrics, examples):
            self.heard.append((iteration, metrics, examples))

        def close(self, state):
            self.heard.append(("close", state))

    plan = trained(tmp_path / "run", tiny_folder, {})
    plan.trackers["listening"] = listening = Listening()
    go(plan, HEARD)
    assert listening.heard[0] == ("start", "run", False)
    assert listening.heard[-1] == ("close", "done")
    told = listening.heard[1:-1]
    assert [entry[0] for entry in told] == [0, 1, 2]
    _, metrics, examples = told[0]
    assert {"heldout/reward/mean", "stages/train/rows", "stages/train/moved", "seconds/simulate", "loss/step-0"} <= set(
        metrics
    )
    assert all(isinstance(value, float) for value in metrics.values())
    assert examples[0].text.startswith("user: ")
