"""What is learnt: the rows of a job and mixed-in preferences, as token sequences in a fixed order.

Invariant: the order depends on the seed alone, so that a resumed stage goes on where it stopped.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from influence_cli.api import (
    CallFailedError,
    Frozen,
    InfluenceError,
    Prompts,
    RowsWanted,
    TrainingJob,
    TrainingPair,
    TrainingRow,
    derive_seed,
)
from influence_trl.stage import WEIGHTS
from influence_trl.tokens import Sequence, encode_row

_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R", bound=Frozen)

Pair = tuple[Sequence, Sequence]


@dataclass
class Learnt:
    """What came of the rows: ``rows`` were encoded, ``dropped`` could not be, ``truncated`` lost their beginning."""

    rows: int = 0
    dropped: int = 0
    truncated: int = 0
    sequences: list[Sequence] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def read_rows(path: str, kind: type[R]) -> list[R]:
    """Return the rows or pairs of a file of JSON lines; InfluenceError naming file and line for one that is neither."""
    found: list[R] = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found.append(kind.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise InfluenceError(f"{path}, line {number}, is no training row: {where}: {first['msg']}.") from error
    return found


def check_job(job: TrainingJob, wants: RowsWanted) -> None:
    """Raise InfluenceError where a job's rows cannot be learnt from, or its adapter is none: before anything is loaded."""
    if job.adapter is not None and not (Path(job.adapter) / WEIGHTS).is_file():
        raise InfluenceError(
            f"{job.adapter} is no adapter: it needs adapter_config.json and {WEIGHTS}.",
            hint="Name a folder that PEFT saved.",
        )
    try:
        rows = read_rows(job.rows, TrainingPair if wants == "pairs" else TrainingRow)
    except OSError as error:
        raise InfluenceError(f"The rows {job.rows} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise InfluenceError("There is nothing to learn: no row was selected.", hint="Select more, or simulate more.")
    if wants == "best-and-worst" and len({row.desirable for row in rows if isinstance(row, TrainingRow)}) < 2:
        raise InfluenceError(
            "KTO needs desirable and undesirable replies; there are only those of one kind.",
            hint="Select best and worst, or train by expert-iteration.",
        )


def encode_rows(
    rows: Iterable[TrainingRow], prompts: Prompts, longest: int, *, by_turn: bool, keep_reward: bool = False
) -> Learnt:
    """Return the sequences of rows, each at most ``longest`` tokens."""
    learnt = Learnt()
    for row in rows:
        sequences = _encoded(row, prompts, longest, by_turn=by_turn)
        if sequences is None:
            learnt.dropped += 1
            continue
        learnt.rows += 1
        learnt.truncated += any(s.truncated for s in sequences)
        learnt.sequences += sequences
    if keep_reward:
        kept = with_advantages(learnt.sequences)
        alone = len(learnt.sequences) - len(kept)
        if alone:
            _log.warning("%d replies have no other conversation from their initial state; they are left out.", alone)
        learnt.dropped += alone
        learnt.sequences = kept
    return learnt


def encode_pairs(pairs: Iterable[TrainingPair], prompts: Prompts, longest: int) -> Learnt:
    """Return the sequences of pairs; where a conversation makes several, its last replies are compared."""
    learnt = Learnt()
    for pair in pairs:
        chosen = _encoded(pair.chosen, prompts, longest, by_turn=False)
        rejected = _encoded(pair.rejected, prompts, longest, by_turn=False)
        if chosen is None or rejected is None:
            learnt.dropped += 1
            continue
        if len(chosen) > 1 or len(rejected) > 1:
            _log.warning("The template rewrites earlier turns: of a pair, the last replies are compared.")
        learnt.rows += 1
        learnt.truncated += chosen[-1].truncated or rejected[-1].truncated
        learnt.pairs.append((chosen[-1], rejected[-1]))
    return learnt


def with_advantages(sequences: list[Sequence]) -> list[Sequence]:
    """Return the sequences with their advantage for reward, those without any other conversation to compare left out.

    The advantage is the reward less the mean reward of the replies of all *other* conversations from the same initial
    state with the same kind of user: the leave-one-out baseline of Kool et al. 2019 and Ahmadian et al. 2024.
    """
    groups: dict[tuple[str, ...], list[Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.group, []).append(sequence)
    found = []
    for sequence in sequences:
        others = [s.reward for s in groups[sequence.group] if s.episode != sequence.episode]
        if others:
            advantage = sequence.reward - sum(others) / len(others)
            found.append(replace(sequence, reward=advantage, desirable=advantage > 0.0))
    return found


def in_order(items: list[T], seed: int, epochs: int) -> list[T]:
    """Return each epoch's items shuffled anew, one epoch after the other."""
    found: list[T] = []
    for epoch in range(epochs):
        drawn = list(items)
        random.Random(derive_seed(seed, "order", epoch)).shuffle(drawn)
        found += drawn
    return found


def by_length(items: list[T], batch: int, length: Callable[[T], int]) -> list[T]:
    """Return the items with each batch of ``batch`` sorted by length, so that little is padded; batches keep their items."""
    found: list[T] = []
    for start in range(0, len(items), batch):
        found += sorted(items[start : start + batch], key=length, reverse=True)
    return found


def _encoded(row: TrainingRow, prompts: Prompts, longest: int, *, by_turn: bool) -> list[Sequence] | None:
    try:
        return [sequence.fitted(longest) for sequence in encode_row(row, prompts, by_turn=by_turn)]
    except CallFailedError as error:
        _log.warning("Conversation %d, turn %d, is left out: %s", row.episode_id, row.turn, error)
        return None
