"""What an import did with each part of what it read, and the names that it makes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field

_SLUG = re.compile(r"[^a-z0-9]+")
LONGEST_NAME = 80


@dataclass
class ImportReport:
    """What became of what; ``mapped`` in pairs of there and here, ``left`` with the reason and how often."""

    mapped: list[tuple[str, str]] = field(default_factory=list)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    scenarios: int = 0
    initial_states: int = 0

    @property
    def unplaced(self) -> list[tuple[str, str]]:
        """What had no place, and why; each pair once."""
        return list(self.left)

    def place(self, there: str, here: str) -> None:
        """Record that something found its place."""
        if (there, here) not in self.mapped:
            self.mapped.append((there, here))

    def leave(self, there: str, why: str) -> None:
        """Record that something has none."""
        self.left[there, why] += 1


def slug(text: str, default: str = "") -> str:
    """Return a name in small letters, digits and hyphens; ``default`` where nothing of ``text`` fits in one."""
    return _SLUG.sub("-", text.lower()).strip("-")[: LONGEST_NAME - 8].strip("-") or default


def unlike(name: str, taken: Container[str]) -> str:
    """Return ``name``, with a number behind it if it is taken."""
    found, number = name, 2
    while found in taken:
        found = f"{name}-{number}"
        number += 1
    return found
