"""An environment ready for use, and the prompts of one conversation in it.

Invariant: prompts are laid out for prefix sharing. The agent and the user each read a chat that only grows; all judges
read the same preamble and transcript first and their own question last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from influence_cli.environments.layout import answer_line, chat, transcript
from influence_cli.environments.templates import compile_template
from influence_cli.environments.tools import ToolResult, answer_call, filled_call, offered_tools
from influence_cli.environments.variables import drawn_for, variables_of
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.environment import (
    ActorRole,
    EnvironmentSpec,
    InitialState,
    JudgeRole,
    Probe,
    Scenario,
    ScenarioMessage,
    Tool,
)
from influence_cli.schemas.messages import ChatMessage, Message, Role, ToolCall
from influence_cli.schemas.records import Cue, EpisodeKey, EpisodeRecord, MessageRecord, Split
from influence_cli.schemas.requests import Distribution, Sampling, ToolSchema
from influence_cli.seeding import derive_seed, unit_draw

PROBE_PREFACE = "(A question aside, which nobody in this conversation hears. Answer for yourself, as this person.)"
"""Stands before a probe's question, so that it is not taken for a part of the conversation."""


@dataclass(frozen=True)
class StateReference:
    """Where conversations can start: a scenario, an initial state in it, its split, and who alone starts there."""

    scenario: str
    initial_state: str
    split: Split
    population: str | None = None


class Environment:
    """A family of situations: what :func:`influence_cli.environments.loading.load_environment` returns.

    A subclass may name an ``episode_class`` of its own, for what YAML cannot say.
    """

    episode_class: type[Episode]

    def __init__(self, spec: EnvironmentSpec, scenarios: Sequence[Scenario], digest: str, folder: Path | None) -> None:
        self.spec = spec
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.digest = digest
        self.folder = folder

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.spec.name

    @cached_property
    def _states(self) -> dict[tuple[str, str], InitialState]:
        return {(s.name, state.id): state for s in self.scenarios.values() for state in s.initial_states}

    def initial_states(self, scenarios: Sequence[str] = (), split: str = "all") -> list[StateReference]:
        """Return the initial states of ``scenarios`` (empty: all) in ``split`` (or ``all``), in the files' order.

        Raises UnknownNameError for a scenario that does not exist.
        """
        for name in scenarios:
            if name not in self.scenarios:
                raise UnknownNameError(f"scenario of {self.name}", name, self.scenarios)
        chosen = [self.scenarios[name] for name in scenarios] or list(self.scenarios.values())
        references = (
            StateReference(scenario.name, state.id, self.split_of(scenario.name, state.id), state.population)
            for scenario in chosen
            for state in scenario.initial_states
        )
        return [reference for reference in references if split in ("all", reference.split)]

    def split_of(self, scenario: str, initial_state: str) -> Split:
        """Return the split of an initial state, by a hash that no run and no neighbour changes."""
        heldout = unit_draw("split", self.name, scenario, initial_state) < self.spec.heldout
        return "heldout" if heldout else "train"

    def mix(self, override: Mapping[str, float]) -> dict[str, float]:
        """Return the share of each population; UnknownNameError if ``override`` names one that does not exist."""
        for name in override:
            if name not in self.spec.populations:
                raise UnknownNameError(f"population of {self.name}", name, self.spec.populations)
        return dict(override or self.spec.mix)

    def refuse_silent(self, cue: Cue | None) -> None:
        """Raise InfluenceError where no population has a text for ``cue``: conversations would be labelled by nothing."""
        populations = [self.spec.populations, *(scenario.populations for scenario in self.scenarios.values())]
        known = [population for each in populations for population in each.values()]
        if known and cue not in (None, "none") and not any(getattr(each.cues, cue) for each in known):
            hint = f"Leave out --cue, or write populations.NAME.cues.{cue} in environment.yaml."
            raise InfluenceError(f"{self.name} has no text for the cue {cue!r}.", hint=hint)

    def probes(self, scenario: str) -> tuple[Probe, ...]:
        """Return the probes of ``scenario``, the environment's own first."""
        return self.spec.probes + self.scenarios[scenario].probes

    def tools(self, scenario: str) -> tuple[Tool, ...]:
        """Return what the agent may call in ``scenario``; in one that is not here, all tools of the environment."""
        found = self.scenarios.get(scenario)
        return self.spec.tools if found is None else offered_tools(self.spec, found)

    def episode(
        self,
        reference: StateReference,
        *,
        sample: int,
        population: str | None,
        cue: Cue | None,
        seed: int,
        iteration: int = 0,
    ) -> Episode:
        """Return the conversation number ``sample`` from ``reference``; ``seed`` is the run's or the iteration's."""
        key = EpisodeKey(
            iteration=iteration,
            environment=self.name,
            scenario=reference.scenario,
            initial_state=reference.initial_state,
            sample=sample,
        )
        scenario = self.scenarios[reference.scenario]
        state = self._states[reference.scenario, reference.initial_state]
        population = state.population or population
        own = derive_seed(seed, self.name, reference.scenario, reference.initial_state, sample)
        record = EpisodeRecord(
            key=key,
            population=population,
            cue=(cue or self.spec.cue) if population is not None else "none",
            split=reference.split,
            seed=own,
            profile={**drawn_for(self.spec, scenario, own), **state.profile},
        )
        return self.episode_class(self.spec, scenario, state, record)

    def recorded_episode(self, record: EpisodeRecord) -> Episode | None:
        """Return the conversation that ``record`` tells of, as it was had; None if its initial state is not here."""
        state = self._states.get((record.key.scenario, record.key.initial_state))
        if state is None:
            return None
        known = record.population is None or record.population in self.spec.populations
        return self.episode_class(self.spec, self.scenarios[record.key.scenario], state, record) if known else None


class Episode:
    """One conversation to be had: its prompts, its choices, and what follows from an answer."""

    def __init__(self, spec: EnvironmentSpec, scenario: Scenario, initial: InitialState, record: EpisodeRecord) -> None:
        self.spec = spec
        self.record = record
        self.start = spec.start
        self.turns = spec.turns
        self._scenario = scenario
        self._initial = initial
        self._variables = variables_of(spec, scenario, initial, record)
        self._rendered: dict[tuple[str, str], str] = {}

    # -- what is said beforehand --------------------------------------------------------------------------------------

    def opening(self) -> tuple[MessageRecord, ...]:
        """Return the messages that the conversation starts with."""
        messages = [self._scenario_message(message, turn=0, state=self.start) for message in self._initial.messages]
        last = max((i for i, m in enumerate(messages) if m.speaker == "user"), default=None)
        if last is not None:
            text = compile_template(self.spec.opening).render({**self._variables, "message": messages[last].text})
            messages[last] = messages[last].model_copy(update={"text": text})
        return (*messages, *self.entry(self.start, turn=0))

    def entry(self, state: str, *, turn: int) -> tuple[MessageRecord, ...]:
        """Return the messages that are added when ``state`` is entered after ``turn``."""
        return tuple(self._scenario_message(m, turn=turn, state=state) for m in self.spec.states[state].messages)

    def _scenario_message(self, message: ScenarioMessage, *, turn: int, state: str) -> MessageRecord:
        return MessageRecord(
            turn=turn,
            speaker=message.speaker,
            text=compile_template(message.text).render(self._variables).strip(),
            state=state,
            source="scenario",
            tool_calls=tuple(filled_call(call, self._variables) for call in message.tool_calls),
            tool_call_id=message.tool_call_id,
            outcome=message.outcome,
        )

    # -- tools --------------------------------------------------------------------------------------------------------

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """What the agent may call."""
        return offered_tools(self.spec, self._scenario)

    def answer_call(self, call: ToolCall, state: str, point: float) -> ToolResult:  # noqa: ARG002 - for subclasses
        """Return what comes of a call that the agent makes in ``state``; ``point`` in [0, 1) draws among results."""
        own = self._scenario.outcomes
        return answer_call(call, offered_tools(self.spec, self._scenario), own, self._variables, point)

    # -- what the environment itself answers --------------------------------------------------------------------------

    def spoken(self, role: Role, state: str, messages: Sequence[Message]) -> str | None:  # noqa: ARG002 - for subclasses
        """Return what the user says where no model is asked; None: a model is. For environments written in Python."""
        return None

    def judged(
        self,
        role: Role,  # noqa: ARG002 - for subclasses
        state: str,  # noqa: ARG002 - for subclasses
        messages: Sequence[Message],  # noqa: ARG002 - for subclasses
    ) -> Mapping[str, float] | None:
        """Return the weight of each choice where no judge is asked; None: one is. For environments written in Python."""
        return None

    # -- prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, role: Role, state: str, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
        """Return what the model of ``role`` is asked after ``messages``, in ``state``."""
        if role == "agent":
            head = [ChatMessage(role="system", content=self._text(state, "agent"))]
            return (*head, *chat(messages, me="agent", tools=self.spec.roles.agent.sees_tools))
        if role == "user":
            head = [ChatMessage(role="system", content=self._text(state, "user"))]
            if begin := self._render("begin", self.spec.roles.user.begin):
                head.append(ChatMessage(role="user", content=begin))
            return (*head, *chat(messages, me="user", tools=self.spec.roles.user.sees_tools))
        question = f"{self._text(state, role)}\n{answer_line(self.choices(role, state))}"
        return self.judge_prompt(messages, question, tools=self._judge(role).sees_tools)

    def judge_prompt(self, messages: Sequence[Message], question: str, *, tools: bool) -> tuple[ChatMessage, ...]:
        """Return the prompt of a judge: shared preamble, transcript, then ``question``."""
        system = self._render("judges", self.spec.roles.judges.system)
        return (
            ChatMessage(role="system", content=system),
            ChatMessage(role="user", content=f"{transcript(messages, tools=tools)}\n\n{question}"),
        )

    def probe_prompt(self, probe: Probe, state: str, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
        """Return a closed question put to the user after ``messages``, off the record."""
        question = self._render(f"probe/{probe.id}", probe.question)
        return self.aside_prompt(f"{question}\n{answer_line(probe.choices)}", state, messages)

    def aside_prompt(self, question: str, state: str, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
        """Return ``question`` put to the user after ``messages``, off the record: the conversation never hears of it."""
        asked = Message(speaker="agent", text=f"{PROBE_PREFACE}\n{question}")
        return self.prompt("user", state, (*messages, asked))

    def sampling(self, role: Role) -> Sampling:
        """Return how the replies of ``role`` (agent or user) are drawn unless the run says otherwise."""
        actor: ActorRole = self.spec.roles.agent if role == "agent" else self.spec.roles.user
        return actor.sampling

    def asks(self, role: Role, state: str) -> bool:
        """Return whether the judge of ``role`` has anything to decide in ``state``."""
        return bool(self.choices(role, state))

    def choices(self, role: Role, state: str) -> tuple[str, ...]:
        """Return what the judge of ``role`` may answer in ``state``; empty if it is not asked."""
        if role == "transition":
            labels = tuple(self.spec.states[state].transitions)
            transition = self.spec.roles.transition
            if transition is None or len(labels) < 2:
                return ()
            return transition.scale.choices if transition.scale else labels
        judge = getattr(self.spec.roles, role, None)
        return judge.choices if isinstance(judge, JudgeRole) else ()

    def question(self, role: Role, state: str) -> str:
        """Return what the judge of ``role`` is asked in ``state``, in the words of this conversation."""
        return self._text(state, role)

    def _judge(self, role: Role) -> JudgeRole:
        judge: JudgeRole = getattr(self.spec.roles, role)
        return judge

    def _text(self, state: str, role: Role) -> str:
        """Return the system prompt of an actor, or the question of a judge, in ``state``."""
        own: str | None = getattr(self.spec.states[state].roles, role)
        if own is not None:
            return self._render(f"{state}/{role}", own)
        if role in ("agent", "user"):
            return self._render(role, getattr(self.spec.roles, role).system)
        return self._render(role, self._judge(role).question)

    def rendered(self, source: str) -> str:
        """Return a template of the environment's, in the words of this conversation."""
        return self._render("", source)

    def _render(self, name: str, source: str) -> str:
        key = (name, source)
        if key not in self._rendered:
            self._rendered[key] = compile_template(source).render(self._variables).strip()
        return self._rendered[key]

    # -- the state machine --------------------------------------------------------------------------------------------

    def terminal(self, state: str) -> bool:
        """Return whether the conversation ends in ``state``."""
        return self.spec.states[state].terminal

    def automatic(self, state: str) -> str:
        """Return the state that follows ``state`` where no model is asked."""
        targets = tuple(self.spec.states[state].transitions.values())
        return targets[0] if len(targets) == 1 else state

    def outcome(self, state: str, distribution: Distribution, point: float) -> tuple[str, str]:
        """Return the label drawn at ``point`` in [0, 1) and the state that it leads to."""
        transition = self.spec.roles.transition
        scale = transition.scale if transition else None
        if scale is None:
            label = distribution.draw(point)
        else:
            mean = distribution.expected_value
            label = scale.high if point < sigmoid(scale.slope * ((mean or 0.0) - scale.centre)) else scale.low
        return label, self.spec.states[state].transitions[label]

    def changes_prompts(self, before: str, after: str) -> bool:
        """Return whether a user message asked for in ``before`` is not the one to be had in ``after``."""
        if before == after:
            return False
        state = self.spec.states[after]
        return bool(state.messages) or self._text(before, "user") != self._text(after, "user")


Environment.episode_class = Episode


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)), without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))
