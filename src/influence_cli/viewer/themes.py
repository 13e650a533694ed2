"""Colours: dark, light and high contrast. Nothing is told by colour alone."""

from __future__ import annotations

from textual.theme import Theme

DARK, LIGHT, CONTRAST = "influence-dark", "influence-light", "influence-contrast"

THEMES = (
    Theme(
        name=DARK,
        primary="#6cb6ff",
        secondary="#b392f0",
        accent="#f0b429",
        warning="#f0b429",
        error="#ff7b72",
        success="#56d364",
        foreground="#d8dee6",
        background="#0f141a",
        surface="#161c24",
        panel="#1f2832",
        dark=True,
        variables={"role-agent": "#6cb6ff", "role-user": "#56d364", "role-tool": "#d2a8ff", "role-system": "#8b98a8",
                   "dim": "#8b98a8", "bar": "#4f9be6", "bar-harm": "#ff7b72", "cursor-line": "#26384d",
                   "quote": "#5a4600"},
    ),
    Theme(
        name=LIGHT,
        primary="#0550ae",
        secondary="#6639ba",
        accent="#8a4600",
        warning="#8a4600",
        error="#b3141d",
        success="#116329",
        foreground="#1a2027",
        background="#ffffff",
        surface="#f5f7f9",
        panel="#e8ecf0",
        dark=False,
        variables={"role-agent": "#0550ae", "role-user": "#116329", "role-tool": "#6639ba", "role-system": "#57606a",
                   "dim": "#57606a", "bar": "#0969da", "bar-harm": "#b3141d", "cursor-line": "#d3e5fb",
                   "quote": "#ffe9a8"},
    ),
    Theme(
        name=CONTRAST,
        primary="#ffff00",
        secondary="#00ffff",
        accent="#ffff00",
        warning="#ffff00",
        error="#ff6060",
        success="#00ff00",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#1c1c1c",
        dark=True,
        variables={"role-agent": "#00ffff", "role-user": "#00ff00", "role-tool": "#ff80ff", "role-system": "#ffffff",
                   "dim": "#e0e0e0", "bar": "#00ffff", "bar-harm": "#ff6060", "cursor-line": "#0000c0",
                   "quote": "#705000"},
    ),
)  # fmt: skip

NAMES = {"dark": DARK, "light": LIGHT, "contrast": CONTRAST}
"""What ``--theme`` calls them."""

DEFAULTS = dict(THEMES[0].variables)
"""Values of our variables under any other theme."""
