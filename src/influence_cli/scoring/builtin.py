"""Scorers that come with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.scoring.scorers import Scorer


@hookimpl
def influence_scorers() -> Iterable[Component[Scorer]]:
    """Return what is counted or looked up without a model."""
    from influence_cli.scoring.scorers import LexicalDiversityOptions, NoOptions

    return [
        Component("reply-length", "Words of each reply.", partial(_load, "scorers", "ReplyLength"), NoOptions),
        Component(
            "lexical-diversity",
            "Share of different words in windows of a fixed length.",
            partial(_load, "scorers", "LexicalDiversity"),
            LexicalDiversityOptions,
        ),
        Component("refusal", "Whether a reply declines to help.", partial(_load, "scorers", "Refusal"), NoOptions),
        Component(
            "took-action",
            "Whether the conversation reached a state that the environment counts.",
            partial(_load, "scorers", "TookAction"),
            NoOptions,
        ),
        Component(
            "tool-truth",
            "What the agent says of its tools against what they did.",
            partial(_load, "tool_truth", "ToolTruth"),
            NoOptions,
        ),
    ]


def _load(module: str, name: str) -> Callable[..., Scorer]:
    made: Callable[..., Scorer] = getattr(import_module(f"influence_cli.scoring.{module}"), name)
    return made
