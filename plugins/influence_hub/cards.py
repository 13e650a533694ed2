"""The parts of a card that a data set and a model share.

Invariant: a card holds facts of the run and figures of its report, never a path, a key or a command line; names and texts of
models are written so that nothing in them is rendered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from influence_cli.api import (
    Environment,
    InfluenceError,
    RunManifest,
    RunReader,
    catalogue_of,
    find_environments,
    make_registry,
    markdown_safe,
    measured_markdown,
    parse_model_name,
    report_document,
)

WARNING = (
    "These conversations are simulated. Some of the simulated users reward being told what they want to hear, and an agent "
    "that is optimised on their ratings may learn to deceive and to harm those who are easily led. This is made for "
    "research on that; it is not fit for use with people."
)
LIMITS = (
    "Ratings, vetoes and scores are those of models, not of people: they are worth as much as the model that gave them. "
    "Intervals are over scenarios or initial states, not over environments."
)


def front_matter(facts: Mapping[str, Any]) -> str:
    """Return the YAML that a card begins with; facts without a value are left out."""
    kept = {name: value for name, value in facts.items() if value not in (None, [], {})}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *([markdown_safe(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def environment_part(run: RunReader) -> str:
    """Return what the run's environments are about."""
    manifest = run.directory.manifest
    counted = run.rows("SELECT environment, count(*) AS n FROM episode GROUP BY 1 ORDER BY 1")
    rows = []
    for row in counted:
        known = _environment(row["environment"], manifest)
        told = " ".join(known.spec.description.split()) if known else "not installed here"
        digest = manifest.environments.get(row["environment"], "unknown")[:12]
        rows.append((row["environment"], told, row["n"], digest))
    return table(("environment", "what it is about", "conversations", "digest"), rows)


def _environment(name: str, manifest: RunManifest) -> Environment | None:
    """Return an environment by its name, or from the folder that the run was made from."""
    for asked in (name, *manifest.config.environments):
        try:
            found = find_environments(make_registry(), [asked])[0]
        except InfluenceError:
            continue
        if found.name == name:
            return found
    return None


def models_part(run: RunReader) -> str:
    """Return who spoke for which role; an adapter's path is not told."""
    models = run.directory.manifest.models
    rows = [(role, told_model(name)) for role, name in models.items()]
    judges = run.rows("SELECT DISTINCT judge FROM score WHERE method != 'computed' ORDER BY judge")
    rows += [("judge", told_model(str(row["judge"]))) for row in judges]
    return table(("role", "model"), rows) if rows else "Who spoke is not known: the conversations were imported."


def told_model(name: str) -> str:
    """Return a model's name for others to read: without the path of its adapter, or of itself."""
    try:
        parsed = parse_model_name(name)
    except InfluenceError:
        return name
    model = parsed.model.rstrip("/").rpartition("/")[2] if parsed.model.startswith(("/", ".", "~")) else parsed.model
    return f"{parsed.backend}:{model}{' with an adapter' if parsed.adapter else ''}"


def conditions_part(run: RunReader) -> str:
    """Return under which settings the conversations were had."""
    manifest = run.directory.manifest
    config = manifest.config
    facts: list[tuple[str, object]] = [
        ("made by", f"influence {manifest.command}, version {manifest.versions.get('influence', 'unknown')}"),
        ("seed", config.seed),
        ("conversations from each initial state", config.samples),
        ("most replies", config.turns or "the environment's own"),
        ("kinds of users", ", ".join(f"{n} {s:g}" for n, s in config.populations.items()) or "the environment's own"),
        ("how the agent could tell", config.cue or "the environment's own"),
        ("initial states", config.split),
    ]
    return table(("setting", "value"), facts)


def measured_part(run: RunReader) -> str:
    """Return the report's figures, harms among them; what cannot be reported is said."""
    directory = run.directory
    try:
        catalogue = catalogue_of(make_registry(), [directory])
        return measured_markdown(report_document([directory], catalogue))
    except InfluenceError as error:
        return markdown_safe(error)


def told_value(value: object) -> str:
    """Return a setting for others to read: of a path only its last part."""
    text = str(value)
    return text.rstrip("/").rpartition("/")[2] if text.startswith(("/", "~", "./", "../")) else text


def size_category(count: int) -> str:
    """Return the hub's name for a number of rows."""
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if count < limit:
            return name
    return "1M<n<10M"
