"""Errors that a user can cause, and failures of model calls.

Invariant: whatever a person can do wrong ends as an :class:`InfluenceError` raised where the mistake is known best; it
is printed once, as one line with its mend, by the command line. Anything else that escapes is a bug and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from influence_cli.schemas.requests import Usage

EXIT_DONE = 0
"""Everything asked for was done."""
EXIT_FAILURES = 1
"""Finished, with more failed conversations than the allowed share."""
EXIT_USER = 2
"""The user's mistake."""
EXIT_STOPPED = 3
"""Stopped by a budget or a signal, and resumable."""


class InfluenceError(Exception):
    """A mistake that the user can mend.

    ``hint`` says how; ``exit_code`` is what the process ends with.
    """

    exit_code: int = EXIT_USER

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and, after it, the mend."""
        message = str(self.args[0])
        return f"{message} {self.hint}" if self.hint else message


class UnknownNameError(InfluenceError):
    """A name that nothing answers to; the message suggests the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, note: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if near:
            hint = f"Did you mean {' or '.join(repr(n) for n in near)}?"
        elif names:
            hint = f"Known: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
        else:
            hint = f"No {kind} is known at all."
        super().__init__(f"Unknown {kind} {name!r}.", hint=f"{hint} {note}".strip())


FailureKind = Literal[
    "auth",
    "not_found",
    "rate_limited",
    "quota",
    "server_error",
    "connection",
    "timeout",
    "malformed",
    "empty",
    "too_long",
    "context_overflow",
    "refused",
    "invalid_request",
    "unusable",
    "cancelled",
    "internal",
]
"""Why a call, and with it perhaps a conversation, failed.

``unusable``: a distribution whose mass on the choices is too small; ``cancelled``: a speculative call that was no
longer needed, which is no failure; ``internal``: a bug in a backend, whose traceback stands in the run's log.
"""

RETRYABLE: frozenset[FailureKind] = frozenset(
    {"rate_limited", "server_error", "connection", "timeout", "malformed", "empty"}
)
"""The kinds for which asking again may help."""


class CallFailedError(Exception):
    """A model call that did not give a usable answer: data about one conversation, not a crash.

    ``attempts`` counts the requests really sent; ``retry_after`` is in seconds, as the server asked for; ``usage`` is
    what was spent on it all the same, where that is known. ``away``: nothing was sent, because a server that has
    answered before cannot be reached now.
    """

    usage: Usage | None = None
    away: bool = False

    def __init__(self, kind: FailureKind, message: str, *, attempts: int = 1, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.attempts = attempts
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """Whether asking again may help."""
        return self.kind in RETRYABLE
