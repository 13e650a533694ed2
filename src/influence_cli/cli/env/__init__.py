"""``influence env``: everything about environments, one module a command."""

from __future__ import annotations

import typer

from influence_cli.cli.env.audit import audit
from influence_cli.cli.env.generation import generate
from influence_cli.cli.env.importing import import_environment
from influence_cli.cli.env.listing import list_environments, show
from influence_cli.cli.env.play import play
from influence_cli.cli.env.preview import preview
from influence_cli.cli.env.scaffold import new
from influence_cli.cli.env.validation import validate

app = typer.Typer(help="List, show, check, write, try and import environments.", no_args_is_help=True)
app.command("list")(list_environments)
app.command()(show)
app.command()(validate)
app.command()(preview)
app.command()(new)
app.command()(play)
app.command()(generate)
app.command("import")(import_environment)
app.command()(audit)
