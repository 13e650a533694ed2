"""The command line in this process, in an empty working directory and home."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from influence_cli.cli import output
from influence_cli.cli.app import build_app
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

JUDGE = ("--judge", "scripted:demo")
RATES_SHORT = """
choices:
  - {role: preference, reply: '(?s)^(?:\\S+\\s+){0,19}\\S+$', weights: {"10": 1}}
  - {role: preference, weights: {"2": 1}}
  - {role: veto, weights: {"0": 1}}
"""
"""A rater with a known optimum: replies of at most twenty words."""
BRIEF = ("--samples", "4", "--turns", "1", "--no-veto", "--set", "evaluation.samples=8")
SMALL = (*BRIEF, "--iterations", "3")
"""Settings of a training that is over in a moment: without its iterations, and of three."""


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said; ``exception`` is a bug that escaped."""

    code: int
    stdout: str
    stderr: str
    exception: BaseException | None

    @property
    def document(self):
        return json.loads(self.stdout)


def rows(run, sql: str) -> list[tuple]:
    """What ``sql`` finds in the run in the folder ``run``."""
    with RunReader(open_run(run)) as reader:
        return [tuple(row) for row in reader.rows(sql)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """An empty working directory and home, and no variable that this program or a server reads."""
    for name in list(os.environ):
        if name.startswith(("INFLUENCE_", "OPENAI_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(output, "_quiet", False)
    return folder


@pytest.fixture
def influence(monkeypatch):
    """Run the command line; a bug is raised unless ``bugs`` allows it."""

    def run(*arguments: object, answers: str | None = None, bugs: bool = False) -> Answer:
        given = [str(argument) for argument in arguments]
        output.set_quiet(False)
        monkeypatch.setattr(sys, "argv", ["influence", *given])
        result = CliRunner().invoke(build_app(), given, input=answers)
        bug = None if isinstance(result.exception, SystemExit) else result.exception
        if bug is not None and not bugs:
            raise bug
        return Answer(result.exit_code, result.stdout, result.stderr, bug)

    return run


@pytest.fixture
def begin(place):
    """Start a command of the program in a process of its own; one that still runs when the test is over is killed."""
    started = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "influence_cli", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def simulate(influence, tiny_folder):
    """Simulate in the tiny environment with the scripted model; it is over in a moment."""

    def run(*arguments: object) -> Answer:
        return influence("simulate", "--env", tiny_folder, "-m", "scripted:demo", *arguments)

    return run


@pytest.fixture
def made_run(simulate, place) -> Path:
    """A run of eight conversations, called ``made`` in the folder ``runs``."""
    answer = simulate("--n", "8", "--out", "runs/made", "--quiet")
    assert answer.code == 0, answer.stderr
    return place / "runs" / "made"


@pytest.fixture
def script(place):
    """Write a script for the scripted model and return the model's name."""

    def write(text: str, name: str = "script.yaml") -> str:
        (place / name).write_text(text)
        return f"scripted:{place / name}"

    return write


@pytest.fixture
def train(influence, tiny_folder, script):
    """Train in the tiny environment by heart; it is over in a moment."""
    rater = script(RATES_SHORT, "rater.yaml")

    def run(*arguments: object, algo="scripted", more=SMALL):
        fixed = ("--env", tiny_folder, "-m", "scripted:demo", "--preference", rater, "--algo", algo, *more)
        return influence("train", *fixed, *arguments)

    return run


@pytest.fixture
def trained(train, place):
    """What ``influence train`` says of three iterations, called ``made``."""
    answer = train("--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    return answer.document
