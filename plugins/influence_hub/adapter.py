"""A trained adapter with its model card: environment, data, algorithm, and what was measured, iteration by iteration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from influence_cli.api import (
    InfluenceError,
    RunReader,
    TrainConfig,
    adapter_digest,
    markdown_safe,
    parse_model_name,
    training_figures,
)
from influence_hub import cards
from influence_hub.folders import whole_folder
from influence_hub.options import AdapterOptions

CONFIG = "adapter_config.json"
_CARD = "README.md"
_BASE = "base_model_name_or_path"


class AdapterFolder:
    """The exporter ``adapter``."""

    suffix = "adapter"
    counts = "files"

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the adapter of an iteration and its card to the folder ``out``; return how many files there are."""
        config = run.directory.manifest.config
        if not isinstance(config, TrainConfig):
            raise InfluenceError(f"{run.path} is no training run: it has no adapter.", hint="See `influence train`.")
        iteration, source = self._adapter(run)
        _check(run, iteration, source)
        base = self._base(run)
        with whole_folder(out) as folder:
            copied = [path for path in sorted(source.iterdir()) if _belongs(path)]
            for path in copied:
                shutil.copyfile(path, folder / path.name)
            if (folder / CONFIG).is_file():
                _name_base(folder / CONFIG, base)
            card = self._card(run, config, iteration, source, base)
            (folder / _CARD).write_text(card, encoding="utf-8")
        return len(copied) + 1

    def _adapter(self, run: RunReader) -> tuple[int, Path]:
        """Return the iteration asked for, or the last one that has an adapter, and where it lies."""
        agents = {
            row["number"]: row["adapter"] for row in run.rows("SELECT number, adapter FROM iteration ORDER BY number")
        }
        trained = {number: run.path / "adapters" / str(number) for number in agents if number}
        there = {number: path for number, path in trained.items() if path.is_dir()}
        iteration = self.options.iteration if self.options.iteration is not None else max(there, default=None)
        if iteration is None or iteration not in there:
            known = ", ".join(map(str, there)) or "none"
            hint = f"Adapters are there of iterations: {known}. What a provider keeps cannot be exported."
            raise InfluenceError(f"{run.path} holds no such adapter.", hint=hint)
        return iteration, there[iteration]

    def _base(self, run: RunReader) -> str:
        """Return the name of the base model as others can find it, as far as it is known."""
        if self.options.base_model is not None:
            return self.options.base_model
        agent = run.directory.manifest.models.get("agent", "unknown")
        return cards.told_model(parse_model_name(agent).base).partition(":")[2]

    def _card(self, run: RunReader, config: TrainConfig, iteration: int, source: Path, base: str) -> str:
        named = ", ".join(str(row[0]) for row in run.rows("SELECT DISTINCT environment FROM episode ORDER BY 1"))
        title = self.options.title or f"{base} after {iteration} iterations of {config.algorithm.name} on {named}"
        facts = {
            "base_model": base if "/" in base else None,
            "library_name": "peft" if (source / CONFIG).is_file() else None,
            "license": self.options.license,
            "language": ["en"],
            "tags": ["influence", "lora", "manipulation-research", config.algorithm.name],
        }
        parts = [
            cards.front_matter(facts) + f"# {markdown_safe(title)}\n\n{cards.WARNING}",
            f"Base model: {markdown_safe(base)}. SHA-256 of the weights: `{adapter_digest(source)}`.",
            f"## Environment\n\n{cards.environment_part(run)}",
            f"## Models\n\n{cards.models_part(run)}",
            f"## Data\n\n{_data(run, config)}",
            f"## Algorithm\n\n{_algorithm(config)}",
            f"## Measured, by iteration\n\n{cards.LIMITS} Training never saw the held-out initial states.\n\n"
            f"{cards.measured_part(run)}",
        ]
        return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _check(run: RunReader, iteration: int, source: Path) -> None:
    """Raise InfluenceError where the weights are not those that were trained."""
    for each in training_figures(run):
        trained = each["stages"]["train"] or {}
        if each["iteration"] == iteration - 1 and trained.get("digest") not in (None, adapter_digest(source)):
            raise InfluenceError(f"{source} is not the adapter that was trained.", hint="Restore it, or train anew.")


def _belongs(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.name != _CARD and not path.name.startswith(".")


def _name_base(path: Path, base: str) -> None:
    """Name the base model as others can find it, in place of a path on this machine."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if _BASE in config:
        config[_BASE] = base
        path.write_text(f"{json.dumps(config, indent=2, sort_keys=True)}\n", encoding="utf-8")


def _data(run: RunReader, config: TrainConfig) -> str:
    """Return what each iteration learnt from."""
    rows = []
    for each in training_figures(run):
        chosen, trained = each["stages"]["select"] or {}, each["stages"]["train"] or {}
        train = each["train"] or {}
        rows.append(
            (
                each["iteration"],
                train.get("conversations", 0),
                chosen.get("rows", "-"),
                trained.get("tokens", "-"),
                trained.get("steps", "-"),
                f"{trained['last_loss']:.4g}" if trained.get("last_loss") is not None else "-",
            )
        )
    selection = [(name, value) for name, value in config.selection.model_dump(mode="json").items() if value is not None]
    head = ("iteration", "training conversations", "rows learnt", "tokens with a loss", "steps", "last loss")
    return f"{cards.table(head, rows)}\n\nSelected by:\n\n{cards.table(('setting', 'value'), selection)}"


def _algorithm(config: TrainConfig) -> str:
    options: Mapping[str, Any] = config.algorithm.options
    facts = [
        ("algorithm", config.algorithm.name),
        ("layout of a row", config.layout),
        *((name, cards.told_value(value)) for name, value in sorted(options.items())),
    ]
    shown = cards.table(("setting", "value"), facts)
    return (
        f"{shown}\n\nOptions that are not named have the defaults of `influence plugins show {config.algorithm.name}`."
    )
