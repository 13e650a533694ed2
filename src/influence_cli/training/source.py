"""Conversations that are there already, for the first iteration to learn from in place of having its own.

Invariant: what the agent was asked is rendered from the environment of then where it is here unchanged; otherwise, as
for conversations that somebody else made, it is the conversation itself as far as it had come, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.schemas.configs import SelectionConfig
from influence_cli.schemas.messages import ChatMessage, Message, Role, Speaker
from influence_cli.schemas.requests import ToolSchema
from influence_cli.scoring.plan import record_of
from influence_cli.store.run_directory import RunDirectory
from influence_cli.training.rewards import Candidates
from influence_cli.training.rows import Asked

_ROLES: Mapping[Speaker, Any] = {"agent": "assistant", "user": "user", "tool": "tool", "system": "system"}


@dataclass(frozen=True)
class Source:
    """The finished conversations of the split ``train`` of a run; of one ``iteration``, or of all if it is None.

    ``environments`` are those the run was made with that are here unchanged.
    """

    directory: RunDirectory
    iteration: int | None = None
    environments: Mapping[str, Environment] = field(default_factory=dict)

    def asked(self, trajectory: Mapping[str, Any]) -> Asked:
        """Return what says how the agent was asked in a stored conversation."""
        environment = self.environments.get(trajectory["environment"])
        episode = environment.recorded_episode(record_of(trajectory)) if environment is not None else None
        return AsHeard() if episode is None else episode

    def document(self, selection: SelectionConfig) -> dict[str, Any]:
        """Return what the run remembers of where its first conversations came from."""
        return {
            "source": str(self.directory.path),
            "source_run": self.directory.manifest.run_id,
            "source_iteration": self.iteration,
            "environments_known": sorted(self.environments),
            "reward": selection.reward,
        }


def without_heldout(found: Candidates, environments: Iterable[Environment]) -> tuple[Candidates, int]:
    """Return the candidates that are of no state which ``environments`` hold out, and how many were."""
    heldout = {
        (environment.name, state.scenario, state.initial_state)
        for environment in environments
        for state in environment.initial_states(split="heldout")
    }
    kept = tuple(c for c in found.rated if (c.environment, c.scenario, c.initial_state) not in heldout)
    return Candidates(kept, found.unrated), len(found.rated) - len(kept)


class AsHeard:
    """Stands in for an episode of which only the conversation is known: no instruction, no tools."""

    tools: tuple[ToolSchema, ...] = ()

    def prompt(self, role: Role, state: str, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:  # noqa: ARG002 - as an episode's
        """Return the conversation so far, the agent being the assistant."""
        return tuple(
            ChatMessage(
                role=_ROLES[message.speaker],
                content=message.text,
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            )
            for message in messages
        )
