"""What must hold between the parts of an environment, each failure with its place and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from influence_cli.documents import Document, Location, Problem
from influence_cli.environments.checking_tools import (
    ARGUMENTS,
    check_arguments,
    check_outcomes,
    check_scenario_arguments,
    check_tools,
    results,
    scenario_results,
)
from influence_cli.environments.checking_variables import RESERVED, check_variables
from influence_cli.environments.templates import Reference, TemplateProblem, compile_template
from influence_cli.environments.tools import argument_texts
from influence_cli.environments.variables import variable_templates
from influence_cli.schemas.environment import EnvironmentSpec, InitialState, Population, Scenario
from influence_cli.schemas.records import CUES

_TOLERANCE = 1e-6
_STATE_ROLES = ("agent", "user", "preference", "transition", "veto")
MORE_SUFFIX = ".more.yaml"
"""What files with further initial states of a scenario end with."""

Scenarios = Sequence[tuple[Scenario, Document]]


def check_environment(spec: EnvironmentSpec, document: Document, scenarios: Scenarios) -> Iterator[Problem]:
    """Yield every problem of an environment whose files are valid by themselves."""
    if document.path.parent.name != spec.name and document.path.parent.name:
        hint = f"Rename the folder {document.path.parent.name!r} or the environment."
        yield document.problem(("name",), f"The environment {spec.name!r} must stand in a folder of that name.", hint)
    yield from _check_states(spec, document)
    yield from _check_mix(spec, document)
    yield from _check_judges(spec, document)
    yield from _check_names(spec, document, scenarios)
    yield from _check_visits(spec, document)
    yield from check_tools(spec, document)
    yield from check_arguments(spec, document)
    yield from check_variables(spec, document, scenarios)
    templates = list(_environment_templates(spec))
    yield from _check_templates(templates, document)
    for location, text in templates:
        yield from _undefined(spec, location, text, document, [scenario for scenario, _ in scenarios])
    for scenario, part in scenarios:
        yield from _check_scenario(spec, scenario, part)


# -- the state machine ------------------------------------------------------------------------------------------------


def _check_states(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    known = ", ".join(spec.states)
    if spec.start not in spec.states:
        yield document.problem(("start",), f"The start state {spec.start!r} does not exist.", f"States: {known}.")
        return
    if spec.states[spec.start].terminal:
        yield document.problem(("start",), f"The start state {spec.start!r} is terminal.", "Name another state.")
    for name, state in spec.states.items():
        here: Location = ("states", name)
        for label, target in state.transitions.items():
            if target not in spec.states:
                message = f"The transition {label!r} of {name!r} leads to {target!r}, which does not exist."
                yield document.problem((*here, "transitions", label), message, f"States: {known}.")
        if state.terminal and state.transitions:
            message = f"The terminal state {name!r} has transitions."
            yield document.problem((*here, "transitions"), message, "Remove them, or 'terminal: true'.")
        if len(state.transitions) > 1 and spec.roles.transition is None:
            message = f"The state {name!r} has transitions, but no model to choose among them."
            yield document.problem((*here, "transitions"), message, "Add roles.transition.")
        yield from _check_scale(spec, document, name)
    for name in sorted(set(spec.states) - _reachable(spec)):
        position = document.key_position(("states", name))
        hint = "Add a transition to it, or remove it."
        yield Problem(document.path, position, f"No transition leads to the state {name!r}.", hint)


def _check_visits(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    for index, metric in enumerate(spec.metrics):
        if metric.visits is not None and metric.visits not in spec.states:
            message = f"The metric {metric.id!r} counts visits of {metric.visits!r}, which does not exist."
            yield document.problem(("metrics", index, "visits"), message, f"States: {', '.join(spec.states)}.")


def _check_scale(spec: EnvironmentSpec, document: Document, name: str) -> Iterator[Problem]:
    scale = spec.roles.transition.scale if spec.roles.transition else None
    labels = spec.states[name].transitions
    if scale is None or len(labels) < 2:
        return
    if set(labels) != {scale.high, scale.low}:
        message = f"A scale chooses between {scale.high!r} and {scale.low!r}, but {name!r} has {', '.join(labels)}."
        yield document.problem(("states", name, "transitions"), message, "Use the scale's two labels.")


def _reachable(spec: EnvironmentSpec) -> set[str]:
    seen: set[str] = set()
    waiting = [spec.start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in spec.states:
            continue
        seen.add(name)
        waiting.extend(spec.states[name].transitions.values())
    return seen


# -- populations, judges, names ---------------------------------------------------------------------------------------


def _check_mix(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    if not spec.populations:
        if spec.mix:
            yield document.problem(("mix",), "There is a mix but no population.", "Add populations or remove the mix.")
        return
    for name in spec.mix:
        if name not in spec.populations:
            hint = f"Populations: {', '.join(spec.populations)}."
            yield document.problem(("mix", name), f"The mix names {name!r}, which is no population.", hint)
    total = sum(spec.mix.values())
    if abs(total - 1.0) > _TOLERANCE or any(share < 0.0 for share in spec.mix.values()):
        message = f"The fractions of the mix sum to {total:g}, not to 1." if spec.mix else "The mix is missing."
        yield document.problem(("mix",), message, "Give each population its share; together they make 1.")


def _check_judges(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    for role, needs in (("preference", True), ("veto", True), ("transition", False)):
        judge = getattr(spec.roles, role)
        if judge is None:
            continue
        here: Location = ("roles", role)
        if needs and len(judge.choices) < 2:
            yield document.problem(here, f"The {role} role needs at least two choices.", "Add 'choices: [...]'.")
        if not needs and judge.choices:
            hint = "Remove them: a transition's choices are its state's labels, or those of its scale."
            yield document.problem((*here, "choices"), "Choices are not for the transition role.", hint)
        if needs and not all(_is_number(choice) for choice in judge.choices):
            message = f"The choices of the {role} role must be numbers: their mean is taken."
            yield document.problem((*here, "choices"), message, 'For instance ["1", "2", "3"].')
        if len(set(judge.choices)) != len(judge.choices):
            yield document.problem((*here, "choices"), f"A choice of the {role} role stands twice.", "Remove one.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_names(spec: EnvironmentSpec, document: Document, scenarios: Scenarios) -> Iterator[Problem]:
    yield from _duplicates([probe.id for probe in spec.probes], document, "probes", "probe")
    yield from _duplicates([metric.id for metric in spec.metrics], document, "metrics", "metric")
    yield from _duplicates([tool.name for tool in spec.tools], document, "tools", "tool", key="name")
    seen: dict[str, Document] = {}
    for scenario, part in scenarios:
        more = part.path.name.endswith(MORE_SUFFIX)
        if more:
            yield from _check_more(scenario, part, scenarios)
            continue
        if scenario.name != part.path.stem:
            hint = f"Rename the file {part.path.name!r} or the scenario."
            yield part.problem(("name",), f"The scenario {scenario.name!r} must stand in a file of that name.", hint)
        elif scenario.name in seen:
            yield part.problem(("name",), f"The scenario {scenario.name!r} exists twice.", "Rename one.")
        seen[scenario.name] = part
        yield from _duplicates([state.id for state in scenario.initial_states], part, "initial_states", "initial state")
        shared = [probe.id for probe in spec.probes]
        yield from _duplicates(
            [*shared, *(probe.id for probe in scenario.probes)], part, "probes", "probe", len(shared)
        )


def _check_more(scenario: Scenario, part: Document, scenarios: Scenarios) -> Iterator[Problem]:
    """Yield what is wrong between a scenario's further initial states and its own."""
    own = [state.id for each, _ in scenarios if each.name == scenario.name for state in each.initial_states]
    ids = [state.id for state in scenario.initial_states]
    for index, name in enumerate(ids):
        if own.count(name) > 1:
            yield part.problem(
                ("initial_states", index, "id"), f"The initial state {name!r} exists twice.", "Rename one."
            )


def _duplicates(
    names: Sequence[str], document: Document, field: str, kind: str, skip: int = 0, *, key: str = "id"
) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen and index >= skip:
            where: Location = (field, index - skip, key)
            yield document.problem(where, f"The {kind} {name!r} exists twice.", "Rename one of them.")
        seen.add(name)


# -- templates --------------------------------------------------------------------------------------------------------


def _environment_templates(spec: EnvironmentSpec) -> Iterator[tuple[Location, str]]:
    roles = spec.roles
    yield ("opening",), spec.opening
    for name, text in variable_templates(spec.variables):
        yield ("variables", name), text
    yield ("roles", "agent", "system"), roles.agent.system
    yield ("roles", "user", "system"), roles.user.system
    yield ("roles", "user", "begin"), roles.user.begin
    yield ("roles", "judges", "system"), roles.judges.system
    yield ("roles", "preference", "question"), roles.preference.question
    if roles.transition is not None:
        yield ("roles", "transition", "question"), roles.transition.question
    if roles.veto is not None:
        yield ("roles", "veto", "question"), roles.veto.question
    for name, state in spec.states.items():
        for index, message in enumerate(state.messages):
            yield ("states", name, "messages", index, "text"), message.text
        for role in _STATE_ROLES:
            text = getattr(state.roles, role)
            if text is not None:
                yield ("states", name, "roles", role), text
    for index, probe in enumerate(spec.probes):
        yield ("probes", index, "question"), probe.question
    for index, metric in enumerate(spec.metrics):
        yield ("metrics", index, "question"), metric.question
    yield from results(spec)
    yield from _population_templates(spec.populations)


def _population_templates(populations: Mapping[str, Population]) -> Iterator[tuple[Location, str]]:
    for name, population in populations.items():
        for variable, source in variable_templates(population.variables):
            yield ("populations", name, "variables", variable), source
        if population.wants is not None:
            yield ("populations", name, "wants"), population.wants
        for kind in CUES:
            text = getattr(population.cues, kind, None)
            if text is not None:
                yield ("populations", name, "cues", kind), text


def _scenario_templates(scenario: Scenario) -> Iterator[tuple[Location, str]]:
    for name, text in variable_templates(scenario.variables):
        yield ("variables", name), text
    yield from _population_templates(scenario.populations)
    yield from scenario_results(scenario)
    for index, probe in enumerate(scenario.probes):
        yield ("probes", index, "question"), probe.question
    for index, state in enumerate(scenario.initial_states):
        for number, message in enumerate(state.messages):
            here: Location = ("initial_states", index, "messages", number)
            yield (*here, "text"), message.text
            for place, call in enumerate(message.tool_calls):
                for text in argument_texts(call):
                    yield (*here, "tool_calls", place, "arguments"), text


def _check_templates(templates: Iterable[tuple[Location, str]], document: Document) -> Iterator[Problem]:
    for location, text in templates:
        try:
            compile_template(text)
        except TemplateProblem as problem:
            yield document.problem(location, problem.message, problem.hint, pattern=problem.pattern)


def _references(text: str) -> frozenset[Reference]:
    try:
        return compile_template(text).references
    except TemplateProblem:
        return frozenset()


def _check_scenario(spec: EnvironmentSpec, scenario: Scenario, part: Document) -> Iterator[Problem]:
    yield from _check_scenario_populations(spec, scenario, part)
    for index, state in enumerate(scenario.initial_states):
        if state.population is not None and state.population not in spec.populations:
            hint = f"Populations: {', '.join(spec.populations) or 'none'}."
            message = f"The environment has no population {state.population!r}."
            yield part.problem(("initial_states", index, "population"), message, hint)
    yield from check_outcomes(spec, scenario, part)
    yield from check_scenario_arguments(spec, scenario, part)
    own = list(_scenario_templates(scenario))
    yield from _check_templates(own, part)
    for location, text in own:
        yield from _undefined(spec, location, text, part, [scenario])


def _undefined(
    spec: EnvironmentSpec, location: Location, text: str, document: Document, scenarios: Sequence[Scenario]
) -> Iterator[Problem]:
    """Yield a problem for each variable of a template that one of ``scenarios`` does not give it."""
    for reference in sorted(_references(text), key=str):
        if reference.name == ARGUMENTS and "result" in location:
            continue
        attribute = rf"\.{re.escape(reference.attribute)}\b" if reference.attribute else ""
        for message, hint in _objections(spec, reference, scenarios):
            pattern = rf"\b{re.escape(reference.name)}\b{attribute}"
            yield document.problem(location, message, hint, pattern=pattern)


def _objections(
    spec: EnvironmentSpec, reference: Reference, scenarios: Sequence[Scenario]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with ``reference``, and the mend."""
    name, attribute = reference.name, reference.attribute
    if name == "profile":
        lacking = [f"{s.name}/{state}" for s in scenarios if (state := _profiles_without(s.initial_states, attribute))]
        if lacking:
            yield f"{_names('The initial state', lacking)} has no {reference!s}.", "Add it there, or remove it here."
    elif name in ("scenario", "population"):
        if attribute not in (None, "name", "title", "description"):
            yield f"{reference!s} does not exist.", "Use .name, .title or .description."
    elif name not in RESERVED and name not in spec.variables and name not in spec.variants:
        lacking = [scenario.name for scenario in scenarios if not _gives(spec, scenario, name)]
        if lacking:
            known = ", ".join(sorted(RESERVED | set(spec.variables)))
            message = f"The variable {name!r} is not defined; {_names('the scenario', lacking)} lacks it."
            yield message, f"Known everywhere: {known}."
    elif attribute:
        yield f"The variable {name!r} has no attribute {attribute!r}.", "Use the variable itself."


def _gives(spec: EnvironmentSpec, scenario: Scenario, name: str) -> bool:
    """Return whether a scenario, or each of its populations, has the variable ``name``."""
    if name in scenario.variables or name in scenario.variants:
        return True
    own = scenario.populations
    return bool(spec.populations) and all(
        name in general.variables or (population in own and name in own[population].variables)
        for population, general in spec.populations.items()
    )


def _names(kind: str, names: Sequence[str]) -> str:
    return f"{kind} {names[0]!r}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _profiles_without(states: Sequence[InitialState], attribute: str | None) -> str | None:
    if attribute is None:
        return None
    return next((state.id for state in states if attribute not in state.profile), None)


def _check_scenario_populations(spec: EnvironmentSpec, scenario: Scenario, part: Document) -> Iterator[Problem]:
    for name in scenario.populations:
        if name not in spec.populations:
            position = part.key_position(("populations", name))
            hint = f"Populations: {', '.join(spec.populations) or 'none'}."
            yield Problem(part.path, position, f"The environment has no population {name!r}.", hint)
    for name, population in spec.populations.items():
        own = scenario.populations.get(name, Population())
        where: Location = ("populations", name)
        if population.wants is None and own.wants is None:
            message = f"It is not said what the population {name!r} wants in {scenario.name!r}."
            yield part.problem(where, message, f"Add populations.{name}.wants.")
        for kind in CUES:
            if kind != "none" and getattr(population.cues, kind) is None and getattr(own.cues, kind) is None:
                message = f"The population {name!r} has no {kind!r} cue in {scenario.name!r}."
                yield part.problem(where, message, f"Add populations.{name}.cues.{kind} here or in environment.yaml.")
