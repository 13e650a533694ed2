"""A key stays in the environment: nothing that is written, said or passed to another process holds it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from influence_cli.testing.server import serve

VARIABLE = "CAMPUS_SERVER"
"""A name that does not sound like a key, so that only its having been read as one gives it away."""
KEYS = ["sk-proj-abcdef0123456789ABCDEF", '9f"c\\4a&b=d/e+f==', "correct horse battery staple"]
TELLTALE = """
import os, sys

def told(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        with open(os.environ["TELLTALE"], "a") as file:
            file.write(repr(arguments[1]) + "\\n")

sys.addaudithook(told)
"""


class Watched:
    """Commands in a folder of their own, with a key in their environment, and everything that they leave behind."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(TELLTALE)
        self.said: list[bytes] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "INFLUENCE_"))}
        self.environment = {
            **kept,
            VARIABLE: key,
            "HOME": str(folder),
            "TELLTALE": str(folder / "children.txt"),
            "PYTHONPATH": str(folder / "watch"),
        }

    def run(self, *arguments: object, code: int = 0) -> bytes:
        command = [sys.executable, "-m", "influence_cli", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, check=False)
        assert done.returncode == code, (arguments, done.stderr.decode())
        self.said += [done.stdout, done.stderr]
        return done.stderr

    def leaks(self) -> list[str]:
        """Return where the key stands, as it is or as a file would write it."""
        forms = {self.key, json.dumps(self.key)[1:-1], repr(self.key)[1:-1], quote(self.key, safe="")}
        texts = {f"output {number}": said for number, said in enumerate(self.said)}
        texts |= {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        return [name for name, text in texts.items() if any(form.encode() in text for form in forms)]


@pytest.fixture(params=KEYS, ids=["usual", "odd", "words"])
def watched(tmp_path, request):
    return Watched(tmp_path, request.param)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_step_from_simulation_to_picture_lets_the_key_out(tmp_path, tiny_folder):
    watched = Watched(tmp_path, KEYS[1])
    with serve() as server:
        server.configure(api_key=watched.key, faults={"server_error": 0.2, "malformed": 0.1}, retry_after=0.01)
        model = ("--base-url", server.base_url, "-o", f"api_key_env={VARIABLE}", "--concurrency", "8")
        simulation = ("--env", tiny_folder, "-m", "openai:test-model", *model)
        watched.run(
            "simulate", *simulation, "--n", "4", "--turns", "2", "--out", "runs/a", "--set", "max_failed_share=1"
        )
        watched.run(
            "score", "runs/a", "--judge", "openai:test-model", *model, "--with", "harm", "--max-failed-share", "1"
        )
        server.configure(faults={})
        learning = ["--algo", "openai-finetune", "--iterations", "1", "--samples", "8", "--top", "1/2"]
        for option in (f"base_url={server.base_url}", f"api_key_env={VARIABLE}", "poll=0.01"):
            learning += ["--algo-option", option]
        watched.run("train", *simulation, *learning, "--out", "runs/b")
    watched.run("report", "runs/b", "--out", "report.html")
    watched.run("export", "runs/a", "--to", "jsonl", "--out", "a.jsonl")
    watched.run("view", "runs/a", "--export-svg", "a.svg")
    for command in (("runs", "show", "runs/b"), ("runs", "show", "runs/a", "--json"), ("runs", "list")):
        watched.run(*command)
    assert (tmp_path / "a.svg").is_file()
    assert "'git'" in (tmp_path / "children.txt").read_text()
    assert watched.leaks() == []


def test_a_server_that_repeats_the_key_in_its_errors_lets_nothing_out(watched, tiny_folder):
    with serve() as server:
        server.configure(api_key="another")
        model = ("-m", "openai:test-model", "--base-url", server.base_url, "-o", f"api_key_env={VARIABLE}")
        said = watched.run("simulate", "--env", tiny_folder, *model, "--n", "2", "--out", "runs/a", code=2)
        assert VARIABLE.encode() in said
    watched.run("runs", "show", "runs/a")
    assert watched.leaks() == []


@pytest.mark.parametrize(
    "given",
    [
        ("-o", "api_key={}"),
        ("-o", "extra_body={{user: '{}'}}"),
        ("-o", "organisation={}"),
        ("--set", "roles.agent.options.password={}"),
        ("--base-url", "http://127.0.0.1:9/v1?api_key={}"),
        ("--base-url", "http://me:{}@127.0.0.1:9/v1"),
    ],
)
def test_a_key_among_the_settings_is_refused_and_nothing_is_made(own_server, given, tiny_folder):
    watched = own_server
    flag, value = given
    simulation = ("--env", tiny_folder, "-m", "openai:test-model", "-o", "api_key_env=SOME_KEY", "--out", "runs/a")
    said = watched.run("simulate", *simulation, flag, value.format(watched.key), code=2)
    assert said.count(b"\n") == 1, said
    assert not (watched.folder / "runs").exists()
    assert watched.leaks() == []


@pytest.fixture
def own_server(tmp_path):
    watched = Watched(tmp_path, "my-own-server-2026")
    watched.environment["SOME_KEY"] = watched.key
    return watched


def test_the_traceback_of_a_bug_holds_no_key(watched):
    code = (
        "import os, sys; from influence_cli import __main__ as m; from influence_cli.cli import app; "
        "from influence_cli.api import remember_secret as r; r(os.environ['CAMPUS_SERVER']); "
        "app.build_command = lambda: (lambda: open(os.environ['CAMPUS_SERVER'])); m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=watched.folder, env=watched.environment, capture_output=True, check=False
    )
    watched.said += [done.stderr]
    assert done.returncode == 1
    assert b"FileNotFoundError" in done.stderr
    assert b"***" in done.stderr
    assert watched.leaks() == []


def test_the_log_of_a_run_holds_no_key(watched, monkeypatch):
    import logging

    from influence_cli.cli import output
    from influence_cli.sittings.logs import logged

    monkeypatch.setenv("SOME_KEY", watched.key)
    with logged(watched.folder / "logs", output.say):
        try:
            raise ValueError(f"refused: {watched.key}")
        except ValueError:
            logging.getLogger("any").exception("A backend failed")
    assert "ValueError: refused: ***" in (watched.folder / "logs" / "influence.log").read_text()
    assert watched.leaks() == []
