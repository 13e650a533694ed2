"""The figures of a sweep, with the measure of importance that is asked for, or that can be had."""

from __future__ import annotations

from typing import Any

from influence_cli.plugins.registry import PluginRegistry
from influence_cli.sweeps.directory import SweepDirectory
from influence_cli.sweeps.figures import sweep_document
from influence_cli.sweeps.protocol import Importance

_PREFERRED = ("ped-anova", "variance")


def document_of(registry: PluginRegistry, directory: SweepDirectory, importance: str | None) -> dict[str, Any]:
    """Return the figures of a sweep, with the importance that is asked for or the first that can be measured."""
    name, measure = named_importance(registry, importance)
    return sweep_document(directory, measure, name)


def named_importance(registry: PluginRegistry, name: str | None) -> tuple[str, Importance]:
    """Return what measures importance, and its name; InfluenceError if the one asked for cannot be had."""
    if name is None:
        usable = [offer.component.name for offer in registry.offers("importance") if offer.state == "ok"]
        name = next(each for each in _PREFERRED if each in usable)
    component = registry.component("importance", name)
    made: Importance = component.load()(component.options())
    return name, made
