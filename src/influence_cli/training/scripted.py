"""A learner for tests and teaching: it learns good replies by heart, for the scripted model; no weights, no library.

Everything it writes is a pure function of the rows and the adapter before, so that two runs can be told alike by a
digest.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from pathlib import Path

import orjson
from pydantic import Field

from influence_cli.backends.scripted import ADAPTER_FILE, ScriptedAdapter
from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome, TrainingRow
from influence_cli.store.connection import file_error
from influence_cli.training.adapters import adapter_digest
from influence_cli.training.protocol import Told
from influence_cli.whole_files import write_whole

_FADES = 0.5
_NONE = ScriptedAdapter(strength=0.0, replies=())


class ScriptedLearnerOptions(Frozen):
    """Options of the algorithm ``scripted``."""

    wants: RowsWanted = Field(default="best", description="Which rows it learns from.")
    strength: float = Field(
        default=0.5, gt=0.0, lt=1.0, description="Share of replies that one iteration makes learnt."
    )
    seconds: float = Field(default=0.0, ge=0.0, le=60.0, description="How long learning takes.")


class ScriptedLearner:
    """Learns replies by heart: desirable ones are said more often, undesirable ones forgotten."""

    def __init__(self, options: ScriptedLearnerOptions) -> None:
        self._options = options

    @property
    def wants(self) -> RowsWanted:
        """What the rows file of a job holds."""
        return self._options.wants

    def check_base(self, base: str) -> None:
        """Raise InfluenceError for a model that is not scripted."""
        if not base.startswith("scripted:"):
            raise InfluenceError(f"The algorithm scripted cannot train {base}.", hint="Use -m scripted:demo.")

    def train(self, job: TrainingJob, told: Told) -> TrainingOutcome:
        """Return the adapter: the weights of the one before halved, and those of the new replies added."""
        self.check_base(job.base)
        rows = self._rows(Path(job.rows))
        before = _read(job.adapter)
        steps = max(1, len(rows))
        for step in range(steps):
            if self._options.seconds:
                time.sleep(self._options.seconds / steps)
            told((step + 1) / steps, f"row {step + 1} of {steps}")
        adapter = self._learn(before, rows)
        folder = Path(job.folder) / "adapter"
        _write(folder, adapter)
        good = [text for text, weight in rows if weight > 0.0]
        moved = sum(math.log(adapter.probability(t)) - math.log(before.probability(t)) for t in good) / max(
            1, len(good)
        )
        return TrainingOutcome(
            adapter=str(folder),
            digest=adapter_digest(folder),
            rows=len(rows),
            steps=len(rows),
            tokens=sum(len(text.split()) for text, _ in rows),
            losses=tuple(-math.log(before.probability(text)) for text, _ in rows),
            moved=moved if good else None,
        )

    def _rows(self, path: Path) -> list[tuple[str, float]]:
        """Return each learnt reply with its weight: 1 for a good one, -1 for a bad one, its reward where all are given."""
        found: list[tuple[str, float]] = []
        for line in path.read_bytes().splitlines():
            data = orjson.loads(line)
            sides = [("chosen", 1.0), ("rejected", -1.0)] if "chosen" in data else [("", 1.0)]
            for side, sign in sides:
                row = TrainingRow.model_validate(data[side] if side else data)
                weight = sign if row.desirable is not None else max(0.0, row.reward)
                weight = -1.0 if row.desirable is False else weight
                found += [(row.messages[index].content, weight) for index in row.learnt]
        return found

    def _learn(self, before: ScriptedAdapter, rows: list[tuple[str, float]]) -> ScriptedAdapter:
        weights: defaultdict[str, float] = defaultdict(float)
        for text, weight in before.replies:
            weights[text] += _FADES * weight
        for text, weight in rows:
            weights[text] += weight
        kept = sorted((text, round(weight, 9)) for text, weight in weights.items() if weight > 1e-6)
        strength = 1.0 - (1.0 - before.strength) * (1.0 - self._options.strength)
        return ScriptedAdapter(strength=strength, replies=tuple(kept))


def _read(adapter: str | None) -> ScriptedAdapter:
    if adapter is None:
        return _NONE
    file = Path(adapter) / ADAPTER_FILE
    if not file.is_file():
        raise InfluenceError(f"{adapter} is no adapter of a scripted model.", hint="Leave @... out of --agent.")
    return ScriptedAdapter.model_validate_json(file.read_bytes())


def _write(folder: Path, adapter: ScriptedAdapter) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ADAPTER_FILE, orjson.dumps(adapter.model_dump(mode="json")))
    except OSError as error:
        raise file_error(error, folder) from None
