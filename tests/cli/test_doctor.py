"""``influence doctor``: what is there, what is not, and nothing that is secret."""

import stat
import subprocess
import sys

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.sittings import doctor as checks
from influence_cli.testing.server import serve

HEAVY = ("torch", "transformers", "trl", "mlflow", "ray", "optuna", "openai", "pyarrow", "numpy", "textual")
MODULES = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from influence_cli.__main__ import main
main()
"""
HANGING = """
import asyncio, time
from influence_cli.backends.scripted import ScriptedBackend

async def generate(self, request):
    await asyncio.to_thread(time.sleep, 600)

ScriptedBackend.generate = generate
from influence_cli.__main__ import main
main()
"""


@pytest.fixture
def doctor(influence, monkeypatch, place):
    """The doctor, where some plugins are switched off."""
    monkeypatch.setenv("INFLUENCE_DISABLE_PLUGINS", "transformers,trl,trackers")
    monkeypatch.setattr(checks, "checked_gpus", lambda: {"state": "none", "gpus": [], "problem": None})

    def run(*arguments):
        answer = influence("doctor", *arguments, "--json")
        return answer, answer.document

    return run


@pytest.fixture
def without_skipped(monkeypatch):
    """Leave out what the fixture above skips: it would count as broken."""
    monkeypatch.setattr("influence_cli.sittings.doctor.plugin_facts", lambda registry: ([], []))


def test_versions_keys_folders_and_plugins_are_told(doctor, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-indeed")
    answer, document = doctor()
    assert document["schema"] == "influence.doctor/1"
    assert document["libraries"]["pydantic"]
    assert "ruff" not in document["libraries"]
    keys = {key["variable"]: key["set"] for key in document["keys"]}
    assert keys["OPENAI_API_KEY"] is True
    assert keys["HF_TOKEN"] is False
    assert "very-secret" not in answer.stdout + answer.stderr
    assert [(each["folder"], each["state"]) for each in document["folders"]] == [("runs", "ok"), ("cache", "ok")]
    assert {"backend", "scorer"} <= {each["kind"] for each in document["plugins"]["components"]}
    assert document["models"] == []


def test_what_is_skipped_counts_as_broken_with_its_mend(doctor):
    answer, document = doctor()
    assert answer.code == 1
    assert "plugin trl: switched off. Remove it from INFLUENCE_DISABLE_PLUGINS." in document["broken"]


def test_a_model_that_answers_is_well(doctor, without_skipped):
    answer, document = doctor("--model", "scripted:demo")
    assert answer.code == 0, document["broken"]
    (model,) = document["models"]
    assert (model["state"], model["problem"]) == ("ok", None)
    assert model["tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("-m", "scripted:demo", "-o", "latency=50", "--seconds", "0.2"), "no answer within 0.2 s"),
        (("-m", "openai:gpt-4o-mini"), "OPENAI_API_KEY is not set"),
        (("-m", "nosuch:model"), "Unknown backend 'nosuch'"),
    ],
)
def test_a_model_that_cannot_answer_is_broken(doctor, without_skipped, arguments, problem):
    answer, document = doctor(*arguments)
    assert answer.code == 1
    assert problem in document["models"][0]["problem"]
    assert problem in document["broken"][0]


def test_models_of_settings_and_of_the_variable_are_asked_once(doctor, without_skipped, place, monkeypatch):
    (place / "mine.yaml").write_text("default: {model: 'scripted:demo'}\nroles:\n  user: {model: 'scripted:demo'}\n")
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    _, document = doctor("-c", "mine.yaml")
    assert [model["model"] for model in document["models"]] == ["scripted:demo"]


def test_a_folder_that_cannot_be_written_is_broken(doctor, without_skipped, place, monkeypatch):
    (place / "file").write_text("")
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(place / "file" / "cache"))
    answer, document = doctor()
    assert answer.code == 1
    assert "Set INFLUENCE_CACHE_DIR to a folder that can." in document["broken"][0]
    assert sorted(path.name for path in place.iterdir()) == ["file"]


def test_people_get_a_table(influence, without_skipped, monkeypatch):
    monkeypatch.setattr(checks, "checked_gpus", lambda: {"state": "none", "gpus": [], "problem": None})
    answer = influence("doctor", "-m", "scripted:demo")
    assert answer.code == 0
    rows = [line.split()[:2] for line in answer.stdout.splitlines()]
    assert ["accelerator", "none"] in rows
    assert ["model", "ok"] in rows


@pytest.mark.parametrize("listing", [("doctor",), ("env", "list"), ("plugins", "list")], ids=" ".join)
def test_a_line_in_a_pipe_is_as_long_as_what_it_says(influence, listing):
    lines = influence(*listing).stdout.splitlines()
    assert len(lines) > 5
    assert lines == [line.rstrip() for line in lines]


def test_what_was_found_is_shown_before_the_next_is_looked_for(influence, monkeypatch):
    def fail():
        raise InfluenceError("the disk is away")

    monkeypatch.setattr(checks, "checked_gpus", lambda: {"state": "none", "gpus": [], "problem": None})
    monkeypatch.setattr(checks, "checked_folders", fail)
    answer = influence("doctor")
    assert answer.code == 2
    assert [line.split()[0] for line in answer.stdout.splitlines() if line[0] != " "][:2] == ["influence", "libraries"]
    assert "plugins      ok" in answer.stdout


def test_libraries_are_looked_for_and_not_loaded_and_nothing_is_left_at_home(place):
    done = subprocess.run(
        [sys.executable, "-c", MODULES, "doctor"], capture_output=True, text=True, check=False, timeout=60
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert [name for name in HEAVY if name in loaded] == []
    assert "influence_cli.cli.doctor" in loaded
    assert list(place.iterdir()) == []


def test_a_call_that_fails_is_not_made_again_unless_asked_for(doctor, without_skipped, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with serve(models=["m"], faults={"server_error": 1.0}) as server:
        asked = ("-m", "openai:m", "--base-url", server.base_url)
        _, document = doctor(*asked)
        assert document["models"][0]["state"] == "broken"
        assert server.stats()["requests"] == 1
        server.reset()
        doctor(*asked, "-o", "max_attempts=2", "-o", "retry_delay=0")
        assert server.stats()["requests"] == 2


def test_a_model_that_hangs_in_a_thread_does_not_keep_the_process(place):
    command = [sys.executable, "-c", HANGING, "doctor", "-m", "scripted:demo", "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "scripted:demo: no answer within 0.2 s" in done.stdout


@pytest.fixture
def driver(place):
    """Write a program in place of the driver's own, and return its path."""

    def write(code: str) -> str:
        path = place / "nvidia"
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def test_accelerators_are_those_that_the_driver_lists(driver):
    found = checks.checked_gpus(driver("print('NVIDIA H100, 81559, 4, 570.1')"))
    assert found["state"] == "ok"
    assert found["gpus"] == [{"name": "NVIDIA H100", "memory_mib": 81559, "used_mib": 4, "driver": "570.1"}]


def test_a_driver_that_fails_or_hangs_is_told(driver, monkeypatch):
    failed = checks.checked_gpus(driver("import sys; sys.exit('no device')"))
    assert (failed["state"], "no device" in failed["problem"]) == ("broken", True)
    monkeypatch.setattr(checks, "_GPU_SECONDS", 0.3)
    hung = checks.checked_gpus(driver("import time; time.sleep(60)"))
    assert (hung["state"], "gave no answer" in hung["problem"]) == ("broken", True)
    assert checks.checked_gpus("no-such-program")["state"] == "none"
