"""The command line starts fast, because it loads nothing heavy before it is needed."""

import json
import resource
import signal
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "textual", "pydantic", "aiohttp", "openai", "uvloop", "jinja2", "yaml", "asyncio")
BARE = "import typer; app = typer.Typer(); [app.command(name)(lambda: None) for name in ('one', 'two')]; app()"
MOST = 2.4
"""Times the processor time of a program that does nothing but show its help; 1.6 were seen, 0.3 s on an idle machine."""

LOADED = """
import sys, json
sys.argv[0] = "influence"
from influence_cli.__main__ import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded_by(*arguments):
    """Return what a command says, and the modules that it loads."""
    command = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_heavy():
    said, loaded = loaded_by("--help")
    assert "simulate" in said
    assert [name for name in HEAVY if name in loaded] == []


def test_a_command_loads_no_other():
    said, loaded = loaded_by("models", "list", "--json")
    assert "influence.models.list/1" in said
    modules = {f"influence_cli.cli.{name}" for name in ("models", "simulate", "train", "runs", "env", "score", "view")}
    assert modules & loaded == {"influence_cli.cli.models"}


@pytest.mark.parametrize(
    "name",
    [
        "influence_hub",
        "influence_inspect",
        "influence_openai",
        "influence_optuna",
        "influence_transformers",
        "influence_trackers",
        "influence_cli.api",
    ],
)
def test_a_plugins_module_loads_nothing_heavy(name):
    code = f"import sys, json, {name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [heavy for heavy in HEAVY if heavy in json.loads(done.stdout)] == []


def processor_seconds(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command, "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_there_in_a_moment():
    taken = [(processor_seconds("-m", "influence_cli"), processor_seconds("-c", BARE)) for _ in range(5)]
    ours, bare = map(min, zip(*taken, strict=True))
    assert ours < MOST * bare


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["influence_cli.cli.app.make_registry", "typer.main.get_command"])
def test_a_signal_while_the_program_starts_ends_it_in_one_line(where, number):
    module, _, name = where.rpartition(".")
    # Short sleeps: a signal between two instructions is heard after the next one, however long that takes.
    slow = "lambda *_: (print(1, flush=True), [time.sleep(0.05) for _ in range(2400)])"
    code = f"import sys, time, influence_cli.cli.app, {module}; {module}.{name} = {slow}; "
    code += "from influence_cli.__main__ import main; sys.argv = ['influence', 'runs', 'list']; main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        try:
            assert process.stdout.readline() == "1\n"
            process.send_signal(number)
            _, stderr = process.communicate(timeout=100)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (3, "Stopped before anything was begun.\n")
