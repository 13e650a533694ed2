"""The wheel holds all it needs, and works from anywhere."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(repository)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_environments_plugins_and_types(wheel, repository):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {folder.parent.name for folder in (repository / "environments").glob("*/environment.yaml")}
    assert {f"influence_cli/_environments/{name}/environment.yaml" for name in shipped} <= names
    assert "influence_cli/scoring/rubrics/retrospective.yaml" in names
    source = repository / "src"
    data = [*source.glob("influence_cli/benchmarking/data/*"), *source.glob("influence_cli/scaffolding/templates/*/*")]
    assert len(data) > 10
    assert {str(path.relative_to(source)) for path in data} <= names
    assert len([name for name in names if name.startswith("influence_cli/_environments/therapy/scenarios/")]) == 16
    assert {"influence_cli/py.typed", "influence_openai/backend.py", "influence_transformers/backend.py"} <= names
    kernels = [*(repository / "plugins" / "influence_transformers" / "native").glob("*.[ch]")]
    assert len(kernels) > 1
    assert {f"influence_transformers/native/{path.name}" for path in kernels} <= names
    assert not [name for name in names if name.startswith(("tests/", "runs/", "docs/"))]
    metadata = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"influence_openai" in zipfile.ZipFile(wheel).read(metadata)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_runs_in_an_empty_environment_from_another_folder(wheel, repository, tmp_path):
    place = tmp_path / "empty"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    constraints = repository / "constraints.txt"
    install = [python, "-m", "pip", "install", "--quiet", "-c", constraints, wheel]
    subprocess.run(install, check=True, capture_output=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    work = tmp_path / "elsewhere"
    work.mkdir()

    def influence(*arguments: str) -> str:
        command = [place / "bin" / "influence", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=work).stdout

    environments = json.loads(influence("env", "list", "--json"))["environments"]
    assert {entry["name"]: entry["initial_states"] for entry in environments}["therapy"] == 256
    assert len(environments) == 12
    summary = json.loads(influence("simulate", "--env", "therapy", "--n", "4", "--model", "scripted:demo", "--json"))
    assert summary["conversations"]["complete"] == 4
    components = json.loads(influence("plugins", "list", "--json"))["components"]
    local = next(entry for entry in components if (entry["kind"], entry["name"]) == ("backend", "transformers"))
    assert local["state"] == "unavailable"
    assert local["mend"] == "pip install 'influence-cli[local]'"
