"""Logs of Inspect AI: `.json` and `.eval` (a zip with one JSON file a sample), versions 2 and later.

A sample is a conversation: its task is the environment, `metadata.scenario` (else the task again) the scenario, its id the
initial state, its epoch the sample. Scores become scores judged by their scorer: C, P, I, N are 1, 0.5, 0, 0; a dictionary
gives one score a key. A sample that ended in an error is a failed conversation. A sample that this program itself wrote (an
export, or one of its tasks) holds the whole conversation, which comes back as it was.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import Speaker, ToolCall
from influence_cli.schemas.records import (
    WHOLE,
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.seeding import derive_seed
from influence_cli.store.imports.conversation import IMPORTED, Conversation, Refused
from influence_cli.store.imports.inspect_records import is_ours, own_conversation, own_score

MOST_BYTES = 1024 * 2**20
MOST_MEMBER = 256 * 2**20
_ZSTD = 93
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_SPEAKERS: Mapping[str, Speaker] = {"system": "system", "user": "user", "assistant": "agent", "tool": "tool"}
_SAMPLE = re.compile(r"samples/(?!(?:.*/)?\.\./).+\.json")
"""Identifiers of samples may hold slashes."""
_ATTACHMENT = re.compile(r"attachment://([0-9a-f]{32})")
_DETAIL = 300
_CACHED = ("_cache_read", "_cache_write")
"""Prompt tokens that Inspect counts apart."""

Log = tuple[dict[str, Any], Iterator[tuple[str, Any]]]
"""The log's header, and its samples with the name of the place that each stands in."""


def is_inspect_log(path: Path) -> bool:
    """Return whether a JSON file begins as a log of Inspect does."""
    try:
        with path.open("rb") as file:
            start = file.read(64 * 1024)
    except OSError:
        return False
    return re.match(rb'\s*\{\s*"version"\s*:\s*\d', start) is not None and b'"eval"' in start


def read_log(path: Path) -> Log:
    """Return a log's header and samples; InfluenceError if it is none or too large."""
    if path.suffix.lower() == ".eval":
        return _zipped(path)
    if path.stat().st_size > MOST_BYTES:
        raise InfluenceError(f"{path} is larger than {MOST_BYTES // 2**20} MiB.", hint="Write it as .eval instead.")
    document = _parsed(path.read_bytes(), str(path))
    if not isinstance(document, dict) or not isinstance(document.get("eval"), dict):
        raise InfluenceError(f"{path} is no log of Inspect AI.")
    samples = document.get("samples") or []
    if not isinstance(samples, list):
        raise InfluenceError(f"{path}: its samples are no list.")
    return document, ((f"sample {index}", sample) for index, sample in enumerate(samples, 1))


def log_conversations(log: Log, environment: str | None) -> Iterator[Conversation | Refused]:
    """Yield the conversations of a log; samples that make no sense are refused."""
    header, samples = log
    about = header["eval"]
    name = environment or _slug(str(about.get("task", "inspect")).rpartition("/")[2])
    for where, sample in samples:
        try:
            yield _own(sample, environment) if is_ours(sample) else _conversation(sample, name, about)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            yield Refused(where, f"{type(error).__name__}: {error}".split("\n", 1)[0])


# -- the zip ----------------------------------------------------------------------------------------------------------


def _zipped(path: Path) -> Log:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise InfluenceError(f"{path} is no .eval log: {str(error)[:100]}.") from None
    named = {member.filename: member for member in members}
    header = named.get("header.json") or named.get("_journal/start.json")
    if header is None:
        raise InfluenceError(f"{path} is no .eval log: it has no header.")
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise InfluenceError(f"{path} unpacks to more than {MOST_BYTES // 2**20} MiB.")
    document = _parsed(_member(path, header), f"{path}/{header.filename}")
    if not isinstance(document, dict) or not isinstance(document.get("eval"), dict):
        raise InfluenceError(f"{path} is no .eval log: its header names no evaluation.")
    samples = [member for name, member in sorted(named.items()) if _SAMPLE.fullmatch(name)]
    return document, (
        (member.filename, _parsed(_member(path, member), f"{path}/{member.filename}")) for member in samples
    )


def _member(path: Path, member: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes, no more than its size; Python's own zip reader knows no Zstandard."""
    if member.file_size > MOST_MEMBER:
        raise InfluenceError(f"{path}: {member.filename} unpacks to more than {MOST_MEMBER // 2**20} MiB.")
    try:
        with path.open("rb") as file:
            packed = _packed(file, member)
        if member.compress_type == zipfile.ZIP_STORED:
            found = packed
        elif member.compress_type == zipfile.ZIP_DEFLATED:
            found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.file_size + 1)
        elif member.compress_type == _ZSTD:
            found = _zstd(packed, member.file_size)
        else:
            raise InfluenceError(f"{path}: {member.filename} is packed in an unknown way.")
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raise InfluenceError(f"{path}: {member.filename} is damaged: {str(error)[:100]}.") from None
    if len(found) != member.file_size or zlib.crc32(found) != member.CRC:
        raise InfluenceError(f"{path}: {member.filename} is damaged.")
    return found


def _packed(file: BinaryIO, member: zipfile.ZipInfo) -> bytes:
    file.seek(member.header_offset)
    start = file.read(30)
    name, extra = struct.unpack("<HH", start[26:30])
    file.seek(name + extra, 1)
    return file.read(member.compress_size)


def _zstd(packed: bytes, size: int) -> bytes:
    try:
        import pyarrow as pa
    except ImportError:
        raise InfluenceError(
            "This log is packed with Zstandard, which needs pyarrow.", hint="pip install 'influence-cli[parquet]'"
        ) from None
    if not size:
        return b""
    try:
        unpacked: bytes = pa.Codec("zstd").decompress(packed, decompressed_size=size, asbytes=True)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    return unpacked


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InfluenceError(f"{where} is no JSON.") from None


# -- a sample ---------------------------------------------------------------------------------------------------------


def _own(sample: Mapping[str, Any], environment: str | None) -> Conversation:
    resolve = _resolver(sample)
    found = own_conversation(sample, environment, resolve, _text, _tool_calls, _SPEAKERS)
    others = {name: score for name, score in (sample.get("scores") or {}).items() if not own_score(score)}
    return replace(found, scores=(*found.scores, *_scores(others)))


def _resolver(sample: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what puts back the texts that a sample keeps as attachments."""
    attachments: Mapping[str, str] = sample.get("attachments") or {}
    return lambda text: _ATTACHMENT.sub(lambda found: attachments.get(found[1], found[0]), text)


def _conversation(sample: Any, environment: str, about: Mapping[str, Any]) -> Conversation:
    metadata = sample.get("metadata") or {}
    key = EpisodeKey(
        environment=environment,
        scenario=_slug(str(metadata.get("scenario") or environment)),
        initial_state=str(sample["id"]),
        sample=int(sample.get("epoch", 1)) - 1,
    )
    population = metadata.get("population")
    record = EpisodeRecord(
        key=key,
        population=str(population) if population else None,
        seed=derive_seed(environment, key.initial_state, key.sample),
    )
    messages = tuple(_messages(sample["messages"], _resolver(sample)))
    turns = sum(m.source == "model" and m.speaker == "agent" and not m.tool_calls for m in messages)
    return Conversation(
        record=record,
        messages=messages,
        end=_end(sample, turns),
        calls=tuple(_calls(sample, turns, str(about.get("model", "unknown")))),
        scores=tuple(_scores(sample.get("scores") or {})),
    )


def _end(sample: Mapping[str, Any], turns: int) -> TrajectoryEnd:
    error = sample.get("error")
    if error:
        detail = str(error.get("message", ""))[:_DETAIL] if isinstance(error, dict) else str(error)[:_DETAIL]
        return TrajectoryEnd(
            status="failed", reason="failure", state=IMPORTED, turns=turns, failure="internal", detail=detail
        )
    return TrajectoryEnd(status="complete", reason="turn_limit", state=IMPORTED, turns=turns)


def _messages(messages: Any, resolve: Callable[[str], str]) -> Iterator[MessageRecord]:
    """Yield the messages; a turn ends with a generated reply that calls no tool."""
    turn, begun = 0, False
    for message in messages:
        role = str(message["role"])
        if role not in _SPEAKERS:
            raise ValueError(f"unknown role {role[:40]!r}")
        generated = role == "assistant" and message.get("source", "generate") == "generate"
        calls = tuple(_tool_calls(message.get("tool_calls") or ()))
        if generated and not begun:
            turn, begun = turn + 1, True
        yield MessageRecord(
            turn=turn,
            speaker=_SPEAKERS[role],
            text=resolve(_text(message.get("content", ""))),
            state=IMPORTED,
            source="model" if generated else "tool" if role == "tool" else "scenario",
            tool_calls=calls,
            tool_call_id=message.get("tool_call_id"),
        )
        if generated and not calls:
            begun = False


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for part in content:
        kind = part.get("type")
        parts.append(str(part.get(kind, "")) if kind in ("text", "reasoning") else f"[{kind}]")
    return "\n".join(parts)


def _tool_calls(calls: Any) -> Iterator[ToolCall]:
    for call in calls:
        arguments = call.get("arguments")
        yield ToolCall(
            id=str(call["id"]),
            name=str(call["function"]),
            arguments=arguments if isinstance(arguments, dict) else {"call": arguments},
        )


def _calls(sample: Mapping[str, Any], turns: int, model: str) -> Iterator[CallRecord]:
    """Yield what each model used, all its calls of the sample as one: the log counts tokens by model and sample."""
    for name, usage in (sample.get("model_usage") or {}).items():
        yield CallRecord(
            turn=turns,
            role="agent" if name == model else "judge",
            model=f"inspect:{name}",
            prompt_tokens=sum(_whole(usage.get(f"input_tokens{part}")) for part in ("", *_CACHED)),
            cached_tokens=_whole(usage.get("input_tokens_cache_read")),
            completion_tokens=_whole(usage.get("output_tokens")),
            cost=usage.get("total_cost"),
        )


def _scores(scores: Mapping[str, Any]) -> Iterator[ScoreRecord]:
    for scorer, score in scores.items():
        value = score["value"]
        parts = (
            {f"{scorer}-{name}": part for name, part in value.items()} if isinstance(value, dict) else {scorer: value}
        )
        for name, part in parts.items():
            number = _graded(part)
            if number is not None:
                yield ScoreRecord(
                    turn=WHOLE,
                    rubric=_slug(name),
                    rubric_hash=f"inspect/{_slug(name)}",
                    judge=f"inspect:{scorer}",
                    method="computed",
                    value=number,
                    rationale=str(score["explanation"])[:2_000] if score.get("explanation") else None,
                )


def _graded(value: Any) -> float | None:
    if isinstance(value, str):
        return _GRADES.get(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
