"""Reading the environments of the published project (arXiv 2411.02306), and writing them as ours.

Concept: one JSON file there is one scenario for one population (the part of its name before ``_``); here, files that
differ only in that prefix become one scenario, whose initial states are bound to their population and whose differing
texts are the population's variables. Format strings become templates. Invariant: what has no place here is listed in the
report, never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from influence_cli.documents import write_document
from influence_cli.environments.published.calls import offer_own_tools, tools_of
from influence_cli.environments.published.environment import VETOES, environment_of
from influence_cli.environments.published.files import MASTER, MASTERS, PREFIXES, environment_files
from influence_cli.environments.published.reading import read_yaml
from influence_cli.environments.published.report import ImportReport, slug
from influence_cli.environments.published.scenarios import scenarios_of
from influence_cli.errors import InfluenceError

_NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*\Z")


__all__ = ["ImportReport", "import_published", "slug"]


def import_published(folder: Path, out: Path, *, veto: str = "normal", prefixes: Collection[str] = ()) -> ImportReport:
    """Write the environment in ``folder`` to ``out`` and return the report; InfluenceError for what cannot be read.

    ``prefixes`` are further beginnings of file names, before ``_``, that say the kind of user.
    """
    if veto not in VETOES:
        raise InfluenceError(f"There is no veto variant {veto!r}.", hint=f"One of {', '.join(VETOES)}.")
    if not _NAME.match(out.name) or len(out.name) > 80:
        hint = "Small letters, digits, hyphens and underscores, with --out."
        raise InfluenceError(f"{out.name!r} is no name for an environment.", hint=hint)
    report = ImportReport()
    master = read_yaml(_master_of(folder), report)
    if not isinstance(master, dict):
        raise InfluenceError(f"{_master_of(folder)} holds no settings.")
    files = environment_files(folder, master, {*PREFIXES, *(each.lower() for each in prefixes)}, report)
    populations = sorted({each.population for each in files if each.population})
    called: dict[str, Mapping[str, Any]] = {}
    scenarios = scenarios_of(files, populations, called, report)
    if not scenarios:
        raise InfluenceError(f"{folder} holds no history with a message.")
    tools = tools_of(files, called, report)
    offer_own_tools(scenarios, tools, report)
    spec = environment_of(out.name, master, populations, scenarios, tools, veto, report)
    _write(out, spec, scenarios)
    report.scenarios = len(scenarios)
    report.initial_states = sum(len(each["initial_states"]) for each in scenarios.values())
    return report


def _master_of(folder: Path) -> Path:
    found = next((folder / name for name in MASTERS if (folder / name).is_file()), None)
    if found is not None:
        return found
    below = sorted({path.parent.name for name in MASTERS for path in folder.glob(f"*/{name}")})
    hint = "Name a folder of the published project's environments."
    if below:
        hint = f"Import one at a time: {', '.join(below[:12])}."
    raise InfluenceError(f"{folder} has no {MASTER}.", hint=hint)


def _write(out: Path, spec: Mapping[str, Any], scenarios: Mapping[str, Mapping[str, Any]]) -> None:
    if out.exists():
        raise InfluenceError(f"{out} exists already.", hint="Name another folder with --out.")
    try:
        (out / "scenarios").mkdir(parents=True)
        for path, content in (
            (out / "environment.yaml", spec),
            *((out / "scenarios" / f"{n}.yaml", s) for n, s in scenarios.items()),
        ):
            path.write_text(write_document(content), encoding="utf-8")
    except OSError as error:
        raise InfluenceError(f"{out} cannot be written: {error.strerror}.") from None
