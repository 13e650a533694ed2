"""What plugins offer and what is wrong with it, as data: what listings and checks show."""

from __future__ import annotations

from typing import Any

from influence_cli.errors import UnknownNameError
from influence_cli.plugins.loading import told
from influence_cli.plugins.registry import HOOKS, Offer, PluginRegistry

Facts = dict[str, Any]
"""One component or plugin, its state, what is wrong with it, and the mend."""


def offers(registry: PluginRegistry) -> list[Offer]:
    """Return everything that plugins offer, by kind."""
    return [offer for kind in HOOKS for offer in registry.offers(kind)]


def offers_of(registry: PluginRegistry, name: str) -> list[Offer]:
    """Return what is offered under ``name``, of any kind; UnknownNameError if nothing is."""
    found = offers(registry)
    called = [offer for offer in found if offer.component.name == name]
    if not called:
        raise UnknownNameError("component", name, {offer.component.name for offer in found})
    return called


def is_broken(facts: Facts) -> bool:
    """Return whether a component cannot be used although what it needs is there."""
    return facts["state"] in ("broken", "duplicate")


def offer_facts(offer: Offer) -> Facts:
    """Return the facts of one component, without loading what stands behind it."""
    return {
        "kind": offer.kind,
        "name": offer.component.name,
        "summary": offer.component.summary,
        "distribution": offer.distribution,
        "version": offer.version,
        "state": offer.state,
        "problem": offer.problem,
        "mend": offer.mend,
    }


def plugin_facts(registry: PluginRegistry) -> tuple[list[Facts], list[Facts]]:
    """Return the facts of every component and those of skipped plugins, without loading what stands behind them."""
    return [offer_facts(offer) for offer in offers(registry)], [vars(plugin) for plugin in registry.problems]


def checked_plugins(registry: PluginRegistry) -> tuple[list[Facts], list[Facts]]:
    """Return the facts of every component, after loading what stands behind it, and those of skipped plugins."""
    results = [_checked(offer) for offer in offers(registry)]
    return results, [vars(plugin) for plugin in registry.problems]


def problem_lines(registry: PluginRegistry) -> list[str]:
    """Return a line on every plugin that was skipped, with its mend."""
    return [
        f"The plugin {p.name} ({p.distribution} {p.version}) was skipped: {p.problem}. {p.mend or ''}".strip()
        for p in registry.problems
    ]


def _checked(offer: Offer) -> Facts:
    """Return the facts of ``offer`` after really loading what stands behind it."""
    facts = offer_facts(offer)
    if offer.state != "ok":
        return facts
    try:
        offer.component.load()
    except Exception as error:  # noqa: BLE001 - what a plugin's load raises is what the doctor looks for
        facts |= {"state": "broken", "problem": told(error)}
        facts["mend"] = f"Upgrade it, or: pip uninstall {offer.distribution}"
    return facts
