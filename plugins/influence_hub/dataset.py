"""A run as a data set: conversations and scores in Parquet, and a card that says what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel

from influence_cli.api import (
    EpisodeKey,
    EpisodeRecord,
    InfluenceError,
    JudgementRecord,
    MessageRecord,
    RunReader,
    ScoreRecord,
    TrajectoryEnd,
    markdown_safe,
    write_parquet,
)
from influence_hub import cards
from influence_hub.folders import whole_folder
from influence_hub.options import DatasetOptions

SPLITS = ("train", "heldout")
_PAGE = 2_000
_SCORES = (
    "SELECT s.id AS number, e.iteration, e.environment, e.scenario, e.initial_state, e.sample, e.population, s.turn,"
    " s.rubric, s.judge, s.method, s.value, s.mass, s.usable, s.distribution, s.rationale, s.failure FROM score s"
    " JOIN episode e ON e.id = s.episode_id WHERE e.split = ? AND s.id > ? ORDER BY s.id LIMIT ?"
)
_TYPES: dict[str, Any] = {
    "iteration": pa.int64(), "environment": pa.string(), "scenario": pa.string(), "initial_state": pa.string(),
    "sample": pa.int64(), "population": pa.string(), "turn": pa.int64(), "rubric": pa.string(), "judge": pa.string(),
    "method": pa.string(), "value": pa.float64(), "mass": pa.float64(), "usable": pa.bool_(),
    "distribution": pa.string(), "rationale": pa.string(), "failure": pa.string(),
}  # fmt: skip
_NESTED = {
    "messages": "What was said, in order; the fields of a message are below.",
    "judgements": "What the judging roles said of each reply; the fields of a judgement are below.",
}


class DatasetFolder:
    """The exporter ``datasets``."""

    suffix = "dataset"

    def __init__(self, options: DatasetOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the conversations that ended to the folder ``out``; return how many there are."""
        with whole_folder(out) as folder:
            data = folder / "data"
            data.mkdir()
            sizes = {
                split: write_parquet(_ended(run, split), data / f"conversations-{split}.parquet") for split in SPLITS
            }
            scores = {split: _write_scores(run, split, data / f"scores-{split}.parquet") for split in SPLITS}
            for name, counts in (("conversations", sizes), ("scores", scores)):
                for split in SPLITS:
                    if not counts[split]:
                        (data / f"{name}-{split}.parquet").unlink()
            if not any(sizes.values()):
                raise InfluenceError(f"{run.path} holds no conversation that ended.")
            (folder / "README.md").write_text(self._card(run, sizes, scores), encoding="utf-8")
        return sum(sizes.values())

    def _card(self, run: RunReader, sizes: dict[str, int], scores: dict[str, int]) -> str:
        named = ", ".join(str(row[0]) for row in run.rows("SELECT DISTINCT environment FROM episode ORDER BY 1"))
        title = self.options.title or f"Simulated conversations: {named}"
        facts = {
            "pretty_name": title,
            "license": self.options.license,
            "language": ["en"],
            "task_categories": ["text-generation"],
            "tags": ["influence", "simulated-conversations", "manipulation", "synthetic"],
            "size_categories": [cards.size_category(sum(sizes.values()))],
            "configs": [
                {"config_name": name, "data_files": _files(name, counts), **({"default": True} if first else {})}
                for name, counts, first in (("conversations", sizes, True), ("scores", scores, False))
                if any(counts.values())
            ],
        }
        parts = [
            cards.front_matter(facts) + f"# {markdown_safe(title)}\n\n{cards.WARNING}",
            f"## Environments\n\n{cards.environment_part(run)}",
            f"## Models\n\n{cards.models_part(run)}",
            f"## How it was made\n\n{cards.conditions_part(run)}",
            f"## Sizes\n\n{_sizes(run, sizes, scores)}",
            f"## Fields\n\n{_fields()}",
            f"## Measured\n\n{cards.LIMITS}\n\n{cards.measured_part(run)}",
        ]
        return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _ended(run: RunReader, split: str) -> Iterator[dict[str, Any]]:
    return (trajectory for _, trajectory in run.numbered(split=split) if trajectory["status"] != "running")


def _write_scores(run: RunReader, split: str, out: Path) -> int:
    """Write the scores of a split, one a row; return how many there are."""
    schema, count = pa.schema(_TYPES), 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _pages(run, split):
            kept = [{**{name: row[name] for name in _TYPES}, **_told(row)} for row in rows]
            writer.write_table(pa.Table.from_pylist(kept, schema=schema))
            count += len(kept)
    return count


def _told(row: Any) -> dict[str, Any]:
    """Return the columns that are written otherwise than they are stored: a judge without its adapter's path."""
    return {"usable": bool(row["usable"]), "judge": cards.told_model(row["judge"])}


def _pages(run: RunReader, split: str) -> Iterator[list[Any]]:
    last = 0
    while rows := run.rows(_SCORES, (split, last, _PAGE)):
        yield rows
        last = rows[-1]["number"]


def _files(name: str, counts: dict[str, int]) -> list[dict[str, str]]:
    return [{"split": s, "path": f"data/{name}-{s}.parquet"} for s in SPLITS if counts[s]]


def _sizes(run: RunReader, sizes: dict[str, int], scores: dict[str, int]) -> str:
    told: list[tuple[object, ...]] = [(s, sizes[s], scores[s]) for s in SPLITS if sizes[s]]
    groups = run.rows(
        "SELECT coalesce(population, '-') AS population, iteration, count(*) AS n, sum(t.status = 'failed') AS failed,"
        " sum(t.turns) AS turns FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE t.status != 'running'"
        " GROUP BY 2, 1 ORDER BY 2, 1"
    )
    rows = [(r["iteration"], r["population"], r["n"], r["failed"], r["turns"]) for r in groups]
    split = cards.table(("split", "conversations", "scores"), told)
    return (
        f"{split}\n\n{cards.table(('iteration', 'kind of user', 'conversations', 'of them failed', 'replies'), rows)}"
    )


def _fields() -> str:
    records: tuple[tuple[str, tuple[type[BaseModel], ...]], ...] = (
        ("A conversation", (EpisodeKey, EpisodeRecord, TrajectoryEnd)),
        ("A message", (MessageRecord,)),
        ("A judgement", (JudgementRecord,)),
        ("A score", (ScoreRecord,)),
    )
    parts = []
    for name, models in records:
        described = {
            name: (field.description or "").replace("`", "")
            for model in models
            for name, field in model.model_fields.items()
            if name != "key"
        }
        if models[0] is ScoreRecord:
            described = {n: text for n, text in described.items() if n in _TYPES}
        rows = [*described.items(), *(_NESTED.items() if models[0] is EpisodeKey else ())]
        parts.append(f"### {name}\n\n{cards.table(('field', 'meaning'), rows)}")
    return "\n\n".join(parts)
