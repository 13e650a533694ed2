"""One conversation, had and kept in memory: for callers that have a store of their own, or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influence_cli.environments.environment import Episode
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import ROLES, Role, Speaker
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeProgress,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    TrajectoryEnd,
)
from influence_cli.simulation.calls import Run, Stopping
from influence_cli.simulation.conversation import Conversation
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.tally import Tally

_ONLY = 0


class KeptConversation:
    """What a run would store of one conversation; it is the conversation's journal, and ``end`` is set when it is over."""

    def __init__(self, episode: Episode) -> None:
        self.record: EpisodeRecord = episode.record
        self.messages: list[MessageRecord] = list(episode.opening())
        self.judgements: list[JudgementRecord] = []
        self.calls: list[CallRecord] = []
        self.end: TrajectoryEnd | None = None

    def add_message(self, episode_id: int, call: CallRecord | None, message: MessageRecord) -> int:  # noqa: ARG002
        """Keep a message, with the call that made it."""
        self.messages.append(message)
        if call is not None:
            self.calls.append(call)
        return len(self.messages)

    def add_judgement(self, episode_id: int, call: CallRecord | None, judgement: JudgementRecord) -> int:  # noqa: ARG002
        """Keep a judgement, with the call that made it."""
        self.judgements.append(judgement)
        if call is not None:
            self.calls.append(call)
        return len(self.judgements)

    def add_call(self, episode_id: int, call: CallRecord) -> int:  # noqa: ARG002
        """Keep a call that gave nothing else to keep."""
        self.calls.append(call)
        return len(self.calls)

    def drop_message(self, episode_id: int, turn: int, speaker: Speaker, state: str) -> None:  # noqa: ARG002
        """Forget what was said in this turn and state by a model, or a tool."""
        place = (turn, speaker, state)
        self.messages = [m for m in self.messages if m.source == "scenario" or (m.turn, m.speaker, m.state) != place]

    def judged(self, role: Role, turn: int) -> JudgementRecord | None:
        """Return what ``role`` said of a turn."""
        return next((each for each in self.judgements if (each.role, each.turn) == (role, turn)), None)

    def trajectory(self) -> dict[str, Any]:
        """Return the conversation as the documented object ``influence.trajectory/1``."""
        return trajectory_document(self.record, self.messages, self.judgements, self.end)


def begin_conversation(
    episode: Episode, models: Mapping[Role, RoleModel], config: SimulationConfig
) -> tuple[Conversation, KeptConversation]:
    """Return a conversation that has not begun, and what will be kept of it."""
    kept = KeptConversation(episode)
    run = Run(config, models, kept, Tally(total=1, budget=config.budget, stop_after_alike=config.stop_after_alike))
    return Conversation(run, episode, _ONLY, EpisodeProgress()), kept


async def converse(episode: Episode, models: Mapping[Role, RoleModel], config: SimulationConfig) -> KeptConversation:
    """Return a conversation with its end; a failure is its end too, and a budget that is used up leaves none."""
    conversation, kept = begin_conversation(episode, models, config)
    try:
        kept.end = await conversation.run()
    except Stopping:
        kept.end = None
    return kept


def trajectory_document(
    record: EpisodeRecord,
    messages: Iterable[MessageRecord],
    judgements: Sequence[JudgementRecord],
    end: TrajectoryEnd | None,
) -> dict[str, Any]:
    """Return a conversation as the documented object ``influence.trajectory/1``: what a run's reader gives of it."""
    judged: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for each in sorted(judgements, key=lambda each: (each.turn, ROLES.index(each.role))):
        judged[each.turn][each.role] = each.model_dump(mode="json", exclude={"turn", "role", "state"})
    facts = record.model_dump(mode="json", exclude={"key"})
    ended = end.model_dump(mode="json") if end else dict.fromkeys(TrajectoryEnd.model_fields)
    unfinished = {} if end else {"status": "running", "turns": 0, "unusable": 0}
    return {
        "schema": "influence.trajectory/1",
        **record.key.model_dump(mode="json"),
        **facts,
        **ended,
        **unfinished,
        "messages": [message.model_dump(mode="json") for message in messages],
        "judgements": [{"turn": turn, **roles} for turn, roles in judged.items()],
    }
