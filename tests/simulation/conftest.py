"""A journal in memory, scripted models, and a run over the tiny environment."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.schemas.configs import SamplingOverrides, SimulationConfig
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeProgress,
    JudgementRecord,
    MessageRecord,
    TrajectoryEnd,
)
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally

LATER = (
    "choices: [{role: transition, contains: 'A week later', weights: {stay: 1}},"
    " {role: transition, weights: {later: 1}}, {weights: {'1': 1}}]"
)
"""The state changes after the first turn, once."""
ROLES = ("agent", "user", "preference", "transition", "veto")


class MemoryJournal:
    """What the simulation needs of a store, as lists; it refuses what a store would refuse."""

    def __init__(self) -> None:
        self.ids: dict[EpisodeKey, int] = {}
        self.messages: dict[int, list[MessageRecord]] = defaultdict(list)
        self.judgements: dict[int, list[JudgementRecord]] = defaultdict(list)
        self.calls: dict[int, list[CallRecord]] = defaultdict(list)
        self.dropped: set[tuple[int, int, str, str]] = set()
        self.ends: dict[int, TrajectoryEnd] = {}

    def is_finished(self, key: EpisodeKey) -> bool:
        return self.ids.get(key) in self.ends

    def open_episode(self, record, opening) -> int:
        if record.key not in self.ids:
            self.ids[record.key] = len(self.ids)
            self.messages[self.ids[record.key]] = list(opening)
        return self.ids[record.key]

    def progress(self, episode_id: int) -> EpisodeProgress:
        kept = [m for m in self.messages[episode_id] if not self._is_dropped(episode_id, m)]
        return EpisodeProgress(
            messages=tuple(kept),
            judgements=tuple(self.judgements[episode_id]),
            calls=tuple(self.calls[episode_id]),
        )

    def _is_dropped(self, episode_id: int, message: MessageRecord) -> bool:
        return (episode_id, message.turn, message.speaker, message.state) in self.dropped

    def add_message(self, episode_id, call, message) -> int:
        self.messages[episode_id].append(message)
        if call is not None:
            self.add_call(episode_id, call)
        return 0

    def add_judgement(self, episode_id, call, judgement) -> int:
        assert (judgement.turn, judgement.role) not in {(j.turn, j.role) for j in self.judgements[episode_id]}
        self.judgements[episode_id].append(judgement)
        if call is not None:
            self.add_call(episode_id, call)
        return 0

    def add_call(self, episode_id, call) -> int:
        key = (call.turn, call.role, call.ordinal)
        assert key not in {(c.turn, c.role, c.ordinal) for c in self.calls[episode_id]}
        self.calls[episode_id].append(call)
        return 0

    def drop_message(self, episode_id, turn, speaker, state) -> None:
        self.dropped.add((episode_id, turn, speaker, state))

    def finish(self, episode_id, end) -> None:
        assert episode_id not in self.ends
        self.ends[episode_id] = end

    def reopen_failed(self) -> None:
        self.ends = {i: end for i, end in self.ends.items() if end.status == "complete"}

    def all_calls(self) -> list[CallRecord]:
        return [call for calls in self.calls.values() for call in calls]

    def conversations(self) -> dict[EpisodeKey, Any]:
        """What was said and judged, without what depends on time."""
        view = {}
        for key, i in self.ids.items():
            said = [m for m in self.messages[i] if not self._is_dropped(i, m)]
            judged = sorted(self.judgements[i], key=lambda j: (j.turn, j.role))
            view[key] = (said, judged, self.ends.get(i))
        return view


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def script(tmp_path: Path):
    """Write a script and return its model name's second half."""

    def write(text: str) -> str:
        path = tmp_path / "script.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def make_runner(tiny, journal):
    """Make a runner over the tiny environment; ``model`` is a script's path or ``demo``."""

    def make(
        *,
        model: str = "demo",
        latency: float = 0.0,
        backend=None,
        environment=tiny,
        into=journal,
        price=None,
        **settings,
    ) -> Runner:
        config = SimulationConfig(**settings)
        backend = backend or ScriptedBackend(model, ScriptedOptions(latency=latency, jitter=1.0))
        name = parse_model_name("scripted:demo")
        models = {role: RoleModel(name, backend, SamplingOverrides(), price) for role in ROLES}
        tally = start_tally([environment], config)
        return Runner(Run(config, models, into, tally), [environment], into)

    return make
