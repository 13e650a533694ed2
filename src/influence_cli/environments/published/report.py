"""What an import did with each part of what it read, and the names that it makes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass
class ImportReport:
    """What became of what; ``mapped`` in pairs of there and here, ``unplaced`` with the reason."""

    mapped: list[tuple[str, str]] = field(default_factory=list)
    unplaced: list[tuple[str, str]] = field(default_factory=list)
    scenarios: int = 0
    initial_states: int = 0

    def place(self, there: str, here: str) -> None:
        """Record that something found its place."""
        if (there, here) not in self.mapped:
            self.mapped.append((there, here))

    def leave(self, there: str, why: str) -> None:
        """Record that something has none."""
        if (there, why) not in self.unplaced:
            self.unplaced.append((there, why))


def slug(text: str) -> str:
    """Return a name in small letters, digits and hyphens."""
    return _SLUG.sub("-", text.lower()).strip("-")[:80].strip("-")


def identifier(text: str) -> str:
    """Return a name that a template can use."""
    found = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_") or "value"
    return found if not found[0].isdigit() else f"_{found}"
