"""Every screen looks as it did when somebody last looked at it: two sizes, two themes, and 60x20."""

import pytest

from influence_cli.viewer.themes import NAMES

from . import conftest, screens

SCREENS = {
    "runs": (),
    "run": ("enter",),
    "query": ("enter", "slash", *"rating>", "enter"),
    "conversation": ("enter", "w", "enter", "w"),
    "unfolded": ("enter", "w", "enter", "z", "G"),
    "blind": ("enter", "w", "enter", "B"),
    "label": ("enter", "w", "enter", "L", "7"),
    "charts": ("enter", "i"),
    "compare": ("enter", "c"),
    "pair": ("enter", "c", "enter"),
    "views": ("enter", "v"),
    "help": ("enter", "question_mark"),
    "whole": ("enter", "enter", "o"),
    "question": ("S",),
}


@pytest.mark.parametrize("size", [(80, 24), (140, 45)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name", SCREENS)
async def test_the_screen_is_as_it_was(copied_run, request, name, theme, size):
    async with conftest.looking(size, folders=(copied_run,), theme=NAMES[theme]) as (app, press):
        await press(*SCREENS[name])
        full = f"{name}-{theme}-{size[0]}x{size[1]}"
        screens.compare(app, full, update=request.config.getoption("--update-screens"))


@pytest.mark.parametrize("name", SCREENS)
async def test_sixty_by_twenty_is_enough(copied_run, request, name):
    async with conftest.looking((60, 20), folders=(copied_run,), theme=NAMES["contrast"]) as (app, press):
        await press(*SCREENS[name])
        screens.compare(app, f"{name}-contrast-60x20", update=request.config.getoption("--update-screens"))
