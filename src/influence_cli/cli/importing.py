"""``influence import``: conversations that somebody else made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output


def import_file(
    file: Annotated[
        Path, typer.Argument(help="A trajectory table: Parquet or JSON lines.", exists=True, dir_okay=False)
    ],
    env: Annotated[
        str | None, typer.Option("--env", help="Name of the environment; else from the file's name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was read, as JSON on stdout.")] = False,
) -> None:
    """Read trajectory tables of the published project (arXiv 2411.02306) into a run.

    After that every command works on them. A pickle is never opened.
    """
    from datetime import UTC, datetime

    from influence_cli.errors import InfluenceError
    from influence_cli.schemas.configs import RunManifest, SimulationConfig
    from influence_cli.store.run_directory import create_run
    from influence_cli.store.tables import import_rows, read_rows

    environment = env or file.stem.split("-")[0]
    rows = read_rows(file)
    first = next(rows, None)
    if first is None:
        raise InfluenceError(f"{file} holds no row.")
    manifest = RunManifest(
        run_id="",
        command="import",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=SimulationConfig(environments=(environment,)),
        argv=("import", file.name),
    )
    directory = create_run(out, manifest)
    with directory.writer() as writer:
        report = import_rows(_with(first, rows), environment, writer)
        writer.set_state("done")
    if json:
        output.emit_json({"schema": "influence.import/1", "run": str(directory.path), **vars(report)})
        return
    output.emit_text(f"{directory.path}: {report.trajectories:,} conversations, {report.scores:,} scores.")
    output.emit_text(f"Metrics: {', '.join(report.metrics) or 'none'}.")
    if report.unplaced:
        output.emit_text(f"Columns without a place here: {', '.join(report.unplaced)}.")
    for line in report.refused[:5]:
        output.warn(f"Left out: {line}")
    if len(report.refused) > 5:
        output.warn(f"... and {len(report.refused) - 5} more rows.")


def _with(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from itertools import chain

    return chain([first], rest)
