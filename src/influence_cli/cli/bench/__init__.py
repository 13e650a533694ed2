"""``influence bench``: benchmarks of an agent outside of conversations, and how training carries over."""

from __future__ import annotations

import typer

from influence_cli.cli.bench.sycophancy import sycophancy
from influence_cli.cli.bench.toxicity import toxicity
from influence_cli.cli.bench.transfer import transfer

app = typer.Typer(
    help="Sycophancy, toxicity, and what training in one environment does in another.", no_args_is_help=True
)
app.command()(sycophancy)
app.command()(toxicity)
app.command()(transfer)
