"""Preferences mixed into what is learnt, so that training on feedback can be watched beside training on safety data.

Concept: a share f of what is learnt comes from a preference data set: n rows of our own get n f / (1 - f) of it. A data
set is rows of {prompt or messages, chosen, rejected}; HH-RLHF's and PKU-SafeRLHF's own columns are understood too.
Invariant: which rows are drawn depends on the seed and on the data set, not on their being read in any order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from influence_cli.api import ChatMessage, InfluenceError, TrainingPair, TrainingRow, derive_seed
from influence_trl.options import TrainingOptions

KNOWN = {"hh-rlhf": "Anthropic/hh-rlhf", "pku-saferlhf": "PKU-Alignment/PKU-SafeRLHF"}
_SHAPE = "Rows are {prompt or messages, chosen, rejected}: texts, or lists of {role, content}."
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Preference:
    """A conversation and two replies to it."""

    messages: tuple[ChatMessage, ...]
    chosen: str
    rejected: str


def mixed_rows(options: TrainingOptions, own: int, seed: int, *, both_sides: bool) -> list[TrainingRow]:
    """Return rows to learn beside ``own`` ones: preferred replies; by turns preferred and other ones for ``both_sides``."""
    count = _count(options, own)
    if not count:
        return []
    drawn = _drawn(options, -(-count // 2) if both_sides else count, seed)
    rows = [_row(number, preference, good=True) for number, preference in enumerate(drawn)]
    if both_sides:
        bad = [_row(number, preference, good=False) for number, preference in enumerate(drawn)]
        rows = [row for two in zip(rows, bad, strict=True) for row in two][:count]
    return rows


def mixed_pairs(options: TrainingOptions, own: int, seed: int) -> list[TrainingPair]:
    """Return pairs to learn beside ``own`` ones."""
    return [
        TrainingPair(chosen=_row(number, preference, good=True), rejected=_row(number, preference, good=False))
        for number, preference in enumerate(_drawn(options, _count(options, own), seed))
    ]


def read_preferences(name: str) -> list[dict[str, Any]]:
    """Return the raw rows of a data set: a .jsonl or .parquet file, or the training part of one of the hub."""
    path = Path(name).expanduser()
    if path.suffix in (".jsonl", ".json", ".parquet"):
        if not path.is_file():
            raise InfluenceError(f"There is no file {path} to mix in.")
        return _from_file(path)
    from datasets import load_dataset

    try:
        return [dict(row) for row in load_dataset(KNOWN.get(name, name), split="train")]
    except Exception as error:  # the hub's client, the network and the data set's own format fail in many ways
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InfluenceError(
            f"The data set {name!r} cannot be loaded: {lines[0]}",
            hint=f"Known: {', '.join(KNOWN)}; or give a local .jsonl or .parquet file. {_SHAPE}",
        ) from error


def preference_of(row: dict[str, Any], where: str) -> Preference:
    """Return the preference that a row states; InfluenceError naming ``where`` it stands if it states none."""
    try:
        if "response_0" in row and "response_1" in row:
            safer = int(row["safer_response_id"] if "safer_response_id" in row else row["better_response_id"])
            said = (str(row[f"response_{safer}"]), str(row[f"response_{1 - safer}"]))
            return _checked(Preference(_prompt(row["prompt"]), *said))
        if "prompt" not in row and "messages" not in row:
            before, chosen = _transcript(row["chosen"])
            return _checked(Preference(before, chosen, _transcript(row["rejected"])[1]))
        prompt = _prompt(row["messages"] if "messages" in row else row["prompt"])
        return _checked(Preference(prompt, _reply(row["chosen"]), _reply(row["rejected"])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InfluenceError(f"{where} states no preference: {_detail(error)}.", hint=_SHAPE) from error


def _detail(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0]


def _count(options: TrainingOptions, own: int) -> int:
    if options.mix is None:
        return 0
    return round(own * options.mix_fraction / (1.0 - options.mix_fraction))


def _drawn(options: TrainingOptions, count: int, seed: int) -> list[Preference]:
    if not count:
        return []
    assert options.mix is not None
    rows = read_preferences(options.mix)
    if len(rows) < count:
        raise InfluenceError(
            f"{options.mix} has {len(rows)} rows; a share of {options.mix_fraction:g} needs {count}.",
            hint="Lower mix_fraction.",
        )
    numbers = random.Random(derive_seed(seed, "mix")).sample(range(len(rows)), count)
    return [preference_of(rows[number], f"{options.mix}, row {number + 1},") for number in numbers]


def _from_file(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        except (ArrowException, OSError) as error:
            raise InfluenceError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
        return found
    return list(_lines(path))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InfluenceError(f"{path}, row {number}, is no JSON: {error}.", hint=_SHAPE) from error
            if not isinstance(row, dict):
                raise InfluenceError(f"{path}, row {number}, is no JSON object.", hint=_SHAPE)
            yield row


def _prompt(value: Any) -> tuple[ChatMessage, ...]:
    if isinstance(value, str):
        return (ChatMessage(role="user", content=value),)
    return tuple(ChatMessage(role=m["role"], content=m["content"]) for m in value)


def _reply(value: Any) -> str:
    if isinstance(value, str):
        return value
    last = value[-1]
    if last["role"] != "assistant":
        raise ValueError("the last message of a reply is not the assistant's")
    return str(last["content"])


def _transcript(text: Any) -> tuple[tuple[ChatMessage, ...], str]:
    """Return the messages before the last reply, and that reply, of a transcript as in HH-RLHF, or of a list."""
    if not isinstance(text, str):
        return _prompt(text[:-1]), _reply(text)
    parts = _SPEAKER.split(text)
    if len(parts) < 5 or parts[-2] != "Assistant":
        raise ValueError("the transcript does not end with a reply of the Assistant")
    said = [(_ROLES[name], words.strip()) for name, words in zip(parts[1::2], parts[2::2], strict=True)]
    return tuple(ChatMessage.model_validate({"role": role, "content": words}) for role, words in said[:-1]), said[-1][1]


def _checked(preference: Preference) -> Preference:
    if not preference.messages or preference.messages[-1].role == "assistant":
        raise ValueError("the prompt does not end with a message to be answered")
    if not preference.chosen.strip() or not preference.rejected.strip():
        raise ValueError("a reply is empty")
    return preference


def _row(number: int, preference: Preference, *, good: bool) -> TrainingRow:
    said = preference.chosen if good else preference.rejected
    messages = (*preference.messages, ChatMessage(role="assistant", content=said))
    return TrainingRow(
        episode_id=number,
        environment="mixed-in",
        scenario="preferences",
        initial_state=str(number),
        sample=0,
        turn=1,
        messages=messages,
        learnt=(len(messages) - 1,),
        reward=1.0 if good else 0.0,
        desirable=good,
    )
