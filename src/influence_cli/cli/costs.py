"""What an estimate says of money: the sum, or how to give the price that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from influence_cli.cli import output
from influence_cli.resolution import price_example

if TYPE_CHECKING:
    from influence_cli.environments.environment import Environment

DONE_NOTHING = "With --json: all settings. Nothing was done."
"""How an estimate ends."""


def cost_text(cost: float | None) -> str:
    """Return ``cost`` in US dollars, or that there is no price to reckon it with."""
    return "no price known" if cost is None else f"${cost:,.2f}"


def tell_unpriced(names: Iterable[str]) -> None:
    """Say how models that may cost money, and whose price is not known, are given one; the first of ``names`` as example."""
    name = next(iter(names), None)
    if name is not None:
        output.say(f"If it costs money, give its price for a million tokens: {price_example(name)}")


def tell_tools(environments: Iterable[Environment]) -> None:
    """Say what calls of tools add to an estimate, which knows one call of the agent a turn."""
    from influence_cli.environments.tools import MAX_STEPS

    offering = [each.name for each in environments if any(each.tools(scenario) for scenario in each.scenarios)]
    if offering:
        output.say(
            f"Calls of tools come on top ({', '.join(offering)}): up to {MAX_STEPS} more of the agent in each turn."
        )


def larger_budget(stop: str | None) -> str:
    """Return the flag that a run which ``stop`` ended (``cost``, ``tokens``) needs to go on; earlier sittings count."""
    return {"cost": " --max-cost DOLLARS", "tokens": " --max-tokens NUMBER"}.get(stop or "", "")
