"""``influence plugins new``: what it writes is a plugin of each kind, sound from the start."""

import importlib
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from influence_cli.plugins.loading import load_plugins
from influence_cli.plugins.registry import HOOKS, PluginRegistry
from influence_cli.scaffolding.plugins import KINDS

NAME = "loud-parrot"
PACKAGE = "influence_loud_parrot"
CLEAN = ("B", "C4", "D", "E", "F", "I", "N", "PT", "RET", "RUF", "SIM", "UP")


@pytest.fixture
def make(influence, place):
    def new(kind: str, name: str = NAME) -> Path:
        answer = influence("plugins", "new", kind, name)
        assert answer.code == 0, answer.stderr
        assert answer.stdout == f"influence-{name}\n"
        return place / answer.stdout.strip()

    return new


def test_the_next_step_pins_what_it_installs_where_there_are_pins(influence, place):
    assert "Next: pip install -e 'influence-one[test]'; pytest" in influence("plugins", "new", "backend", "one").stderr
    (place / "constraints.txt").touch()
    told = influence("plugins", "new", "backend", "two").stderr
    assert "Next: pip install -c constraints.txt -e 'influence-two[test]'; pytest influence-two" in told


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_imported_and_offers_what_it_says(make, kind, monkeypatch):
    folder = make(kind)
    monkeypatch.syspath_prepend(str(folder / "src"))
    try:
        module = importlib.import_module(PACKAGE)
        manager, _ = load_plugins([])
        manager.register(module, name=NAME)
        manager.check_pending()
        registry = PluginRegistry(manager, [])
        if kind == "environment":
            (path,) = registry.environment_paths()
            assert (path / NAME / "environment.yaml").is_file()
        else:
            component = registry.component(kind, NAME)
            assert component.load().__name__ == f"LoudParrot{kind.capitalize()}"
            assert component.options.model_fields
        assert registry.problems == []
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def test_its_files_are_those_of_a_package(make):
    folder = make("scorer")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    package = f"src/{PACKAGE}"
    assert files == {
        "README.md",
        "pyproject.toml",
        f"{package}/__init__.py",
        f"{package}/options.py",
        f"{package}/py.typed",
        f"{package}/scorer.py",
        "tests/test_loud_parrot.py",
    }
    assert not [path for path in files if re.search(r"@\w+@", (folder / path).read_text())]


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("backends", "x", "Unknown kind of plugin 'backends'. Did you mean 'backend'?"),
        ("backend", "Parrot", "'Parrot' is no name for a plugin."),
        ("backend", "../parrot", "is no name for a plugin."),
        ("backend", "openai", "influence-cli offers the backend openai already."),
        ("scorer", "refusal", "influence-cli offers the scorer refusal already."),
        ("environment", "therapy", "An environment is called therapy already."),
    ],
)
def test_what_cannot_be_is_told(influence, place, kind, name, said):
    answer = influence("plugins", "new", kind, name)
    assert answer.code == 2
    assert said in answer.stderr
    assert list(place.iterdir()) == []


def test_what_exists_is_left_alone(influence, make):
    make("scorer")
    assert "exists already" in influence("plugins", "new", "scorer", NAME).stderr


def test_every_kind_has_a_hook():
    assert {*KINDS} <= {*HOOKS}


@pytest.mark.slow
def test_what_is_written_is_clean(make, place):
    sources = []
    for kind in KINDS:
        folder = make(kind, f"{kind}-one")
        sources.append(str(folder / "src"))
        run(
            [sys.executable, "-m", "ruff", "check", "--select", ",".join(CLEAN), "--ignore", "D107,D203,D213", "."],
            folder,
        )
        run([sys.executable, "-m", "ruff", "format", "--check", "."], folder)
    packages = [argument for kind in KINDS for argument in ("-p", f"influence_{kind}_one")]
    run([sys.executable, "-m", "mypy", "--strict", *packages], place, MYPYPATH=os.pathsep.join(sources))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_wheel_passes_its_own_tests_in_a_fresh_environment(make, place, kind):
    folder, wheels, fresh = make(kind), place / "wheels", place / "fresh"
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), "."], folder)
    (wheel,) = wheels.glob("*.whl")
    venv.create(fresh, with_pip=False)
    python = str(fresh / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run([*pip, str(wheel)], place)
    share_libraries(fresh)
    (folder / "src").rename(folder / "hidden")  # what is tested is what was installed
    run([python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."], folder)
    done = run([python, "-m", "influence_cli", "env" if kind == "environment" else "plugins", "list"], place)
    assert NAME in done.stdout


def share_libraries(fresh: Path) -> None:
    """Let the fresh environment find what is installed where the tests run, so that nothing is downloaded."""
    (site,) = (fresh / "lib").glob("python*/site-packages")
    folders = dict.fromkeys(path for path in sys.path if Path(path).name == "site-packages")
    folders[sysconfig.get_paths()["purelib"]] = None
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (site / "shared.pth").write_text("\n".join(lines) + "\n")


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_", "PYTEST_"))}
    env = {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done
