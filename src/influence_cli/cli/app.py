"""The command line's frame: commands, plugins' commands, and how errors end the process.

Invariant: a mistake of the user's ends in one line on stderr and its exit code; a bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from influence_cli import __version__
from influence_cli.cli import output
from influence_cli.errors import EXIT_DONE, EXIT_USER, InfluenceError
from influence_cli.plugins.loading import Plugin, told
from influence_cli.plugins.registry import PluginRegistry, make_registry
from influence_cli.sittings.stops import StoppedError

_BROKEN_PIPE = 141
_COMMANDS = {
    "simulate": "simulate:simulate",
    "train": "train:train",
    "report": "report:report",
    "compare": "compare:compare",
    "view": "view:view",
    "sweep": "sweep:app",
    "score": "score:app",
    "bench": "bench:app",
    "env": "env:app",
    "runs": "runs:app",
    "import": "importing:import_file",
    "export": "export:export",
    "jobs": "jobs:app",
    "models": "models:app",
    "plugins": "plugins:app",
    "doctor": "doctor:doctor",
}
"""Our commands in the order of the help: each a function, or a group, of a module beside this one."""


class _ReaderGoneError(Exception):
    """Whoever read stdout has stopped reading."""


class ErrorLineGroup(TyperGroup):
    """A group that ends every expected error in one line; it also does so under Typer's test runner."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that ``args`` name; SystemExit with its code unless ``standalone_mode`` is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            try:
                code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            finally:
                sys.stdout.flush()
        except StoppedError as stop:
            _leave(str(stop), stop.exit_code)
        except InfluenceError as error:
            _end(str(error), error.exit_code)
        except typer.Abort:
            _leave(str(StoppedError()), StoppedError.exit_code)
        except (_ReaderGoneError, BrokenPipeError):
            _give_up_stdout()
            sys.exit(_BROKEN_PIPE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _give_up_stdout()
            _end("The disk is full: what was being written is not whole. Free some space.", EXIT_USER)
        except Exception as error:
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            text = " ".join((_meant(error) or str(message())).split())
            if text:
                _end(text, EXIT_USER)
            sys.exit(EXIT_USER)
        sys.exit(code if isinstance(code, int) else EXIT_DONE)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Return the context of a command line, read; help and version are shown here."""
        if extra.get("resilient_parsing"):  # a shell asks what could stand there
            from influence_cli.cli.completion import complete

            complete(self)
        with _ends_of_ours():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that ``ctx`` holds."""
        with _ends_of_ours():
            return super().invoke(ctx)


@contextmanager
def _ends_of_ours() -> Iterator[None]:
    """Turn what Typer would end by codes of its own into errors of ours."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError from None
    except BrokenPipeError:
        raise _ReaderGoneError from None


def _meant(error: Exception) -> str | None:
    """Return what is said of a flag that is none but is like another; None for any other mistake."""
    flag, known = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if flag is None or not known:
        return None
    return f"No such option: {output.plain(flag)}. Did you mean {get_close_matches(flag, known, 1, 0.0)[0]!r}?"


def _give_up_stdout() -> None:
    """Let what could not be written to stdout go nowhere: it would be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(message: str, code: int) -> None:
    _leave(f"error: {message}", code)


def _leave(message: str, code: int) -> None:
    output.warn(message)
    sys.exit(code)


def build_app(named: str | None = None) -> typer.Typer:
    """Return the command line with the commands of every sound plugin.

    Where ``named`` is a command of ours, it is the only one of them: another is not asked for, and takes time to import.
    """
    registry = make_registry()
    app = typer.Typer(
        name="influence",
        cls=ErrorLineGroup,
        help="Does this language model learn to influence the people it talks to?",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def start(
        ctx: typer.Context,
        version: Annotated[  # noqa: ARG001 - its callback does the work
            bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        ctx.obj = registry

    for name in [named] if named in _COMMANDS else _COMMANDS:
        _add_command(app, name)
    _read_annotations(app)
    _add_plugin_commands(app, registry)
    return app


def build_command() -> Any:
    """Return the command line ready to be run; SystemExit with its code when it has been."""
    return typer.main.get_command(build_app(sys.argv[1] if len(sys.argv) > 1 else None))


def _add_command(app: typer.Typer, name: str) -> None:
    module, _, attribute = _COMMANDS[name].partition(":")
    found = getattr(import_module(f"influence_cli.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
    else:
        app.command(name)(found)


def _read_annotations(app: typer.Typer) -> None:
    """Turn the annotations of every command from text into types: Typer would do so four times."""
    for info in (*app.registered_commands, app.registered_callback):
        if info is not None and info.callback is not None:
            info.callback.__annotations__ = get_type_hints(info.callback, include_extras=True)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _read_annotations(group.typer_instance)


def _add_plugin_commands(app: typer.Typer, registry: PluginRegistry) -> None:
    """Add what plugins bring; commands that cannot be added are recorded as their plugin's problem."""
    taken = set(_COMMANDS)
    for plugin, own in registry.commands(typer.Typer):
        problem = _command_problem(own, taken)
        if problem is not None:
            mend = f"Upgrade it, or: pip uninstall {plugin.distribution}"
            registry.record_problem(Plugin(plugin.name, plugin.distribution, plugin.version, problem, mend))
            continue
        taken |= _names(own)
        app.registered_commands.extend(own.registered_commands)
        app.registered_groups.extend(own.registered_groups)


def _command_problem(own: typer.Typer, taken: set[str]) -> str | None:
    """Return why the commands in ``own`` cannot be added, if they cannot; Typer itself looks at them only when run."""
    try:
        clash = sorted(taken & _names(own))
        if clash:
            return f"its command {clash[0]!r} exists already"
        if own.registered_commands or own.registered_groups:
            typer.main.get_command(own)
    except Exception as error:  # noqa: BLE001 - whatever a plugin's command does wrong is its own problem
        return f"its commands cannot be built: {told(error)}"
    return None


def _names(app: typer.Typer) -> set[str]:
    commands = {
        str(info.name or getattr(info.callback, "__name__", "").replace("_", "-")) for info in app.registered_commands
    }
    groups = {
        str(info.name or (info.typer_instance and info.typer_instance.info.name)) for info in app.registered_groups
    }
    return commands | groups


def _show_version(value: bool) -> None:
    if value:
        output.emit(f"influence {__version__}")
        raise typer.Exit
