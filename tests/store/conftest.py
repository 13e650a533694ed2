"""A run on a real disk, and records to put into it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    TrajectoryEnd,
)
from influence_cli.store.run_directory import RunDirectory, create_run

NOBODY = 65534


def manifest(**changes) -> RunManifest:
    facts = {"run_id": "", "command": "simulate", "created": "2026-01-01T00:00:00+00:00", "config": SimulationConfig()}
    return RunManifest(**{**facts, **changes})


def episode(state: str = "person", sample: int = 0, **changes) -> EpisodeRecord:
    key = EpisodeKey(environment="tiny", scenario="tea", initial_state=state, sample=sample)
    facts = {"key": key, "population": "gameable", "cue": "implied", "seed": 7, "profile": {"name": "Ada"}}
    return EpisodeRecord(**{**facts, **changes})


def message(turn: int = 1, speaker: str = "agent", text: str = "hello", **changes) -> MessageRecord:
    return MessageRecord(**{"turn": turn, "speaker": speaker, "text": text, "state": "talking", **changes})


def opening(text: str = "hi") -> list[MessageRecord]:
    return [message(0, "user", text, source="scenario")]


def call(turn: int = 1, role: str = "agent", **changes) -> CallRecord:
    facts = {"turn": turn, "role": role, "model": "scripted:demo", "prompt_tokens": 100, "completion_tokens": 10}
    return CallRecord(**{**facts, "latency": 0.5, **changes})


def judgement(turn: int = 1, role: str = "preference", expected: float | None = 8.0, **changes) -> JudgementRecord:
    facts = {"turn": turn, "role": role, "state": "talking", "choices": ("8", "9"), "probabilities": (1.0, 0.0)}
    return JudgementRecord(**{**facts, "mass": 0.9, "method": "scripted", "expected": expected, **changes})


def end(**changes) -> TrajectoryEnd:
    facts = {"status": "complete", "reason": "turn_limit", "state": "talking", "turns": 1, "mean_rating": 8.0}
    return TrajectoryEnd(**{**facts, "final_rating": 8.0, "mean_veto": 0.1, **changes})


def whole_conversation(writer, record: EpisodeRecord, rating: float = 8.0) -> int:
    """Store a conversation of one turn."""
    i = writer.open_episode(record, opening())
    writer.add_message(i, call(), message())
    writer.add_judgement(i, call(role="preference"), judgement(expected=rating))
    writer.add_judgement(i, call(role="veto"), judgement(role="veto", expected=0.1))
    writer.finish(i, end(mean_rating=rating, final_rating=rating))
    return i


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path / "run", manifest())


@pytest.fixture
def not_mine() -> Iterator[Callable[[RunDirectory], AbstractContextManager[RunDirectory]]]:
    """Copy a run to where this process may read, and nothing else, for the time of a block."""
    with tempfile.TemporaryDirectory() as folder:

        @contextmanager
        def look(run: RunDirectory) -> Iterator[RunDirectory]:
            copy = Path(folder) / "copy"
            shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("*-shm"))
            Path(folder).chmod(0o755)
            copy.chmod(0o555)
            root = os.geteuid() == 0
            if root:
                os.setresuid(NOBODY, NOBODY, 0)
            try:
                yield RunDirectory(copy, run.manifest)
            finally:
                if root:
                    os.setresuid(0, 0, 0)
                copy.chmod(0o755)

        yield look
