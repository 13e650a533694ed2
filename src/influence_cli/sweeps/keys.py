"""Which settings can be searched, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from influence_cli.errors import UnknownNameError
from influence_cli.settings import setting_names

OPTION = "algorithm.options."
SHORT_NAMES = {
    "lr": f"{OPTION}learning_rate",
    "learning_rate": f"{OPTION}learning_rate",
    "epochs": f"{OPTION}epochs",
    "batch": f"{OPTION}batch",
    "beta": f"{OPTION}beta",
    "lora_r": f"{OPTION}lora_r",
    "strength": f"{OPTION}strength",
    "algo": "algorithm.name",
    "top": "selection.fraction",
    "best": "selection.count",
    "reward": "selection.reward",
    "level": "selection.level",
    "how": "selection.how",
    "length_penalty": "selection.length_penalty",
    "veto_level": "selection.veto_level",
    "temperature": "default.sampling.temperature",
    "max_reply_tokens": "roles.agent.sampling.max_tokens",
    "agent": "roles.agent.model",
    "model": "default.model",
}
"""What is searched often, by a name of one word; any other setting by its own dotted name."""

_FREE = ("algorithm.options.", "default.options.", "populations.", "roles.", "trackers.", "questions.", "prices.")
"""What stands before names that the settings themselves do not list."""


def setting_key(name: str, model: type[BaseModel]) -> str:
    """Return the dotted setting that ``name`` stands for; UnknownNameError with the nearest names for any other."""
    known = set(setting_names(model))
    key = SHORT_NAMES.get(name, name)
    if _is_setting(key, known):
        return key
    short = [each for each, long in SHORT_NAMES.items() if _is_setting(long, known)]
    raise UnknownNameError("setting to search", name, [*short, *known])


def _is_setting(key: str, known: Iterable[str]) -> bool:
    first = key.partition(".")[0]
    return key in known or (key.startswith(_FREE) and first in known and not key.endswith("."))
