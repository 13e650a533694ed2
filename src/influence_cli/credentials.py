"""What is a key or a password, and text without any.

Concept: a key is known by its value, because it stands in an environment variable whose name says so or was read by a
backend; by its shape, because a vendor's keys look so; or by its place, because a setting's or parameter's name says so.
Invariant: what :func:`without_secrets` returns holds none of them, nor one as JSON, Python or an address would write it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

BLOT = "***"
SHORTEST = 8
"""Shorter values are no secrets: blotting them out would eat words."""

_HOLDS_KEY = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_IS_PLACE = re.compile(r"^(?:/|\.{1,2}/|~|[A-Za-z]:\\)")
_NAMES = (
    r"(?:x[-_])?api[-_]?key|(?:access|auth|bearer|refresh|secret|hf)[-_]?token|token|(?:client|secret|access)[-_]?secret"
    r"|secret[-_]?(?:access[-_]?)?key|secret|passwd|password|authorization"
)
_NAMED = re.compile(rf"(?:{_NAMES})", re.IGNORECASE)
_SHAPES = (
    r"(?<![A-Za-z0-9])(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, OpenRouter and many servers of one's own
    r"(?<![A-Za-z0-9])(?:hf|gsk|fw|r8|tgp_v1|pplx|xai|nvapi|csk|ghp|gho|ghs|github_pat|glpat)[_-][A-Za-z0-9_-]{20,}",
    r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{30,}",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"(?<=//)[^/@\s]+:[^/@\s]+(?=@)",
    r"(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/-]{16,}=*",
)
_SHAPE = re.compile("|".join(_SHAPES))
_ASSIGNED = re.compile(r"(?<![\w$])([A-Za-z_]\w*)=([\"']?)([^\s\"';,]+)")
_PARAMETER = re.compile(rf"([?&](?:{_NAMES}|key|sig|signature)=)[^&\s\"']+", re.IGNORECASE)
_read: set[str] = set()


def remember_secret(value: str) -> None:
    """Blot ``value`` out from now on, whatever the variable was called that it was read from."""
    if len(value) >= SHORTEST:
        _read.add(value)


def known_secrets(environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return the values of variables that hold keys, and those that were read as keys."""
    found = os.environ if environ is None else environ
    held = {value.strip() for name, value in found.items() if _HOLDS_KEY.search(name)}
    return frozenset(value for value in held if len(value) >= SHORTEST and not _IS_PLACE.match(value)) | _read


def without_secrets(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return ``text`` with asterisks where a key or a password stands, or seems to."""
    for form in sorted(_forms(environ), key=len, reverse=True):
        if form in text:
            text = _whole(form).sub(BLOT, text)
    return _SHAPE.sub(BLOT, _PARAMETER.sub(rf"\1{BLOT}", text))


def holds_secret(data: Any, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether JSON-like ``data`` holds a key or a password: by value, by shape, or under a name that says so.

    That may also be the name of a variable which a line of a script sets to a value of its own.
    """
    return any(_gives_away(name, value, environ) for name, value in _leaves("", data))


def _gives_away(name: str, value: str, environ: Mapping[str, str] | None) -> bool:
    named = bool(value) and _NAMED.fullmatch(name) is not None
    return (
        named
        or _sets_secret(value)
        or without_secrets(value, environ) != value
        or without_secrets(name, environ) != name
    )


def _sets_secret(line: str) -> bool:
    """Return whether a line of a shell's gives a variable that holds a key a value that stands there."""
    found = ((name, value) for name, _, value in _ASSIGNED.findall(line))
    return any(
        _HOLDS_KEY.search(name)
        and len(value) >= SHORTEST
        and not value.startswith(("$", "`"))
        and not _IS_PLACE.match(value)
        for name, value in found
    )


def _leaves(name: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _leaves(str(key), value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _leaves(name, value)
    elif isinstance(data, str):
        yield name, data
    else:
        yield name, ""


def _forms(environ: Mapping[str, str] | None) -> set[str]:
    """Return every known secret as it is, and as JSON, Python and an address write it."""
    from urllib.parse import quote, quote_plus

    forms: set[str] = set()
    for value in known_secrets(environ):
        forms |= {
            value,
            json.dumps(value)[1:-1],
            repr(value)[1:-1],
            quote(value),
            quote(value, safe=""),
            quote_plus(value),
        }
    return forms


def _whole(form: str) -> re.Pattern[str]:
    """Return the pattern of ``form``; a key that is a word does not blot out longer ones."""
    return re.compile(rf"(?<![A-Za-z]){form}(?![A-Za-z])" if form.isalpha() else re.escape(form))
