"""What a run remembers: episodes, messages, judgements, calls, trajectories.

Invariant: every paid answer is one record, stored as it arrives and before anything is built on it, keyed by
(episode, turn, role, ordinal), so that resuming never pays for it twice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from influence_cli.errors import FailureKind
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import Message, Role, Speaker, ToolCall
from influence_cli.schemas.requests import ChoiceMethod, FinishReason

Cue = Literal["stated", "implied", "arbitrary", "none"]
"""How the agent could tell a user's population."""

CUES: tuple[Cue, ...] = ("stated", "implied", "arbitrary", "none")

Split = Literal["train", "heldout"]

GAMEABLE = ("gameable", "vuln", "weak")
RESILIENT = ("resilient", "normal")
"""Names of the populations whose difference is the targeting gap; the published project's own among them."""

Outcome = Literal["success", "partial", "failure"]
"""What really came of a tool call, whatever anybody says of it."""

TrajectoryStatus = Literal["running", "complete", "failed"]
"""``running`` also describes a conversation whose process was stopped: it is resumable."""

EndReason = Literal["terminal_state", "turn_limit", "failure"]

RunState = Literal["running", "stopped", "done", "failed"]


class EpisodeKey(Frozen):
    """What makes a conversation the one it is, within a run."""

    iteration: int = Field(default=0, ge=0, description="Training iteration; 0 for a plain simulation.")
    environment: str = Field(description="Name of the environment.")
    scenario: str = Field(description="Name of the scenario.")
    initial_state: str = Field(description="Identifier of the initial state within its scenario.")
    sample: int = Field(default=0, ge=0, description="Number of this conversation among those from one initial state.")


class EpisodeRecord(Frozen):
    """One conversation to be had: a row of ``episode``."""

    key: EpisodeKey = Field(description="What it is.")
    population: str | None = Field(default=None, description="The kind of user; None where there are no populations.")
    cue: Cue = Field(default="none", description="How the agent could tell the population.")
    split: Split = Field(default="train", description="Whether training may see this initial state.")
    seed: int = Field(ge=0, description="From which every draw of the conversation derives.")
    profile: dict[str, JsonValue] = Field(
        default_factory=dict, description="Who the user is, and what was drawn of the environment's variants."
    )


class MessageRecord(Frozen):
    """One message of a conversation: a row of ``message``."""

    turn: int = Field(ge=0, description="0 for what the initial state holds; turn t is the t-th agent reply.")
    speaker: Speaker = Field(description="Who said it.")
    text: str = Field(description="What was said.")
    state: str = Field(description="State of the conversation when it was said.")
    source: Literal["scenario", "model", "tool"] = Field(
        default="model", description="Written beforehand, generated, or the result of a tool."
    )
    finish_reason: FinishReason | None = Field(default=None, description="Why a generated message ended.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="Calls that it makes.")
    tool_call_id: str | None = Field(default=None, description="The call that it answers.")
    outcome: Outcome | None = Field(default=None, description="On a tool's message: what really happened.")

    def said(self) -> Message:
        """Return the message as the conversation hears it."""
        return Message(speaker=self.speaker, text=self.text, tool_calls=self.tool_calls, tool_call_id=self.tool_call_id)


class JudgementRecord(Frozen):
    """One distribution: a row of ``judgement``.

    ``expected`` is in the units of the choices' values; ``outcome`` is the choice that was drawn where one was
    (transition). An unusable distribution is kept with ``usable=False`` and enters no figure.
    """

    turn: int = Field(ge=0, description="The agent reply that was judged.")
    role: Role = Field(description="Who judged.")
    state: str = Field(description="State of the conversation.")
    choices: tuple[str, ...] = Field(description="What could be answered.")
    probabilities: tuple[float, ...] = Field(description="Of each choice; they sum to one.")
    mass: float = Field(ge=0.0, le=1.0, description="Probability on the choices before normalising.")
    method: ChoiceMethod = Field(description="How it was got.")
    draws: int | None = Field(default=None, description="Samples counted, for ``sampled``.")
    expected: float | None = Field(default=None, description="Expected value; None if the choices are no numbers.")
    outcome: str | None = Field(default=None, description="The choice drawn, for a transition.")
    usable: bool = Field(default=True, description="Whether enough mass was on the choices.")


class CallRecord(Frozen):
    """One call of a model, however many requests it took: a row of ``call``."""

    turn: int = Field(ge=0, description="The turn it belongs to.")
    role: Role = Field(description="For whom the model spoke.")
    ordinal: int = Field(default=0, ge=0, description="0, or the number of the repeat within its turn and role.")
    model: str = Field(description="``backend:model[@adapter]``.")
    prompt_tokens: int = Field(default=0, ge=0, description="Tokens of the prompt, cached ones included.")
    cached_tokens: int = Field(default=0, ge=0, description="Prompt tokens not computed again.")
    completion_tokens: int = Field(default=0, ge=0, description="Tokens generated.")
    requests: int = Field(default=1, ge=0, description="Requests really sent.")
    latency: float = Field(default=0.0, ge=0.0, description="Seconds, waiting for limits not included.")
    cost: float | None = Field(default=None, ge=0.0, description="US dollars; None where no price is known.")
    cached: bool = Field(default=False, description="Whether the answer cache answered.")
    error: FailureKind | None = Field(default=None, description="Why it failed.")
    detail: str | None = Field(default=None, description="What the failure said, shortened; never a key.")


class TrajectoryEnd(Frozen):
    """How a conversation ended: the closing columns of a row of ``trajectory``."""

    status: Literal["complete", "failed"] = Field(description="Whether it ended as conversations end.")
    reason: EndReason = Field(description="Why it ended.")
    state: str = Field(description="The state it ended in.")
    turns: int = Field(ge=0, description="Agent replies.")
    mean_rating: float | None = Field(default=None, description="Mean over turns of usable ratings.")
    final_rating: float | None = Field(default=None, description="Rating of the last reply, if usable.")
    mean_veto: float | None = Field(default=None, description="Mean over turns of usable veto values.")
    unusable: int = Field(default=0, ge=0, description="Judgements without enough mass.")
    failure: FailureKind | None = Field(default=None, description="Why it failed.")
    detail: str | None = Field(default=None, description="What the failure said, shortened.")


ScoreMethod = Annotated[
    str, StringConstraints(pattern=r"^(distribution|structured|vote[0-9]*|computed)(\+orders)?(\+directions)?$")
]
"""How a score was got: probabilities of all choices; an answer with its reasons; a count of so many samples; without a
judge. ``+orders``: the mean over choices listed both ways round; ``+directions``: over the scale both ways round."""

WHOLE = 0
"""The turn of a score that is about a conversation as a whole."""


class ScoreRecord(Frozen):
    """One score: a row of ``score``. A failed or unusable one is kept as such and enters no figure."""

    turn: int = Field(default=WHOLE, ge=0, description="The agent reply that was judged; 0: the whole conversation.")
    rubric: str = Field(description="Name of the rubric or scorer.")
    rubric_hash: str = Field(description="Of everything that was asked, so that a changed rubric is another one.")
    judge: str = Field(description="``backend:model[@adapter]``, or the name of a scorer.")
    method: ScoreMethod = Field(description="How it was got.")
    value: float | None = Field(default=None, description="Expected value in the units of the choices.")
    mass: float | None = Field(default=None, description="Probability on the choices before normalising.")
    usable: bool = Field(default=True, description="Whether it may enter figures.")
    distribution: dict[str, float] | None = Field(default=None, description="Probability of each choice.")
    rationale: str | None = Field(default=None, description="What the judge said for it.")
    quotes: tuple[str, ...] = Field(default=(), description="Evidence, word for word in the transcript.")
    failure: FailureKind | None = Field(default=None, description="Why there is none.")


class EpisodeProgress(Frozen):
    """What a run already holds of one conversation, for resuming it."""

    messages: tuple[MessageRecord, ...] = Field(default=(), description="In the order they were stored.")
    judgements: tuple[JudgementRecord, ...] = Field(default=(), description="In the order they were stored.")
    calls: tuple[CallRecord, ...] = Field(default=(), description="In the order they were stored.")
    status: TrajectoryStatus = Field(default="running", description="Whether it ended.")
