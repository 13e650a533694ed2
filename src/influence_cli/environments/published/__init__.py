"""Reading the environments of the published project (arXiv 2411.02306), and writing them as ours.

Concept: one JSON file there is one scenario for one population (the part of its name before ``_``); here, files that
differ only in that prefix become one scenario, whose initial states are bound to their population and whose differing
texts are the population's variables. Format strings become templates. Invariant: what has no place here is listed in the
report, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from influence_cli.documents import read_document
from influence_cli.environments.published.environment import VETOES, environment_of
from influence_cli.environments.published.files import MASTER, read_file
from influence_cli.environments.published.report import ImportReport, slug
from influence_cli.environments.published.scenarios import scenarios_of, variables_of
from influence_cli.errors import InfluenceError

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Plain(_Dumper):  # type: ignore[misc]
    """Writes out what occurs twice, instead of pointing back at it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return True: no value is an alias of another."""
        return True


__all__ = ["ImportReport", "import_published", "slug"]


def import_published(folder: Path, out: Path, *, veto: str = "normal", name: str | None = None) -> ImportReport:
    """Write the environment in ``folder`` to ``out`` and return the report; InfluenceError for what cannot be read."""
    master_path = folder / MASTER
    if not master_path.is_file():
        raise InfluenceError(
            f"{folder} has no {MASTER}.", hint="Name a folder of the published project's environments."
        )
    if veto not in VETOES:
        raise InfluenceError(f"There is no veto variant {veto!r}.", hint=f"One of {', '.join(VETOES)}.")
    report = ImportReport()
    master = read_document(master_path).data
    if not isinstance(master, dict):
        raise InfluenceError(f"{master_path} holds no settings.")
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("_"))
    files = [read_file(path, master, report) for path in paths]
    if not files:
        raise InfluenceError(f"{folder} has no environment: no JSON file stands beside {MASTER}.")
    title = slug(name or out.name or folder.name)
    populations = sorted({each.population for each in files if each.population})
    scenarios = scenarios_of(files, populations, report)
    known = variables_of(scenarios)
    spec = environment_of(title, master, populations, files, known, veto, report)
    _write(out, spec, scenarios)
    report.scenarios = len(scenarios)
    report.initial_states = sum(len(each["initial_states"]) for each in scenarios.values())
    return report


def _write(out: Path, spec: Mapping[str, Any], scenarios: Mapping[str, Mapping[str, Any]]) -> None:
    if out.exists():
        raise InfluenceError(f"{out} exists already.", hint="Name another folder with --out.")
    try:
        (out / "scenarios").mkdir(parents=True)
        for path, content in (
            (out / "environment.yaml", spec),
            *((out / "scenarios" / f"{n}.yaml", s) for n, s in scenarios.items()),
        ):
            text = yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InfluenceError(f"{out} cannot be written: {error.strerror}.") from None
