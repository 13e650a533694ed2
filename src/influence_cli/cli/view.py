"""``influence view``: read conversations in the terminal, or in a browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.errors import InfluenceError, UnknownNameError

if TYPE_CHECKING:
    from influence_cli.environments.environment import Environment
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.schemas.rubrics import Rubric
    from influence_cli.viewer.app import EnvironmentsOf, ViewerOptions
    from influence_cli.viewer.screens.sweep import SweepOf

_LABELS, _WEB, _PICTURE = "Labels", "In a browser", "As a picture"


def view(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs (a directory, a name, latest), folders of runs, or a sweep; none: runs."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare the two runs that are named.")] = False,
    query: Annotated[str, typer.Option("--query", help="Show only these: 'rating>8 and veto>0.5'.")] = "",
    conversation: Annotated[int | None, typer.Option("--conversation", min=1, help="Open this conversation.")] = None,
    theme: Annotated[str, typer.Option("--theme", help="dark, light or contrast.")] = "dark",
    author: Annotated[
        str | None, typer.Option("--author", help="Who labels; else your user name.", rich_help_panel=_LABELS)
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide what models said of the replies.", rich_help_panel=_LABELS)
    ] = False,
    rubric: Annotated[
        list[Path] | None, typer.Option("--rubric", help="A file of rubrics to label by.", rich_help_panel=_LABELS)
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--with", help="Rubrics or tags to label by.", rich_help_panel=_LABELS)
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve it to a browser.", rich_help_panel=_WEB)] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_WEB)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.", rich_help_panel=_WEB)] = 0,
    expose: Annotated[
        bool, typer.Option("--expose", help="Allow a --host that others can reach.", rich_help_panel=_WEB)
    ] = False,
    export_svg: Annotated[
        Path | None, typer.Option("--export-svg", help="Write the screen to this file.", rich_help_panel=_PICTURE)
    ] = None,
    size: Annotated[str, typer.Option(help="Columns x rows.", rich_help_panel=_PICTURE)] = "140x45",
    press: Annotated[str, typer.Option(help="Keys to press before: w,enter,i.", rich_help_panel=_PICTURE)] = "",
) -> None:
    """Look at runs: their conversations, distributions and scores; compare, label, follow them live.

    Press ? for every key.
    """
    _require_textual()
    options = _options(
        ctx, runs or [], compare=compare, query=query, conversation=conversation, theme=theme, author=author, blind=blind,
        rubric=rubric or [], names=names or [],
    )  # fmt: skip
    if web:
        _serve(host, port, expose=expose)
        return
    if export_svg is not None:
        from influence_cli.viewer.picture import save_picture

        save_picture(options, export_svg, size=_size(size), keys=[key for key in press.split(",") if key])
        output.say(f"The screen is in {export_svg}.")
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        raise InfluenceError("influence view needs a terminal.", hint="Or: --web, --export-svg FILE, runs show.")
    from influence_cli.viewer.app import ViewerApp

    ViewerApp(options).run()


def _require_textual() -> None:
    from importlib.util import find_spec

    if find_spec("textual") is None:
        raise InfluenceError("influence view needs textual.", hint="pip install 'influence-cli[view]'")


def _options(
    ctx: typer.Context,
    runs: list[str],
    *,
    compare: bool,
    query: str,
    conversation: int | None,
    theme: str,
    author: str | None,
    blind: bool,
    rubric: list[Path],
    names: list[str],
) -> ViewerOptions:
    from influence_cli.store.run_directory import RUNS
    from influence_cli.viewer.app import ViewerOptions
    from influence_cli.viewer.themes import NAMES

    if theme not in NAMES:
        raise UnknownNameError("theme", theme, NAMES)
    sweep = _sweep(ctx, runs)
    folders, paths = ([], []) if sweep is not None else _places(runs)
    if compare and len(paths) != 2:
        raise InfluenceError("--compare needs two runs.", hint="influence view --compare RUN RUN")
    alone = len(paths) == 1 and not folders
    if (query or conversation) and not alone:
        raise InfluenceError("--query and --conversation need one run.", hint="influence view RUN --query ...")
    if alone:
        _refuse_unknown(paths[0], query, conversation)
    rubrics = _rubrics(names, rubric)
    if names or rubric:
        rubrics()
    return ViewerOptions(
        folders=tuple(folders) if runs else (RUNS,),
        paths=tuple(paths),
        open=paths[0] if alone else None,
        sweep=sweep,
        compare=(paths[0], paths[1]) if compare else None,
        conversation=conversation,
        query=query,
        theme=NAMES[theme],
        author=author or _own_name(),
        blind=blind,
        environments_of=_environments_of(registry_of(ctx)),
        rubrics=rubrics,
    )


def _refuse_unknown(path: Path, query: str, conversation: int | None) -> None:
    """Raise InfluenceError for a query that cannot be read, or a conversation that the run has not."""
    from influence_cli.store.filter_language import QueryError
    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import open_run
    from influence_cli.store.trajectory_table import TrajectoryTable

    try:
        TrajectoryTable.read(query)
    except QueryError as error:
        raise InfluenceError(f"--query {query!r}, {error}") from None
    if conversation is not None:
        with RunReader(open_run(path)) as reader:
            reader.trajectory(conversation)


def _own_name() -> str:
    """Return who uses this process: by name, or by number where the machine has no name for it, as in a container."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user-{os.getuid()}"


def _rubrics(names: list[str], files: list[Path]) -> Callable[[], Sequence[Rubric]]:
    """Return what reads the rubrics to label by, once, when they are wanted."""

    @cache
    def read() -> Sequence[Rubric]:
        from influence_cli.scoring.rubric_files import pick_rubrics
        from influence_cli.viewer.widgets.label_bar import OVERALL

        return (OVERALL, *pick_rubrics(names or ([] if files else ["core"]), files))

    return read


def _sweep(ctx: typer.Context, names: list[str]) -> SweepOf | None:
    """Return what reads the sweep that is named; None where runs are."""
    from functools import partial

    from influence_cli.sittings.sweep.figures import document_of
    from influence_cli.store.run_directory import RUNS
    from influence_cli.sweeps.directory import is_sweep, open_sweep

    found = [path for name in names for path in (Path(name), RUNS / name) if is_sweep(path)]
    if not found:
        return None
    if len(names) > 1:
        raise InfluenceError("A sweep is looked at by itself.", hint=f"influence view {found[0]}")
    return partial(document_of, registry_of(ctx), open_sweep(found[0]), None)


def _places(runs: list[str]) -> tuple[list[Path], list[Path]]:
    """Return the folders of runs, and the runs, that are named."""
    from contextlib import suppress

    from influence_cli.sittings.opening import tell_unmerged
    from influence_cli.store.run_directory import MANIFEST, find_run, open_run, run_directories

    folders: list[Path] = []
    paths: list[Path] = []
    for name in runs:
        path = Path(name)
        if path.is_dir() and not (path / MANIFEST).is_file() and (run_directories(path) or not any(path.iterdir())):
            folders.append(path)
        else:
            paths.append(find_run(name))
            with suppress(InfluenceError):  # what is wrong with the run is said on its screen
                tell_unmerged(open_run(paths[-1]), output.warn)
    return folders, paths


def _environments_of(registry: PluginRegistry) -> EnvironmentsOf:
    """Return what finds the environments of a run; the viewer asks it for prompts, and only then."""
    from influence_cli.resolution import find_environments
    from influence_cli.store.run_directory import open_run

    known: dict[Path, dict[str, Environment]] = {}

    def found(path: Path) -> dict[str, Environment]:
        if path not in known:
            names = open_run(path).manifest.config.environments
            known[path] = {each.name: each for each in find_environments(registry, names)}
        return known[path]

    return found


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.lower().partition("x")
    if not (columns.isdigit() and rows.isdigit() and 20 <= int(columns) <= 500 and 8 <= int(rows) <= 300):
        raise InfluenceError(f"--size {text!r} is not COLUMNSxROWS.", hint="For instance 140x45.")
    return int(columns), int(rows)


def _serve(host: str, port: int, *, expose: bool) -> None:
    from importlib.util import find_spec

    if find_spec("textual_serve") is None:
        raise InfluenceError("--web needs textual-serve.", hint="pip install 'influence-cli[view]'")
    from influence_cli.viewer.serving import is_loopback, serve

    if not is_loopback(host):
        if not expose:
            raise InfluenceError(
                f"{host} can be reached from other machines.",
                hint="Add --expose if that is what you want; without TLS everybody on the way can read along.",
            )
        output.warn(f"Warning: {host} can be reached from other machines, and nothing is encrypted.")
    command = [sys.executable, "-m", "influence_cli", *_without_web(sys.argv[1:])]
    serve(command, host, port, lambda address: output.tell_address(f"Open this address; it works once: {address}"))


def _without_web(arguments: list[str]) -> list[str]:
    """Return the command line without what is about serving."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--host", "--port"):
            skip = True
        elif argument not in ("--web", "--expose") and not argument.startswith(("--host=", "--port=")):
            kept.append(argument)
    return kept
