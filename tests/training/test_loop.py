"""The loop, broken off at every boundary between stages, ends as the unbroken one."""

import contextlib
from collections import Counter
from hashlib import sha256

import pytest

from influence_cli.listening import Unwatched
from influence_cli.plugins.registry import make_registry
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.train import begin, go, take_up
from influence_cli.store.run_directory import open_run
from influence_cli.store.writer import RunWriter
from influence_cli.training.adapters import adapter_digest, place_adapter
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


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def registry():
    return make_registry()


def start(registry, folder, tiny_folder):
    return begin(registry, Sources({**FLAGS, "environments": [str(tiny_folder)]}), folder, HEARD)


def learnt(folder):
    rows = {k: sha256((folder / f"training/{k}/rows.jsonl").read_bytes()).hexdigest() for k in range(2)}
    return rows, {k: adapter_digest(folder / f"adapters/{k}") for k in (1, 2)}


@pytest.fixture(scope="module")
def unbroken(registry, tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert go(start(registry, folder, tiny_folder), HEARD).state == "done"
    return learnt(folder)


STAGES = 14
"""Of two iterations: evaluate, simulate, (prove,) select, train, track; and of the last: prove, evaluate, track."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(STAGES))
def test_a_run_broken_off_at_any_boundary_ends_as_the_unbroken_one(
    registry, tmp_path, tiny_folder, unbroken, monkeypatch, number, when
):
    real, trained = RunWriter.finish_stage, ScriptedLearner.train
    calls, learning = Counter(), Counter()

    def finish(self, iteration, name, data):
        calls["finish"] += 1
        if calls["finish"] == number + 1 and when == "before":
            raise Killed
        real(self, iteration, name, data)
        calls[iteration, name] += 1
        if calls["finish"] == number + 1:
            raise Killed

    def train(self, job, told):
        learning[job.iteration] += 1
        return trained(self, job, told)

    monkeypatch.setattr(RunWriter, "finish_stage", finish)
    monkeypatch.setattr(ScriptedLearner, "train", train)
    folder = tmp_path / "run"
    with contextlib.suppress(Killed):
        go(start(registry, folder, tiny_folder), HEARD)
    assert go(take_up(registry, str(folder), Sources(), HEARD), HEARD).state == "done"
    assert learnt(folder) == unbroken
    finished = {key: count for key, count in calls.items() if key != "finish"}
    assert set(finished.values()) == {1}, "a finished stage was repeated"
    assert len(finished) == STAGES
    assert sum(learning.values()) <= 3


def test_what_training_wrote_stays_until_its_stage_is_stored(registry, tmp_path, tiny_folder, monkeypatch):
    real, folder = RunWriter.finish_stage, tmp_path / "run"

    def finish(self, iteration, name, data):
        if name == "train":
            raise Killed
        real(self, iteration, name, data)

    monkeypatch.setattr(RunWriter, "finish_stage", finish)
    with pytest.raises(Killed):
        go(start(registry, folder, tiny_folder), HEARD)
    job = folder / "training/0/job"
    assert [adapter_digest(path.parent) for path in job.rglob("scripted.json")] == [
        adapter_digest(folder / "adapters/1")
    ]
    monkeypatch.setattr(RunWriter, "finish_stage", real)
    assert go(take_up(registry, str(folder), Sources(), HEARD), HEARD).state == "done"
    assert not list((folder / "training").rglob("scripted.json"))


def test_an_adapter_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "adapters" / "1"
    source.mkdir()
    (source / "adapter_model.safetensors").write_bytes(b"new")
    place_adapter(source, target)
    before = adapter_digest(target)

    def full(*_, **__):
        (target.parent / ".1.left").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    (source / "adapter_model.safetensors").write_bytes(b"newer")
    monkeypatch.setattr("influence_cli.training.adapters.shutil.copytree", full)
    with pytest.raises(Exception, match="the disk is full"):
        place_adapter(source, target)
    monkeypatch.undo()
    assert not target.exists() or adapter_digest(target) == before
    place_adapter(source, target)
    assert adapter_digest(target) != before
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_the_digest_is_of_the_weights_alone_where_there_are_weights(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert adapter_digest(tmp_path) == sha256(b"weights").hexdigest()
    (tmp_path / "adapter_config.json").write_text('{"changed": 1}')
    assert adapter_digest(tmp_path) == sha256(b"weights").hexdigest()


def test_models_are_released_before_training_begins(registry, tmp_path, tiny_folder, monkeypatch):
    from influence_cli.backends.scripted import ScriptedBackend

    happened = []
    made, closed, trained = ScriptedBackend.__init__, ScriptedBackend.aclose, ScriptedLearner.train

    def init(self, *arguments):
        happened.append("open")
        made(self, *arguments)

    async def aclose(self):
        happened.append("close")
        await closed(self)

    def train(self, job, told):
        happened.append("train")
        return trained(self, job, told)

    monkeypatch.setattr(ScriptedBackend, "__init__", init)
    monkeypatch.setattr(ScriptedBackend, "aclose", aclose)
    monkeypatch.setattr(ScriptedLearner, "train", train)
    go(start(registry, tmp_path / "run", tiny_folder), HEARD)
    assert happened == ["open", "close", "train", "open", "close", "train", "open", "close"]


def test_the_agent_of_an_iteration_is_the_base_with_its_adapter(registry, tmp_path, tiny_folder):
    folder = tmp_path / "run"
    go(start(registry, folder, tiny_folder), HEARD)
    from influence_cli.store.reader import RunReader

    with RunReader(open_run(folder)) as run:
        spoke = run.rows(
            "SELECT DISTINCT e.iteration, c.model FROM call c JOIN episode e ON e.id = c.episode_id"
            " WHERE c.role = 'agent' ORDER BY 1"
        )
    agents = [f"scripted:demo@{folder}/adapters/{k}" for k in (1, 2)]
    assert [row["model"] for row in spoke] == ["scripted:demo", *agents]
