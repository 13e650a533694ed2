"""``influence env preview``: the exact prompts of every role."""

from __future__ import annotations

from typing import Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Name
from influence_cli.cli.options import AnySeed, AsJson


def preview(
    ctx: typer.Context,
    name: Name,
    scenario: Annotated[str | None, typer.Option("--scenario", help="A scenario; else the first.")] = None,
    initial_state: Annotated[
        str | None, typer.Option("--initial-state", help="An initial state; else the first.")
    ] = None,
    population: Annotated[str | None, typer.Option("--population", help="A population; else the first.")] = None,
    cue: Annotated[str | None, typer.Option("--cue", help="stated, implied, arbitrary or none.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Only this role (repeatable).")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="In this state; else the start (repeatable).")
    ] = None,
    seed: AnySeed = 0,
    environments_dir: Folders = None,
    json: AsJson = False,
) -> None:
    """Show the prompts that the models would be asked; no model is."""
    from influence_cli.environments.preview import PREVIEWED, pick_episode, previews
    from influence_cli.errors import UnknownNameError
    from influence_cli.resolution import find_environments
    from influence_cli.schemas.records import CUES

    if cue is not None and cue not in CUES:
        raise UnknownNameError("cue", cue, CUES)
    for each in role or []:
        if each not in PREVIEWED:
            raise UnknownNameError("role", each, PREVIEWED)
    environment = find_environments(registry_of(ctx), [name], environments_dir or [])[0]
    episode = pick_episode(
        environment,
        scenario=scenario,
        initial_state=initial_state,
        population=population,
        cue=next((known for known in CUES if known == cue), None),
        seed=seed,
    )
    roles = [known for known in PREVIEWED if not role or known in role]
    found = list(previews(environment, episode, roles, state or []))
    record = episode.record
    if json:
        shown = [
            {"role": p.role, "state": p.state, "note": p.note or None, "choices": p.choices, "messages": p.messages}
            for p in found
        ]
        output.emit_json({"schema": "influence.env.preview/1", "episode": record, "prompts": shown})
        return
    key = record.key
    about = f"{key.scenario}/{key.initial_state}, {record.population or 'no population'}, cue {record.cue}"
    output.emit_text(f"{environment.name}: {about}")
    for asked in found:
        note = f" {asked.note}" if asked.note else ""
        output.emit_text(f"\n=== {asked.role}{note} in {asked.state}")
        for message in asked.messages:
            output.emit_text(f"--- {message.role}\n{message.content}")
            for call in message.tool_calls:
                output.emit_text(f"[calls {call.name} {call.arguments}]")
        if asked.choices:
            output.emit_text(f"--- choices: {', '.join(asked.choices)}")
