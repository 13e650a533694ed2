"""``influence env play``: a person in the place of the user or the agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Model, Name
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed, Server, ServerOptions, backend_options, given

if TYPE_CHECKING:
    from influence_cli.sittings.play import Rest


def play(
    ctx: typer.Context,
    name: Name,
    part: Annotated[str, typer.Option("--as", help="Your part: user or agent.")] = "user",
    scenario: Annotated[str | None, typer.Option("--scenario", help="A scenario; else one by the seed.")] = None,
    initial_state: Annotated[str | None, typer.Option("--initial-state", help="An initial state.")] = None,
    population: Annotated[str | None, typer.Option("--population", help="The kind of user.")] = None,
    cue: Annotated[str | None, typer.Option("--cue", help="stated, implied, arbitrary or none.")] = None,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Most agent replies.")] = None,
    model: Model = None,
    base_url: Server = None,
    option: ServerOptions = None,
    seed: AnySeed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.")] = None,
    environments_dir: Folders = None,
) -> None:
    """Take the user's or the agent's part against any model; the conversation is stored as a run.

    Type a line and Enter; Ctrl-D leaves, and the run can be taken up again.
    """
    from influence_cli.cli.simulate import FLAGS
    from influence_cli.sittings.play import play as sit
    from influence_cli.sittings.play import rest

    settings = given(
        {
            "environments": [name],
            "scenarios": [scenario] if scenario else None,
            "initial_states": [initial_state] if initial_state else None,
            "populations": {population: 1.0} if population else None,
            "cue": cue,
            "turns": turns,
            "seed": seed,
            "default.model": model,
            "default.options": backend_options(option),
            "default.options.base_url": base_url,
        }
    )
    output.set_quiet(True)

    def begins() -> None:
        output.warn(f"You are the {part}. One line is one message; Ctrl-D leaves.\n")

    folders = environments_dir or ()
    summary = sit(registry_of(ctx), part, settings, out, Talk(), folders=folders, flag_names=FLAGS, begins=begins)
    if not summary.exit_code:
        _show_rest(rest(summary.path, part))
    tally = summary.tally
    rating = f"; mean rating of turns {tally.rating_sum / tally.ratings:.2f}" if tally.ratings else ""
    output.emit_text(f"{tally.turns} turns{rating}. Stored: {summary.path}")
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _show_rest(unseen: Rest | None) -> None:
    """Show what was said after the person's last word, or everything if they were never asked; and how it ended."""
    if unseen is None:
        return
    if not unseen.asked:
        output.warn("The conversation ended before it was your turn. This is all of it:\n")
    for speaker, text in unseen.messages:
        output.warn(f"{speaker}: {output.plain(text)}\n")
    output.warn(f"The conversation ended: {unseen.reason}.\n")
