"""Model text made harmless for a terminal.

Invariant: what :func:`visible` returns holds no control character but newline (and that only where asked for), no
terminal escape sequence and no bidirectional override; each is shown as a visible symbol instead of being dropped.
"""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_INVISIBLE = "\u00ad\u180e\u200b\u2060\u2061\u2062\u2063\u2064\ufeff\ufff9\ufffa\ufffb"
_HOSTILE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_BIDI}{_INVISIBLE}\U000e0000-\U000e007f]")


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"<{code:04X}>"


def visible(text: str, *, newlines: bool = True) -> str:
    """Return ``text`` with control characters as visible symbols; tabs become spaces.

    With ``newlines=False`` line ends become a visible symbol too, so that the result is one line.
    """
    shown = _HOSTILE.sub(_symbol, text.replace("\r\n", "\n").replace("\t", "    "))
    return shown if newlines else shown.replace("\n", "\u2424")
