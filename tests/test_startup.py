"""The command line starts fast, because it loads nothing heavy before it is needed."""

import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "textual", "pydantic", "aiohttp", "openai", "uvloop", "jinja2", "yaml", "asyncio")
MOST_SECONDS = 0.6
"""Of the processor, which a busy machine gives later but does not take longer for; twice what an idle one takes."""

LOADED = """
import sys, json
sys.argv = ["influence", "--help"]
from influence_cli.__main__ import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert "simulate" in done.stdout
    loaded = set(json.loads(done.stderr))
    assert [name for name in HEAVY if name in loaded] == []


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


def test_help_is_there_in_a_moment():
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "influence_cli", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < MOST_SECONDS


def test_ctrl_c_while_the_program_loads_leaves_no_traceback(monkeypatch):
    from influence_cli import __main__
    from influence_cli.cli import app

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "make_registry", interrupted)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 3
