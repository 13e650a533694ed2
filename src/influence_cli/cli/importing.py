"""``influence import``: conversations that somebody else made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.errors import EXIT_FAILURES, InfluenceError

if TYPE_CHECKING:
    from influence_cli.store.imports.conversation import ImportReport
    from influence_cli.store.run_directory import RunDirectory

_MOST_TOLD = 5
_ALLOWED_SHARE = 0.1


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="A trajectory table (Parquet, JSON lines, pickle), an export of ours, or an Inspect log (.json, .eval).",
            exists=True,
            dir_okay=False,
        ),
    ],
    env: Annotated[
        str | None, typer.Option("--env", help="Name of the environment; else from the file, or its name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; else runs/NAME-OF-THE-FILE.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was read, as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings.")] = False,
) -> None:
    """Read other people's conversations into a run, on which every command then works.

    Importing a file again changes nothing. No code in a file is ever run: a pickle that holds more than a table is refused.
    """
    from itertools import chain

    from influence_cli.store.imports.conversation import Conversation, ImportReport, store_conversations
    from influence_cli.store.imports.files import digest_of, environment_of, read_conversations

    output.set_quiet(quiet)
    report = ImportReport()
    found = read_conversations(file, env, report)
    first = next(found, None)
    if first is None:
        raise InfluenceError(f"{file} holds no conversation.")
    digest = digest_of(file)
    environment = first.record.key.environment if isinstance(first, Conversation) else env or environment_of(file)
    directory = _directory(out, file, environment)
    with directory.writer() as writer:
        store_conversations(chain([first], found), writer, report)
        writer.add_event("import", {"file": file.name, "sha256": digest, "conversations": report.conversations})
        writer.set_state("done")
    if json:
        output.emit_json({"schema": "influence.import/1", "run": str(directory.path), "sha256": digest, **vars(report)})
    else:
        _show(report, directory)
    if len(report.refused) > _ALLOWED_SHARE * report.total:
        raise typer.Exit(EXIT_FAILURES)


def _directory(out: Path | None, file: Path, environment: str) -> RunDirectory:
    """Return the run to import into: a new one, or an earlier import's."""
    from datetime import UTC, datetime

    from influence_cli.schemas.configs import RunManifest, SimulationConfig
    from influence_cli.store.run_directory import MANIFEST, RUNS, create_run, open_run

    path = out if out is not None else RUNS / file.name.rsplit(".", 1)[0]
    if (path / MANIFEST).is_file():
        directory = open_run(path)
        if directory.manifest.command != "import":
            raise InfluenceError(
                f"{path} is a run of `influence {directory.manifest.command}`.", hint="Name another directory: --out."
            )
        return directory
    manifest = RunManifest(
        run_id="",
        command="import",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=SimulationConfig(environments=(environment,)),
        argv=("import", file.name),
    )
    return create_run(path, manifest)


def _show(report: ImportReport, directory: RunDirectory) -> None:
    known = f", {report.known:,} were there already" if report.known else ""
    output.emit_text(f"{directory.path}: {report.conversations:,} conversations, {report.scores:,} scores{known}.")
    if report.metrics:
        output.emit_text(f"Metrics: {', '.join(report.metrics)}.")
    if report.failed:
        output.say(f"{report.failed:,} of the conversations had failed.")
    if report.unplaced:
        output.say(f"Columns without a place here: {', '.join(report.unplaced)}.")
    for line in report.refused[:_MOST_TOLD]:
        output.warn(f"Left out: {output.plain(line)}")
    if len(report.refused) > _MOST_TOLD:
        output.warn(f"... and {len(report.refused) - _MOST_TOLD:,} more.")
