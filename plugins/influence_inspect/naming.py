"""Names that Inspect knows our tasks, solver and scorers by: ``influence_inspect/NAME``, however the package is installed."""

from __future__ import annotations

from inspect_ai._util.package import get_installed_package_name

PACKAGE = "influence_inspect"


def qualified(name: str) -> str:
    """Return what to register as ``name``: Inspect puts the package before it where it recognises an installed one."""
    return name if get_installed_package_name(qualified) == PACKAGE else f"{PACKAGE}/{name}"
