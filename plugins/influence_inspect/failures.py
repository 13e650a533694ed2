"""What Inspect's providers raise, as kinds of failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from inspect_ai.model import ModelRefusalError

from influence_cli.api import FailureKind

_BY_STATUS: dict[int, FailureKind] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    413: "context_overflow",
    422: "invalid_request",
    429: "rate_limited",
}
_MOST_DETAIL = 500


def classified(error: BaseException) -> tuple[FailureKind, str]:
    """Return the kind of ``error``, by its HTTP status where it has one, and what it said in one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return next(_kinds(error), "internal"), f"{type(error).__name__}: {said}"[:_MOST_DETAIL]


def _kinds(error: BaseException) -> Iterator[FailureKind]:
    """Yield the kinds of ``error`` and of what caused it."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, ModelRefusalError):
            yield "refused"
        status = getattr(each, "status_code", None)
        if isinstance(status, int):
            yield _BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
        if isinstance(each, TimeoutError | asyncio.TimeoutError) or "timeout" in type(each).__name__.lower():
            yield "timeout"
        if isinstance(each, ConnectionError) or "connect" in type(each).__name__.lower():
            yield "connection"
        each = each.__cause__ or each.__context__
