"""Text of models, shown in places that render Markdown or HTML."""

from __future__ import annotations


def fenced(text: str) -> str:
    """Return ``text`` as an indented Markdown block, which nothing in it can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())
