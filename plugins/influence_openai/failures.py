"""What an answer that is no answer means.

Invariant: every HTTP status and error body becomes one ``CallFailedError`` of the right kind, and no message
holds the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from influence_cli.api import CallFailedError, FailureKind

_SHOWN = 400
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w*.\-]{6,}")
_OVERFLOW = re.compile(
    r"context[ _]length|maximum context|context size|context window|maximum model length|max_model_len"
    r"|(?:prompt|input) is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)
_OVERLOADED = frozenset({429, 503, 529})


@dataclass(frozen=True)
class ServerError:
    """An error as a server tells it: OpenAI's shape, vLLM's, llama.cpp's, FastAPI's, or plain text."""

    status: int
    message: str
    code: str = ""
    param: str = ""


class RequestRefusedError(CallFailedError):
    """A failure that the server explained; ``error`` is what it said."""

    def __init__(self, kind: FailureKind, message: str, error: ServerError, retry_after: float | None = None) -> None:
        super().__init__(kind, message, retry_after=retry_after)
        self.error = error

    @property
    def overloaded(self) -> bool:
        """Whether the server asks for less."""
        return self.error.status in _OVERLOADED and self.kind != "quota"


def redact(text: str, key: str | None) -> str:
    """Return ``text`` without the key, or what looks like one or like a part of this one, and not too long."""
    if key:
        text = text.replace(key, "[key]")
        if len(key) >= 12:
            text = re.sub(re.escape(key[:6]) + r"\S*", "[key]", text)
    text = _KEY_LIKE.sub("[key]", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def parse_error(status: int, body: bytes) -> ServerError:
    """Return what an error body says, whatever its shape."""
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ServerError(status, re.sub(r"<[^>]*>|\s+", " ", body[:4000].decode("utf-8", "replace")).strip())
    if not isinstance(data, dict):
        return ServerError(status, str(data))
    inner = data.get("error", data)
    if isinstance(inner, str):
        return ServerError(status, inner)
    if not isinstance(inner, dict):
        return ServerError(status, str(inner))
    detail = inner.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        loc = detail[0].get("loc")
        place = [str(part) for part in loc] if isinstance(loc, list) else []
        return ServerError(status, f"{'.'.join(place)}: {detail[0].get('msg', '')}", param=place[-1] if place else "")
    message = inner.get("message") or detail or ""
    code = inner.get("code")
    kind = inner.get("type")
    known = code if isinstance(code, str) and code else kind
    return ServerError(status, str(message), str(known or ""), str(inner.get("param") or ""))


_KIND_OF_CODE: Mapping[str, FailureKind] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "context_length_exceeded": "context_overflow",
    "exceed_context_size_error": "context_overflow",
    "content_filter": "refused",
    "content_policy_violation": "refused",
    "ResponsibleAIPolicyViolation": "refused",
}
_KIND_OF_STATUS: Mapping[int, FailureKind] = {
    401: "auth",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server_error",
    425: "server_error",
    429: "rate_limited",
    504: "timeout",
}
_MAY_BE_OVERFLOW = frozenset({400, 413, 422, 500})


def _kind(error: ServerError) -> FailureKind:
    by_code = _KIND_OF_CODE.get(error.code)
    if by_code is not None:
        return by_code
    if error.status in _MAY_BE_OVERFLOW and _OVERFLOW.search(error.message):
        return "context_overflow"
    by_status = _KIND_OF_STATUS.get(error.status)
    if by_status is not None:
        return by_status
    return "server_error" if error.status >= 500 else "invalid_request"


_MEANING: Mapping[FailureKind, str] = {
    "auth": "The server refused the key in {env} (HTTP {status})",
    "quota": "The account behind {env} has nothing left to spend (HTTP {status})",
    "rate_limited": "Too many requests (HTTP {status})",
    "not_found": "The server does not know the model or the address (HTTP {status})",
    "context_overflow": "The conversation is longer than the model's context (HTTP {status})",
    "refused": "The server's content filter refused (HTTP {status})",
    "timeout": "The server gave up waiting (HTTP {status})",
    "server_error": "The server failed (HTTP {status})",
    "invalid_request": "The server does not accept the request (HTTP {status})",
}


def failure(status: int, headers: Mapping[str, str], body: bytes, *, key: str | None, env: str) -> RequestRefusedError:
    """Return the failure that an HTTP answer other than 200 means; ``env`` names where the key comes from."""
    error = parse_error(status, body)
    kind = _kind(error)
    meaning = _MEANING[kind].format(env=env, status=status)
    said = redact(error.message, key)
    message = f"{meaning}: {said}" if said else f"{meaning}."
    return RequestRefusedError(kind, message, error, retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a retry-after-ms or Retry-After header asks for; None if none can be read.

    A date is counted from the server's own, so that a clock that is wrong here changes nothing.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("Retry-After")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds())


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
