"""What a shell is offered: real names, in a moment."""

import json
import os
import subprocess
import sys

import pytest

from influence_cli.cli import completion
from influence_cli.plugins.registry import make_registry
from influence_cli.scoring.rubric_files import shipped_rubrics

HEAVY = ("torch", "transformers", "yaml", "jinja2", "aiohttp", "openai", "textual", "numpy")
"""Typer itself loads pydantic, to read arguments."""
TELLING = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["influence"]
from influence_cli.__main__ import main
main()
"""


@pytest.fixture
def completed(place):
    """Ask as bash does; return the words offered and the modules that were loaded for it."""

    def ask(line: str):
        words = line.split(" ")
        asked = {"_INFLUENCE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", TELLING], env={**os.environ, **asked}, capture_output=True, text=True, check=False
        )
        return done.stdout.split(), json.loads(done.stderr.splitlines()[-1])

    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("influence simulate --env ther", ["therapy"]),
        ("influence env show boo", ["booking"]),
        ("influence simulate --model scr", ["scripted:demo"]),
        ("influence score latest --with harm,decep", ["harm,deception"]),
        ("influence runs show ma", ["made"]),
        ("influence compare made lat", ["latest"]),
        ("influence train --from ma", ["made"]),
        ("influence report ./runs/m", ["./runs/made"]),
    ],
)
def test_names_are_offered_and_nothing_heavy_is_loaded(completed, place, line, offered):
    (place / "runs" / "made").mkdir(parents=True)
    (place / "runs" / "made" / "run.yaml").write_text("")
    found, loaded = completed(line)
    assert found == offered
    assert [name for name in HEAVY if name in loaded] == []


def test_rubrics_are_those_that_can_be_asked():
    assert set(completion.rubrics("")) - {"core", "computed", "environment"} == set(shipped_rubrics())


def test_backends_are_those_that_are_offered():
    known = {f"{offer.component.name}:" for offer in make_registry().offers("backend")}
    assert {f"{name.partition(':')[0]}:" for name in completion.models("")} == known


def test_environments_are_those_that_are_found(influence):
    listed = influence("env", "list", "--json").document["environments"]
    assert list(completion.environments("")) == [each["name"] for each in listed]


def test_a_path_is_followed_through_folders(place):
    (place / "more" / "deep").mkdir(parents=True)
    (place / "more" / "mine").mkdir()
    (place / "more" / "mine" / "environment.yaml").write_text("")
    assert list(completion.environments("more/")) == ["more/deep/", "more/mine"]
    assert list(completion.environments("nowhere/")) == []
    assert list(completion.runs("")) == []


@pytest.mark.parametrize(
    ("shell", "begins"),
    [("bash", "_influence_completion() {"), ("zsh", "#compdef influence"), ("fish", "complete --command influence ")],
)
def test_a_script_for_the_shell_can_be_shown(shell, begins):
    """The shell is named: which one is among the processes above depends on who runs the tests."""
    code = f"import sys; sys.argv = ['influence', '--show-completion', '{shell}']; from influence_cli.__main__ import main; main()"
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.lstrip().startswith(begins)
