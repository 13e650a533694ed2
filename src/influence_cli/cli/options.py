"""Options that several commands have, each declared once; and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.errors import InfluenceError

WHAT, WHO, HOW, RUN = "What to simulate", "Models", "How", "The run"
"""Under which headings the help shows them."""

Env = Annotated[
    list[str] | None, typer.Option("--env", "-e", help="Environment: a name or a folder.", rich_help_panel=WHAT)
]
Scenario = Annotated[list[str] | None, typer.Option("--scenario", help="Only this scenario.", rich_help_panel=WHAT)]
Turns = Annotated[int | None, typer.Option("--turns", help="Most agent replies.", rich_help_panel=WHAT)]
Population = Annotated[
    list[str] | None,
    typer.Option("--population", help="Kinds of users: gameable=0.5,resilient=0.5.", rich_help_panel=WHAT),
]
Cue = Annotated[
    str | None, typer.Option("--cue", help="How they show: stated|implied|arbitrary|none.", rich_help_panel=WHAT)
]
Folders = Annotated[
    list[Path] | None, typer.Option("--environments-dir", help="A folder of environments.", rich_help_panel=WHAT)
]

User = Annotated[str | None, typer.Option("--user", help="Model of the user.", rich_help_panel=WHO)]
Preference = Annotated[str | None, typer.Option("--preference", help="Model that rates.", rich_help_panel=WHO)]
Transition = Annotated[str | None, typer.Option("--transition", help="Model that moves states.", rich_help_panel=WHO)]
Veto = Annotated[str | None, typer.Option("--veto", help="Model that finds harm.", rich_help_panel=WHO)]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Address of an OpenAI-compatible server.", rich_help_panel=WHO)
]
BackendOptions = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the backend.", rich_help_panel=WHO)
]

Temperature = Annotated[float | None, typer.Option("--temperature", help="Of agent and user.", rich_help_panel=HOW)]
MaxReplyTokens = Annotated[
    int | None, typer.Option("--max-reply-tokens", help="Of an agent's reply.", rich_help_panel=HOW)
]
NoVeto = Annotated[bool, typer.Option("--no-veto", help="Ask no veto model.", rich_help_panel=HOW)]
Concurrency = Annotated[int | None, typer.Option("--concurrency", help="Conversations at once.", rich_help_panel=HOW)]
Seed = Annotated[int | None, typer.Option("--seed", help="Of every random draw.", rich_help_panel=HOW)]
MaxCost = Annotated[float | None, typer.Option("--max-cost", help="Stop at this many dollars.", rich_help_panel=HOW)]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Stop at this many tokens.", rich_help_panel=HOW)]

Config = Annotated[list[Path] | None, typer.Option("--config", "-c", help="Settings in YAML.", rich_help_panel=RUN)]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="A setting: prices, judges.minimum_mass.", rich_help_panel=RUN)
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", rich_help_panel=RUN)]
Resume = Annotated[bool, typer.Option("--resume", help="Take a run up again.", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.", rich_help_panel=RUN)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=RUN)]

AsJson = Annotated[bool, typer.Option("--json", help="As JSON on stdout.")]
Server = Annotated[str | None, typer.Option("--base-url", help="Address of an OpenAI-compatible server.")]
ServerOptions = Annotated[list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the backend.")]
AnySeed = Annotated[int, typer.Option("--seed", help="From which every draw derives.")]

CONVERSATION_FLAGS = {
    "environments": "--env",
    "scenarios": "--scenario",
    "n": "--n",
    "samples": "--samples",
    "turns": "--turns",
    "populations": "--population",
    "cue": "--cue",
    "seed": "--seed",
    "concurrency": "--concurrency",
    "default.model": "--model",
    "roles.agent.model": "--agent",
    "roles.user.model": "--user",
    "roles.preference.model": "--preference",
    "roles.transition.model": "--transition",
    "roles.veto.model": "--veto",
    "default.options": "-o",
    "default.options.base_url": "--base-url",
    "default.sampling.temperature": "--temperature",
    "roles.agent.sampling.max_tokens": "--max-reply-tokens",
    "veto": "--no-veto",
    "budget.cost": "--max-cost",
    "budget.tokens": "--max-tokens",
}
"""Which flag sets which setting, in every command that has conversations."""


def fractions(texts: list[str] | None) -> dict[str, float] | None:
    """Return the fractions of ``name=share`` entries, comma-separated or repeated; a name alone has the whole."""
    if not texts:
        return None
    fractions: dict[str, float] = {}
    for entry in (part for text in texts for part in text.split(",")):
        name, separator, share = entry.partition("=")
        try:
            fractions[name.strip()] = float(share) if separator else 1.0
        except ValueError:
            raise InfluenceError(
                f"--population {entry!r} is not NAME=FRACTION.", hint="For instance gameable=0.5,resilient=0.5."
            ) from None
    return fractions


def backend_options(texts: list[str] | None, flag: str = "-o") -> dict[str, Any] | None:
    """Return the options of ``key=value`` entries; InfluenceError for one that is none."""
    from influence_cli.settings import parse_assignment

    return dict(parse_assignment(text, flag=flag) for text in texts or []) or None


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return those of ``values`` that were really given."""
    return {key: value for key, value in values.items() if value not in (None, {}, [])}
