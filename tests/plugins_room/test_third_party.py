"""A real distribution by somebody else, built and installed: its backend, environment and command work."""

import shutil
import subprocess
import sys

import pytest

from influence_cli.testing.backends import BackendConformance

FIXTURE = "tests/fixtures/influence-thirdparty"


@pytest.fixture(scope="module")
def third_party(tmp_path_factory, repository):
    """The folder that pip installed the built wheel into."""
    work = tmp_path_factory.mktemp("third-party")
    source, wheels, target = work / "source", work / "wheels", work / "site"
    shutil.copytree(repository / FIXTURE, source, ignore=shutil.ignore_patterns("__pycache__"))
    python = [sys.executable, "-m"]
    _run([*python, "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(source)])
    (wheel,) = wheels.glob("*.whl")
    pip = [*python, "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    _run([*pip, "--target", str(target), str(wheel)])
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_backend_is_listed_with_its_distribution(third_party, influence):
    answer = influence("plugins", "list", "--json", site=third_party)
    assert answer.code == 0
    assert answer.document["problems"] == []
    echo = next(each for each in answer.document["components"] if each["name"] == "echo")
    assert (echo["kind"], echo["distribution"], echo["version"]) == ("backend", "influence-thirdparty", "1.2.3")
    assert echo["state"] == "ok"


def test_its_command_runs(third_party, influence):
    answer = influence("hello", "--name", "Ada", site=third_party)
    assert (answer.code, answer.stdout, answer.stderr) == (0, "Hello, Ada.\n", "")


def test_its_environment_is_listed(third_party, influence):
    answer = influence("env", "list", "--json", site=third_party)
    names = {each["name"]: each["initial_states"] for each in answer.document["environments"]}
    assert names["greeting"] == 2


def test_its_scorer_scores(third_party, influence, tmp_path):
    run = str(tmp_path / "scored")
    influence("simulate", "--env", "greeting", "-m", "echo:x", "--n", "2", "--out", run, site=third_party)
    answer = influence("score", run, "--with", "signs:sign=o", "--json", site=third_party)
    assert answer.code == 0, answer.stderr
    (figures,) = answer.document["figures"]
    assert (figures["rubric"], figures["judge"], figures["method"]) == ("signs", "signs", "computed")


def test_its_backend_talks_in_its_environment(third_party, influence, tmp_path):
    arguments = ("--env", "greeting", "-m", "echo:x", "--n", "2", "-o", "prefix=Heard", "--json")
    answer = influence("simulate", *arguments, "--out", str(tmp_path / "run"), site=third_party)
    assert answer.code == 0, answer.stderr
    assert answer.document["conversations"]["complete"] == 2
    versions = (tmp_path / "run" / "run.yaml").read_text()
    assert "influence-thirdparty: 1.2.3" in versions


class TestEchoConforms(BackendConformance):
    """The suite that plugin authors run passes for a plugin that uses nothing but the public face."""

    @pytest.fixture
    def backend(self, third_party, monkeypatch):
        monkeypatch.syspath_prepend(str(third_party))
        from influence_echo.backend import EchoBackend
        from influence_echo.options import EchoOptions

        return EchoBackend("x", EchoOptions())
