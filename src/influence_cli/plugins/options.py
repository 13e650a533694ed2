"""A component's options, validated by its own model."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.plugins.component import AnyComponent


def validate_options(component: AnyComponent, values: Mapping[str, Any], *, flag: str = "-o ") -> BaseModel:
    """Return ``values`` as the component's options; InfluenceError naming the option, the problem and the mend.

    ``flag`` is what stands before an option's name where it is given.
    """
    try:
        return component.options.model_validate(dict(values))
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in details["loc"]) or component.name
        known = sorted(component.options.model_fields)
        see = f"See `influence plugins show {component.name}`."
        if details["type"] == "extra_forbidden":
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else see
            raise InfluenceError(f"{flag}{name}: {component.name} has no such option.", hint=hint) from None
        if details["type"] == "missing":
            raise InfluenceError(f"{component.name} needs the option {name!r}.", hint=f"Add {flag}{name}=...") from None
        message = details["msg"].removeprefix("Value error, ").rstrip(".")
        raise InfluenceError(f"{flag}{name}: {message}.", hint=see) from None
