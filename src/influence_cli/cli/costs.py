"""What an estimate says of money: the sum, or how to give the price that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from influence_cli.cli import output
from influence_cli.resolution import EMBEDDED_MODEL, price_example
from influence_cli.simulation.models import RoleModel

DONE_NOTHING = "With --json: all settings. Nothing was done."
"""How an estimate ends."""


def cost_text(cost: float | None) -> str:
    """Return ``cost`` in US dollars, or that there is no price to reckon it with."""
    return "no price known" if cost is None else f"${cost:,.2f}"


def unpriced(models: Iterable[RoleModel]) -> list[str]:
    """Return the names of ``models`` that have no price and may need one, each once."""
    return list(dict.fromkeys(m.name.base for m in models if m.price is None and m.name.base != EMBEDDED_MODEL))


def tell_unpriced(cost: float | None, names: Iterable[str] = ("MODEL",)) -> None:
    """Say, where ``cost`` could not be reckoned, how a model is given a price, the first of ``names`` as an example."""
    name = next(iter(names), None)
    if cost is None and name is not None:
        output.say(f"If it costs money, give its price for a million tokens: {price_example(name)}")
