"""What this server takes: learnt from what it refuses, once, and told in notes.

Invariant: a parameter is left out or renamed only after the server said that it does not know or support it, and every
such change is a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from influence_openai.failures import ServerError
from influence_openai.options import OpenAIOptions

_UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden"})
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|n[o']t support|not compatible|unrecognized|unknown|not permitted|unexpected|not allowed"
    r"|not available|not enabled|not implemented|no such (?:field|parameter)",
    re.IGNORECASE,
)
_AT_MOST = re.compile(
    r"(?:<=|at most|maximum(?: value| allowed)?(?: of| is)?:?|less than or equal to|max allowed:?|between 0 and|up to)"
    r"\s*(\d+)",
    re.IGNORECASE,
)
_CANNOT = (400, 404, 422, 501)
_CONSEQUENCE = {
    "temperature": "answers are drawn at the server's own temperature",
    "top_p": "answers are drawn with the server's own top_p",
    "seed": "answers cannot be repeated",
    "stop": "replies are cut here at the stop strings",
    "min_tokens": "replies may be shorter than asked",
    "n": "samples are asked for one by one",
    "response_format": "the form of structured answers is only asked for in words",
    "logprobs": "distributions are counted from samples",
    "continue_final_message": "a choice that begins like another one is told apart by samples",
}
_SAME_MATTER = {"top_logprobs": "logprobs", "add_generation_prompt": "continue_final_message"}
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
_ADAPTABLE = frozenset({*_CONSEQUENCE, *_SAME_MATTER, *_TOKEN_FIELDS})


class Dialect:
    """What may be sent to one server. ``notes`` say what was adapted."""

    def __init__(self, options: OpenAIOptions) -> None:
        field = options.token_limit_field
        self._fixed_field = field != "auto"
        self.token_field: str = (
            field if field != "auto" else "max_completion_tokens" if options.is_openai else "max_tokens"
        )
        self.top_logprobs = options.top_logprobs
        self.prefix: Literal["unproven", "yes", "no"] = "yes" if options.assistant_prefix == "always" else "unproven"
        self.left_out: set[str] = set()
        if not options.logprobs:
            self.left_out.add("logprobs")
        if options.assistant_prefix == "never" or (options.assistant_prefix == "auto" and options.is_openai):
            self.prefix = "no"
        self._flipped = False
        self.notes: list[str] = []

    def takes(self, name: str) -> bool:
        """Return whether the parameter ``name`` may be sent."""
        return name not in self.left_out

    def leave_out(self, name: str, why: str) -> None:
        """Stop sending ``name``, and say why; nothing if that was done already."""
        if name not in self.left_out:
            self.left_out.add(name)
            if name == "continue_final_message":
                self.prefix = "no"
            self.note(f"{why}: {_CONSEQUENCE[name]}.")

    def note(self, text: str) -> None:
        """Keep ``text`` among the notes, once."""
        if text not in self.notes:
            self.notes.append(text)

    def adapt(self, error: ServerError, sent: Mapping[str, Any]) -> bool:
        """Return whether to send again in the changed dialect, ``error`` having refused the request ``sent``."""
        name = self._named(error, sent) if error.status in _CANNOT else None
        if name is None:
            return False
        if name in ("logprobs", "top_logprobs") and self._lower_top_logprobs(error, sent):
            return True
        if not (error.code in _UNSUPPORTED_CODES or _UNSUPPORTED.search(error.message)):
            return False
        if name in _TOKEN_FIELDS:
            return self._flip(name)
        name = _SAME_MATTER.get(name, name)
        if name not in _CONSEQUENCE:
            return False
        self.leave_out(name, f"The server does not support '{name}'")
        return True

    def _named(self, error: ServerError, sent: Mapping[str, Any]) -> str | None:
        """Return the parameter among ``sent`` that the error is about."""
        if error.param:
            return error.param if error.param in sent else None
        found = {
            name: place.start()
            for name in sent
            if (name in _ADAPTABLE and (place := re.search(rf"(?<!\w){re.escape(name)}(?!\w)", error.message)))
        }
        return min(found, key=found.__getitem__) if found else None

    def _lower_top_logprobs(self, error: ServerError, sent: Mapping[str, Any]) -> bool:
        limit = _AT_MOST.search(error.message)
        if limit is None or not 0 < int(limit[1]) < sent.get("top_logprobs", 0):
            return False
        self.top_logprobs = min(self.top_logprobs, int(limit[1]))
        self.note(f"The server shows only the {self.top_logprobs} likeliest tokens: choices beyond them count as 0.")
        return True

    def _flip(self, name: str) -> bool:
        other = _TOKEN_FIELDS[name == "max_tokens"]
        if name != self.token_field:
            return True  # another call found out first
        if self._fixed_field or self._flipped:
            return False
        self._flipped = True
        self.token_field = other
        self.note(f"The server does not take '{name}': '{other}' is sent instead.")
        return True
