"""From Python format strings (``{name}``, doubled braces for literal ones) to templates."""

from __future__ import annotations

import re
import string
from collections.abc import Set

_FIELD = re.compile(r"\w+\Z")
_MARKS = re.compile(r"\{\{|\{%|\{#")


class Unfit(ValueError):  # noqa: N818 - data about a text, told in a report
    """The text is no format string; the message says why."""


def fields_of(text: str) -> set[str]:
    """Return the names that a format string asks for; Unfit if it is none."""
    try:
        return {name.lower() for _, name, _, _ in string.Formatter().parse(text) if name}
    except ValueError as error:
        raise Unfit(str(error)) from None


def as_template(text: str, known: Set[str]) -> str:
    """Return a template that renders as ``text`` does, its fields in ``known`` filled; all else stays as it stands."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        return literal(text)
    out: list[str] = []
    text = ""
    for before, name, spec, conversion in parts:
        text += before
        if name is None:
            continue
        if _FIELD.match(name) and name.lower() in known and not spec and not conversion:
            out += [literal(text), "{{ " + name.lower() + " }}"]
            text = ""
        else:
            text += "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    return "".join([*out, literal(text)])


def literal(text: str) -> str:
    """Return a template that renders as ``text``, whatever marks of templates it holds."""
    return _MARKS.sub(lambda match: '{{ "' + match[0] + '" }}', text)
