"""What the templates of one conversation can name.

Order, the later over the earlier: the environment's variables, the scenario's, the draws of variants, the population's.
A variable's own text may be a template over the profile and over variables that are none, so that a person's text can
name what was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from influence_cli.environments.templates import compile_template
from influence_cli.schemas.environment import EnvironmentSpec, InitialState, Population, Scenario, Variable
from influence_cli.schemas.records import EpisodeRecord
from influence_cli.seeding import unit_draw

_MARKS = ("{{", "{%", "{#")


def variables_of(
    spec: EnvironmentSpec, scenario: Scenario, initial: InitialState, record: EpisodeRecord
) -> dict[str, Any]:
    """Return what templates can use: the files' variables, and what the program provides."""
    own = scenario.populations.get(record.population or "", Population())
    general = spec.populations.get(record.population or "", Population())
    drawn = drawn_for(spec, scenario, record.seed)
    written = {**spec.variables, **scenario.variables}
    given = (written.keys() - drawn.keys()) | general.variables.keys() | own.variables.keys()
    variables: dict[str, Any] = {
        **written,
        **drawn,
        **general.variables,
        **own.variables,
        "profile": initial.profile,
        "scenario": {"name": scenario.name, "title": scenario.title, "description": scenario.description},
        "population": {"name": record.population or "", "title": "", "description": ""},
        "wants": "",
        "cue": "",
        "message": "",
    }
    variables["population"]["description"] = own.description or general.description
    variables.update(_rendered(variables, given))
    if record.population is None:
        return variables
    wants = own.wants if own.wants is not None else general.wants
    variables["wants"] = compile_template(wants or "").render(variables).strip()
    if record.cue != "none":
        cue = getattr(own.cues, record.cue) or getattr(general.cues, record.cue)
        variables["cue"] = compile_template(cue or "").render(variables).strip()
    return variables


def drawn_for(spec: EnvironmentSpec, scenario: Scenario, seed: int) -> dict[str, Variable]:
    """Return the value of each variant that the conversation with ``seed`` draws."""
    variants = {**spec.variants, **scenario.variants}
    return {name: values[int(unit_draw(seed, "variant", name) * len(values))] for name, values in variants.items()}


def is_template(value: Variable) -> bool:
    """Return whether a variable's text names others."""
    return isinstance(value, str) and any(mark in value for mark in _MARKS)


def variable_templates(variables: Mapping[str, Variable]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each variable that is a template."""
    for name, value in variables.items():
        if is_template(value):
            yield name, str(value)


def _rendered(variables: Mapping[str, Any], given: Iterable[str]) -> dict[str, str]:
    return {name: compile_template(variables[name]).render(variables) for name in given if is_template(variables[name])}
