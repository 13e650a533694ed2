"""What training is given and gives back: the contract between the loop and an algorithm.

Concept: selection turns trajectories into rows; an algorithm turns the rows of one iteration into an adapter. Invariant:
a row holds exactly what the agent saw, and names the replies that the agent itself generated; nothing else is learnt.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ToolSchema

RowsWanted = Literal["best", "best-and-worst", "pairs", "all"]
"""What an algorithm learns from: good rows; good and bad ones; one against the other; all with their rewards."""


class TrainingRow(Frozen):
    """One prompt and the replies to be learnt in it."""

    episode_id: int = Field(ge=0, description="The conversation in the run's store.")
    environment: str = Field(description="Name of the environment.")
    scenario: str = Field(description="Name of the scenario.")
    initial_state: str = Field(description="Identifier of the initial state.")
    sample: int = Field(ge=0, description="Number of the conversation among those from one initial state.")
    population: str | None = Field(default=None, description="The kind of user; None where there are none.")
    turn: int = Field(ge=1, description="The last reply that is learnt.")
    messages: tuple[ChatMessage, ...] = Field(min_length=2, description="As the agent saw them; the last is its reply.")
    learnt: tuple[int, ...] = Field(min_length=1, description="Indices of the messages that are learnt.")
    cut: tuple[int, ...] = Field(
        default=(), description="Those of them that ended at the longest length: their end of turn was not generated."
    )
    tools: tuple[ToolSchema, ...] = Field(default=(), description="What the agent could call.")
    reward: float = Field(description="What selection maximised, for the whole trajectory.")
    turn_reward: float | None = Field(
        default=None, description="Rating of the last reply learnt; None where the reward is no mean of ratings."
    )
    desirable: bool | None = Field(default=None, description="Among the best or the worst; None where neither.")


class TrainingPair(Frozen):
    """Two rows with the same initial state, for algorithms that compare."""

    chosen: TrainingRow = Field(description="From the better trajectory.")
    rejected: TrainingRow = Field(description="From the worse one.")


class TrainingJob(Frozen):
    """What one training stage is asked to do."""

    iteration: int = Field(ge=0, description="The iteration whose conversations are learnt from.")
    base: str = Field(description="``backend:model`` of the agent, without adapter.")
    adapter: str | None = Field(default=None, description="Adapter of the iteration before: where training starts.")
    rows: str = Field(description="Path of the rows or pairs, JSON lines of the schema the algorithm wants.")
    folder: str = Field(description="Where adapter, checkpoints and logs go; made by the loop.")
    seed: int = Field(ge=0, description="From which every random draw derives.")


class TrainingOutcome(Frozen):
    """What came of it."""

    adapter: str = Field(description="Path of the adapter, or the name of the model that a provider made.")
    digest: str = Field(description="SHA-256 of the weights, or the provider's identifier.")
    rows: int = Field(ge=0, description="Rows or pairs learnt from.")
    steps: int = Field(ge=0, description="Optimiser steps.")
    tokens: int = Field(ge=0, description="Tokens with a loss, over all epochs.")
    losses: tuple[float, ...] = Field(default=(), description="Of each step.")
    seconds: float = Field(default=0.0, ge=0.0, description="Of training proper, loading not included.")
    truncated: int = Field(default=0, ge=0, description="Rows whose beginning was cut to the longest length.")
    dropped: int = Field(default=0, ge=0, description="Rows that could not be learnt, each told in the log.")
    moved: float | None = Field(
        default=None,
        description="Mean change of the log-probability of a token of the desirable replies; None: unknown.",
    )
