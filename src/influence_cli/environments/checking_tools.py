"""What must hold of an environment's tools: schemas, results, and who sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from influence_cli.documents import Document, Location, Problem
from influence_cli.environments.templates import Reference, TemplateProblem, compile_template
from influence_cli.environments.tools import schema_problem
from influence_cli.schemas.environment import EnvironmentSpec, Scenario, Tool, ToolOutcome

ARGUMENTS = "arguments"
"""The variable that holds a call's arguments, in results only."""


def check_tools(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    """Yield every problem of the environment's tools that does not depend on templates' variables."""
    if spec.tools and not spec.roles.agent.sees_tools:
        hint = "Add `sees_tools: true` to roles.agent."
        yield document.problem(("roles", "agent"), "There are tools, but the agent does not see them.", hint)
    for index, tool in enumerate(spec.tools):
        problem = schema_problem(tool)
        if problem is not None:
            yield document.problem(("tools", index, "parameters"), f"The schema of {tool.name!r}: {problem}.")


def check_outcomes(spec: EnvironmentSpec, scenario: Scenario, part: Document) -> Iterator[Problem]:
    """Yield what ``scenario`` says of tools that the environment does not have, or that it does not offer itself."""
    known = {tool.name for tool in spec.tools}
    hint = f"Tools: {', '.join(sorted(known)) or 'none'}."
    for index, name in enumerate(scenario.tools or ()):
        if name not in known:
            yield part.problem(("tools", index), f"The environment has no tool {name!r}.", hint)
    for name in scenario.outcomes:
        if name not in known:
            yield part.problem(("outcomes", name), f"The environment has no tool {name!r}.", hint)
        elif scenario.tools is not None and name not in scenario.tools:
            yield part.problem(
                ("outcomes", name), f"The tool {name!r} is not offered here.", f"Add it to tools: {name}."
            )


def results(spec: EnvironmentSpec) -> Iterator[tuple[Location, str]]:
    """Yield the place and template of each result in environment.yaml."""
    for index, tool in enumerate(spec.tools):
        for number, outcome in enumerate(tool.outcomes):
            yield ("tools", index, "outcomes", number, "result"), outcome.result


def scenario_results(scenario: Scenario) -> Iterator[tuple[Location, str]]:
    """Yield the place and template of each result in a scenario's file."""
    for name, outcomes in scenario.outcomes.items():
        for number, outcome in enumerate(outcomes):
            yield ("outcomes", name, number, "result"), outcome.result


def check_arguments(spec: EnvironmentSpec, document: Document) -> Iterator[Problem]:
    """Yield every argument that a result in environment.yaml uses and its tool may lack."""
    for index, tool in enumerate(spec.tools):
        yield from _lacking(tool, tool.outcomes, document, ("tools", index, "outcomes"))


def check_scenario_arguments(spec: EnvironmentSpec, scenario: Scenario, part: Document) -> Iterator[Problem]:
    """Yield every argument that a result in a scenario's file uses and its tool may lack."""
    tools: Mapping[str, Tool] = {tool.name: tool for tool in spec.tools}
    for name, outcomes in scenario.outcomes.items():
        if name in tools:
            yield from _lacking(tools[name], outcomes, part, ("outcomes", name))


def _lacking(tool: Tool, outcomes: Sequence[ToolOutcome], document: Document, here: Location) -> Iterator[Problem]:
    required = tool.parameters.get("required")
    certain = {str(name) for name in required} if isinstance(required, list) else set()
    for number, outcome in enumerate(outcomes):
        for reference in sorted(_arguments_of(outcome.result), key=str):
            if reference.attribute not in certain | set(outcome.when):
                message = f"{reference!s} may be missing from a call of {tool.name!r}."
                yield document.problem((*here, number, "result"), message, "Make it a required parameter.")


def _arguments_of(text: str) -> list[Reference]:
    try:
        return [reference for reference in compile_template(text).references if reference.name == ARGUMENTS]
    except TemplateProblem:
        return []
