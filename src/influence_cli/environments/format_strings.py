"""From Python format strings (``{name}``, doubled braces for literal ones) to templates."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Set

_FIELD = re.compile(r"[^\W\d][\w \-]*\Z")
_MARKS = re.compile(r"\{\{|\{%|\{#")
_SINGLE = re.compile(r"(?<!\{)\{([^\W\d][\w \-]*)\}(?!\})")
_PASSES = 3
_LONGEST = 40_000
_TAKEN = frozenset(
    "profile scenario population wants cue message arguments"
    " true false none and or not in is if else elif for endfor endif loop".split()
)
"""Names that the program or a template's language gives a meaning of their own."""


class Unfit(ValueError):  # noqa: N818 - data about a text, told in a report
    """The text is no format string; the message says why."""


def variable_name(text: str) -> str:
    """Return the name under which a template finds what a format string calls ``text``."""
    found = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")[:70] or "value"
    if found[0].isdigit():
        found = f"_{found}"
    return f"{found}_given" if found in _TAKEN else found


def fields_of(text: str) -> set[str]:
    """Return the variables that a format string asks for; Unfit if it is none."""
    try:
        return {variable_name(name) for _, name, _, _ in string.Formatter().parse(text) if name and _FIELD.match(name)}
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
        if _FIELD.match(name) and variable_name(name) in known and not spec and not conversion:
            out += [literal(text), "{{ " + variable_name(name) + " }}"]
            text = ""
        else:
            text += "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    return "".join([*out, literal(text)])


def as_value(text: str, values: Mapping[str, str], drawn: Set[str]) -> str:
    """Return a variable's text with the fields that name other ``values`` filled in, and templates for ``drawn`` ones."""
    for _ in range(_PASSES):
        changed = _SINGLE.sub(lambda match: values.get(variable_name(match[1]), match[0]), text)
        if changed == text or len(changed) > _LONGEST:
            break
        text = changed
    parts = _SINGLE.split(text)
    out = [literal(parts[0])]
    for name, after in zip(parts[1::2], parts[2::2], strict=True):
        own = variable_name(name)
        out += ["{{ " + own + " }}" if own in drawn else "{" + name + "}", literal(after)]
    return "".join(out)


def literal(text: str) -> str:
    """Return a template that renders as ``text``, whatever marks of templates it holds."""
    return _MARKS.sub(lambda match: '{{ "' + match[0] + '" }}', text)
