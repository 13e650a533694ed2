"""What an estimate says of money: the sum, or how to give the price that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from influence_cli.cli import output
from influence_cli.resolution import price_example
from influence_cli.simulation.models import RoleModel

_ANY = "MODEL"


def cost_text(cost: float | None) -> str:
    """Return ``cost`` in US dollars, or that there is no price to reckon it with."""
    return "no price known" if cost is None else f"${cost:,.2f}"


def unpriced(models: Iterable[RoleModel]) -> list[str]:
    """Return the names of ``models`` that have no price, each once."""
    return list(dict.fromkeys(model.name.base for model in models if model.price is None))


def tell_unpriced(cost: float | None, names: Iterable[str] = ()) -> None:
    """Say, where ``cost`` could not be reckoned, how a model is given a price, the first of ``names`` as an example."""
    if cost is None:
        name = next(iter(names), _ANY)
        output.say(f"If it costs money, give its price for a million tokens: {price_example(name)}")
