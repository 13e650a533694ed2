"""What an author writes: ``environment.yaml`` and ``scenarios/*.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import Speaker, ToolCall
from influence_cli.schemas.records import Cue, Outcome
from influence_cli.schemas.requests import Sampling, ToolSchema

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=80)]
"""A name in small letters, digits, hyphens and underscores."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$", max_length=80)]
"""A name that a template can use."""

Template = Annotated[str, StringConstraints(max_length=40_000)]
"""Jinja2 text: variables, conditions, loops over what is there and simple filters; nothing else."""

Choice = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$", max_length=200)]

Variable = str | int | float | bool
"""What a template variable may hold."""


class ActorRole(Frozen):
    """Prompts of a role that takes part in the conversation: agent or user."""

    system: Template = Field(description="System prompt.")
    begin: Template = Field(default="", description="User role: what stands before its own first message.")
    sampling: Sampling = Field(default_factory=Sampling, description="How its replies are drawn.")
    sees_tools: bool = Field(default=False, description="Whether it sees tool calls and their results.")


class JudgeRole(Frozen):
    """The question of a role that reads a transcript and answers with one of its choices."""

    question: Template = Field(description="Stands after the transcript; the list of choices is added to it.")
    choices: tuple[Choice, ...] = Field(default=(), description="What may be answered; a transition has its labels.")
    sees_tools: bool = Field(default=False, description="Whether its transcript shows tool calls and results.")


class Scale(Frozen):
    """A transition drawn from a rating: P(high) = 1 / (1 + exp(-slope * (E - centre))), E the rating's mean."""

    choices: tuple[Choice, ...] = Field(min_length=2, description="Numbers that may be answered.")
    function: Literal["sigmoid"] = Field(default="sigmoid", description="From the mean rating to a probability.")
    slope: float = Field(default=5.0, description="Of the sigmoid, per unit of the rating.")
    centre: float = Field(default=3.0, description="Mean rating at which both outcomes are equally likely.")
    high: Choice = Field(description="Label of the transition that high ratings take.")
    low: Choice = Field(description="Label of the transition that low ratings take.")

    @model_validator(mode="after")
    def _numbers(self) -> Scale:
        for choice in self.choices:
            try:
                float(choice)
            except ValueError:
                raise ValueError(f"the choice {choice!r} of a scale is not a number") from None
        return self


class TransitionRole(JudgeRole):
    """The question that decides what happens next; by label, or by a scale."""

    scale: Scale | None = Field(default=None, description="Draw the label from a rating instead of from labels.")


class JudgesPrompt(Frozen):
    """What all judges share, so that a transcript is read once for all of them."""

    system: Template = Field(description="Stands before the transcript; the same for every judge.")


class RoleSpecs(Frozen):
    """Prompts of every role."""

    agent: ActorRole = Field(description="The model under test.")
    user: ActorRole = Field(description="The simulated user.")
    judges: JudgesPrompt = Field(description="Shared by preference, transition, veto and rubrics.")
    preference: JudgeRole = Field(description="How this user would rate the last reply.")
    transition: TransitionRole | None = Field(default=None, description="What happens next; none: states never change.")
    veto: JudgeRole | None = Field(default=None, description="Whether the last reply was harmful.")


class StateRoles(Frozen):
    """Prompts that a state puts in place of the environment's."""

    agent: Template | None = Field(default=None, description="The agent's system prompt.")
    user: Template | None = Field(default=None, description="The user's system prompt.")
    preference: Template | None = Field(default=None, description="The preference question.")
    transition: Template | None = Field(default=None, description="The transition question.")
    veto: Template | None = Field(default=None, description="The veto question.")


class ScenarioMessage(Frozen):
    """A message written beforehand."""

    speaker: Speaker = Field(description="Who says it.")
    text: Template = Field(description="What is said; a template.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="Calls that an agent's message makes.")
    tool_call_id: str | None = Field(default=None, description="On a tool's message: the call that it answers.")
    outcome: Outcome | None = Field(default=None, description="On a tool's message: what really happened.")


class State(Frozen):
    """A state of the conversation."""

    description: str = Field(default="", description="One line for readers.")
    terminal: bool = Field(default=False, description="Whether the conversation ends on entry.")
    transitions: dict[Choice, str] = Field(default_factory=dict, description="Label -> next state.")
    messages: tuple[ScenarioMessage, ...] = Field(default=(), description="Added to the conversation on entry.")
    roles: StateRoles = Field(default_factory=StateRoles, description="Prompts that differ in this state.")


class Cues(Frozen):
    """What shows the agent a user's population, by kind; a template in the user's own voice."""

    stated: Template | None = Field(default=None, description="The user says it.")
    implied: Template | None = Field(default=None, description="The user lets it be guessed.")
    arbitrary: Template | None = Field(default=None, description="A sign without meaning of its own.")


class Population(Frozen):
    """A kind of user."""

    description: str = Field(default="", description="One line for readers.")
    wants: Template | None = Field(default=None, description="What this user hopes to hear; told to user and judges.")
    variables: dict[Identifier, Variable] = Field(
        default_factory=dict, description="For templates, over the scenario's, where such a user is played."
    )
    cues: Cues = Field(default_factory=Cues, description="How the agent could tell.")


class Probe(Frozen):
    """A closed question put to the simulated user before and after, off the record."""

    id: Slug = Field(description="Names the probe.")
    question: Template = Field(description="The question.")
    choices: tuple[Choice, ...] = Field(min_length=2, description="What may be answered.")
    harmful_direction: Literal["up", "down"] | None = Field(
        default=None, description="Which way is worse; null: neither."
    )


class Metric(Frozen):
    """A measure of the environment's own: a question for a judge, or a state that a conversation reached or not."""

    id: Slug = Field(description="Names the metric.")
    question: Template = Field(default="", description="The question; none where the state machine answers.")
    choices: tuple[Choice, ...] = Field(default=(), description="What may be answered.")
    visits: str | None = Field(
        default=None, description="Counted, not judged: 1 where the conversation entered this state, else 0."
    )
    scope: Literal["turn", "last", "conversation"] = Field(default="conversation", description="What is judged.")
    sees_tools: bool = Field(default=False, description="Whether the judge's transcript shows tool calls and results.")
    harmful_direction: Literal["up", "down"] | None = Field(
        default=None, description="Which way is worse; null: neither."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Metric:
        if self.visits is None and (not self.question or len(self.choices) < 2):
            raise ValueError("a metric has a question with at least two choices, or `visits: STATE`")
        if self.visits is not None and (self.question or self.choices):
            raise ValueError("a metric that counts visits of a state has no question and no choices")
        return self


class ToolOutcome(Frozen):
    """One scripted result of a tool."""

    when: dict[str, JsonValue] = Field(
        default_factory=dict, description="Arguments that it answers; empty: all others."
    )
    result: Template = Field(description="What the agent gets back.")
    kind: Outcome = Field(default="success", description="What really happened.")
    weight: float = Field(default=1.0, gt=0.0, description="Share among outcomes that answer the same arguments.")


class Tool(ToolSchema):
    """A tool of the environment and what comes of calling it."""

    outcomes: tuple[ToolOutcome, ...] = Field(min_length=1, description="Scripted results.")


class Card(Frozen):
    """What a reader must know before trusting figures from an environment."""

    purpose: str = Field(description="What it is for.")
    influence: str = Field(description="What counts as influence here, and where it is harmful or welcome.")
    limits: str = Field(description="What it cannot show.")


class EnvironmentSpec(Frozen):
    """``environment.yaml``."""

    name: Slug = Field(description="Name of the environment; that of its folder.")
    title: str = Field(description="For readers.")
    description: str = Field(description="What is simulated and what counts as influence.")
    licence: str = Field(default="", description="Licence of the texts.")
    card: Card | None = Field(default=None, description="The data card; `influence env show NAME --card`.")
    turns: int = Field(default=5, ge=1, description="Most agent replies of a conversation.")
    start: str = Field(description="The state that conversations start in.")
    heldout: float = Field(
        default=0.25, ge=0.0, lt=1.0, description="Share of initial states that training never sees."
    )
    variables: dict[Identifier, Variable] = Field(
        default_factory=dict, description="For templates; scenarios override."
    )
    variants: dict[Identifier, tuple[Variable, ...]] = Field(
        default_factory=dict, description="Variables of which each conversation draws one value."
    )
    opening: Template = Field(default="{{ message }}", description="How the user's last written message is sent.")
    roles: RoleSpecs = Field(description="Prompts of every role.")
    populations: dict[Slug, Population] = Field(default_factory=dict, description="Kinds of users.")
    mix: dict[Slug, float] = Field(default_factory=dict, description="Share of each population; they sum to one.")
    cue: Cue = Field(default="none", description="Which cue is shown unless another is asked for.")
    states: dict[Slug, State] = Field(min_length=1, description="The state machine.")
    probes: tuple[Probe, ...] = Field(default=(), description="Asked in every scenario.")
    metrics: tuple[Metric, ...] = Field(default=(), description="The environment's own measures.")
    tools: tuple[Tool, ...] = Field(default=(), description="What the agent may call.")


class InitialState(Frozen):
    """One concrete start of a scenario."""

    id: Slug = Field(description="Names it within its scenario.")
    population: Slug | None = Field(default=None, description="The only kind of user that starts here; null: any.")
    profile: dict[Identifier, JsonValue] = Field(default_factory=dict, description="Who the user is.")
    messages: tuple[ScenarioMessage, ...] = Field(min_length=1, description="What was said so far.")


class MoreStates(Frozen):
    """``scenarios/NAME.more.yaml``: further initial states of a scenario, with where they come from."""

    scenario: Slug = Field(description="The scenario that they belong to.")
    provenance: dict[str, JsonValue] = Field(default_factory=dict, description="Who or what wrote them, and how.")
    initial_states: tuple[InitialState, ...] = Field(description="Concrete starts.")


class Scenario(Frozen):
    """A file of ``scenarios/``."""

    name: Slug = Field(description="Name of the scenario; that of its file.")
    title: str = Field(description="For readers.")
    description: str = Field(default="", description="What the user is torn about.")
    variables: dict[Identifier, Variable] = Field(default_factory=dict, description="For templates.")
    variants: dict[Identifier, tuple[Variable, ...]] = Field(
        default_factory=dict, description="Variables of which each conversation draws one value."
    )
    populations: dict[Slug, Population] = Field(default_factory=dict, description="Fills in the environment's.")
    probes: tuple[Probe, ...] = Field(default=(), description="Asked in this scenario.")
    tools: tuple[str, ...] | None = Field(
        default=None, description="Which of the environment's tools the agent may call here; null: all."
    )
    outcomes: dict[str, tuple[ToolOutcome, ...]] = Field(
        default_factory=dict, description="By tool: results that come before the environment's own."
    )
    initial_states: tuple[InitialState, ...] = Field(min_length=1, description="Concrete starts.")
