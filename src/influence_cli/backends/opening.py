"""Backends made by name, for a backend that is a special case of another.

A server of vLLM, for one, is an OpenAI-compatible server with more to it: its plugin opens the backend ``openai`` by the
registry, as any command does, so that neither plugin imports the other and either can be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from influence_cli.backends.protocol import Backend
from influence_cli.plugins.options import validate_options
from influence_cli.plugins.registry import make_registry


def open_backend(name: str, model: str, options: Mapping[str, Any]) -> Backend:
    """Return the backend ``name`` for ``model``, its options validated.

    Raises UnknownNameError for an unknown backend, InfluenceError for one whose packages are missing or options that do
    not fit.
    """
    component = make_registry().component("backend", name)
    backend: Backend = component.load()(model, validate_options(component, options))
    return backend
