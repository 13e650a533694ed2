"""What must hold of variables: names of their own, something to draw, and templates that need no other template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from influence_cli.documents import Document, Location, Problem
from influence_cli.environments.checking_tools import ARGUMENTS
from influence_cli.environments.templates import TemplateProblem, compile_template
from influence_cli.environments.variables import variable_templates
from influence_cli.schemas.environment import EnvironmentSpec, Population, Scenario, Variable

_LATER = frozenset({"wants", "cue", "message", ARGUMENTS})
"""Variables that are made of the others."""
RESERVED = frozenset({"profile", "scenario", "population", *_LATER})
"""Variables that the program itself provides."""


def check_variables(
    spec: EnvironmentSpec, document: Document, scenarios: Sequence[tuple[Scenario, Document]]
) -> Iterator[Problem]:
    """Yield every problem with variables and variants but for names that a template does not find."""
    templates = {name for name, _ in variable_templates(spec.variables)} | _of_populations(spec.populations)
    yield from _check_part(spec.variables, spec.variants, document, templates)
    yield from _check_populations(spec.populations, document, templates)
    for scenario, part in scenarios:
        own = {name for name, _ in variable_templates(scenario.variables)} | _of_populations(scenario.populations)
        yield from _check_part(scenario.variables, scenario.variants, part, templates | own)
        yield from _check_populations(scenario.populations, part, templates | own)


def _of_populations(populations: Mapping[str, Population]) -> set[str]:
    return {name for population in populations.values() for name, _ in variable_templates(population.variables)}


def _check_part(
    variables: Mapping[str, Variable], variants: Mapping[str, object], document: Document, templates: set[str]
) -> Iterator[Problem]:
    yield from _check_texts(variables, document, ("variables",), templates)
    for name, values in variants.items():
        if name in RESERVED or name in variables:
            yield document.problem(("variants", name), f"The variable {name!r} is given elsewhere.", "Remove one.")
        if not values:
            yield document.problem(("variants", name), f"There is no value of {name!r} to draw.", "Add one.")


def _check_populations(
    populations: Mapping[str, Population], document: Document, templates: set[str]
) -> Iterator[Problem]:
    for name, population in populations.items():
        yield from _check_texts(population.variables, document, ("populations", name, "variables"), templates)


def _check_texts(
    variables: Mapping[str, Variable], document: Document, here: Location, templates: set[str]
) -> Iterator[Problem]:
    for name in variables:
        if name in RESERVED:
            hint = "Choose another name."
            yield document.problem((*here, name), f"The variable {name!r} is provided by the program.", hint)
    for name, text in variable_templates(variables):
        for used in sorted(_used(text) & (templates | _LATER)):
            message = f"The variable {name!r} is made of {used!r}, which is itself made of others."
            yield document.problem((*here, name), message, "Write the text out.", pattern=rf"\b{used}\b")


def _used(text: str) -> set[str]:
    try:
        return {reference.name for reference in compile_template(text).references}
    except TemplateProblem:
        return set()
