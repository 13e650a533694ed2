"""From a folder to an :class:`EnvironmentFiles`: the validated specification with the place of everything in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from influence_cli.documents import Document, DocumentError, Position, Problem, read_document, validate_document
from influence_cli.environments.checking import MORE_SUFFIX, check_environment
from influence_cli.environments.environment import Environment
from influence_cli.environments.places import ENVIRONMENT_FILE
from influence_cli.errors import InfluenceError
from influence_cli.schemas.environment import EnvironmentSpec, MoreStates, Scenario

MAX_SCENARIOS = 2_000


@dataclass(frozen=True)
class EnvironmentFiles:
    """An environment as it was read: what it says, and where it says it."""

    folder: Path
    spec: EnvironmentSpec
    document: Document
    scenarios: tuple[tuple[Scenario, Document], ...]
    digest: str


def load_environment(folder: Path) -> Environment:
    """Return the environment in ``folder``; DocumentError with every problem, or InfluenceError if there is none."""
    return Environment(*environment_parts(folder))


def environment_parts(folder: Path) -> tuple[EnvironmentSpec, list[Scenario], str, Path]:
    """Return what an :class:`Environment` is made of, for one written in Python over YAML; raises as above."""
    files = read_environment(folder)
    problems = list(check_environment(files.spec, files.document, files.scenarios))
    if problems:
        raise DocumentError(problems)
    return files.spec, _joined(scenario for scenario, _ in files.scenarios), files.digest, files.folder


def _joined(parts: Iterable[Scenario]) -> list[Scenario]:
    """Return each scenario once, with the initial states of all its files."""
    joined: dict[str, Scenario] = {}
    for part in parts:
        before = joined.get(part.name)
        states = (*before.initial_states, *part.initial_states) if before else part.initial_states
        joined[part.name] = (before or part).model_copy(update={"initial_states": states})
    return list(joined.values())


def read_environment(folder: Path) -> EnvironmentFiles:
    """Return the files of ``folder``, each valid by itself; DocumentError or InfluenceError otherwise."""
    main = folder / ENVIRONMENT_FILE
    if not main.is_file():
        raise InfluenceError(
            f"{folder} is not an environment: it has no {ENVIRONMENT_FILE}.",
            hint="Name a folder that holds one, or see `influence env list`.",
        )
    _check_within(main, folder)
    digest = sha256()
    document = read_document(main)
    _add(digest, main.name, document)
    problems: list[Problem] = []
    spec: EnvironmentSpec | None = None
    try:
        spec = validate_document(document, EnvironmentSpec)
    except DocumentError as error:
        problems.extend(error.problems)
    scenarios: list[tuple[Scenario, Document]] = []
    whole: dict[str, Scenario] = {}
    for path in _scenario_files(folder):
        try:
            part = read_document(path)
            _add(digest, path.name, part)
            if path.name.endswith(MORE_SUFFIX):
                scenarios.append((_further(validate_document(part, MoreStates), whole, part), part))
                continue
            scenario = whole[path.stem] = validate_document(part, Scenario)
            scenarios.append((scenario, part))
        except DocumentError as error:
            problems.extend(error.problems)
    if not scenarios and not problems:
        problems.append(Problem(main, Position(1, 1), "There is no scenario.", "Add a file scenarios/NAME.yaml."))
    if problems or spec is None:
        raise DocumentError(problems)
    return EnvironmentFiles(folder, spec, document, tuple(scenarios), digest.hexdigest())


def _further(more: MoreStates, whole: Mapping[str, Scenario], part: Document) -> Scenario:
    """Return the scenario of ``more`` with only its further states; DocumentError if there is no such scenario."""
    stem = part.path.name.removesuffix(MORE_SUFFIX)
    if more.scenario != stem:
        raise DocumentError([part.problem(("scenario",), f"States of {more.scenario!r} stand in {part.path.name!r}.")])
    if more.scenario not in whole:
        hint = f"Add scenarios/{more.scenario}.yaml."
        raise DocumentError([part.problem(("scenario",), f"There is no scenario {more.scenario!r}.", hint)])
    return whole[more.scenario].model_copy(update={"initial_states": more.initial_states})


def _scenario_files(folder: Path) -> Iterator[Path]:
    paths = sorted((folder / "scenarios").glob("*.yaml"), key=lambda p: (p.name.endswith(MORE_SUFFIX), p.name))
    if len(paths) > MAX_SCENARIOS:
        raise InfluenceError(f"{folder} has {len(paths)} scenarios; at most {MAX_SCENARIOS} are read.")
    for path in paths:
        _check_within(path, folder)
        yield path


def _check_within(path: Path, folder: Path) -> None:
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        within = False
    if not within:
        raise InfluenceError(f"{path} leads out of its environment's folder.", hint="Put the file itself there.")


def _add(digest: object, name: str, document: Document) -> None:
    digest.update(f"{name}\0{document.text}\0".encode())  # type: ignore[attr-defined]
