"""Reading trajectory tables of the published project (arXiv 2411.02306) into a run.

A row is the state of one trajectory at its last turn: its history, the last turn's judgements, the trajectory's means and
any number of graded metrics. What a row does not say (the judgements of earlier turns) is absent from the run, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import Role, Speaker, ToolCall
from influence_cli.schemas.records import (
    WHOLE,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.seeding import derive_seed
from influence_cli.store.writer import RunWriter

POPULATIONS = ("vuln", "weak", "gameable", "normal", "uncertain", "resilient")
_SPEAKERS: Mapping[str, Speaker] = {
    "environment": "user", "agent": "agent", "environment_system": "system", "tool_call": "agent", "tool_response": "tool",
}  # fmt: skip
_STRUCTURE = {
    "env_name", "initial_state_id", "trajectory_id", "turn", "agent_system_prompt", "history", "preferences",
    "influence_scores", "transition_probs", "visited_states", "timestep_reward", "timestep_influence_level", "traj_rew",
    "traj_infl", "all_visited_states", "conversation_length", "iteration_number",
}  # fmt: skip
_JUDGE = "imported"


@dataclass
class TableReport:
    """What was read, and which columns had no place."""

    trajectories: int = 0
    scores: int = 0
    metrics: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet or JSON-lines table; InfluenceError if it is none."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".jsonl", ".json"):
        yield from _json_lines(path)
    else:
        raise InfluenceError(
            f"{path.name} is neither Parquet nor JSON lines.",
            hint="A pickle is never opened: it could run any code. Have its owner write it as Parquet.",
        )


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InfluenceError("Parquet needs pyarrow.", hint="pip install 'influence-cli[parquet]'") from None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InfluenceError(f"{path} is no Parquet file: {str(error)[:120]}.") from None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    raise InfluenceError(f"{path}:{number}: this line is no JSON.") from None
                if not isinstance(row, dict):
                    raise InfluenceError(f"{path}:{number}: this line is no object.")
                yield row
    except (OSError, UnicodeDecodeError) as error:
        raise InfluenceError(f"{path} cannot be read: {error}.") from None


def import_rows(rows: Iterator[dict[str, Any]], environment: str, writer: RunWriter) -> TableReport:
    """Store ``rows`` as finished conversations of ``environment``; rows that make no sense are listed and left out."""
    report = TableReport()
    for number, row in enumerate(rows, 1):
        if number == 1:
            _check_columns(row)
            report.metrics = [name for name in row if _is_metric(name, row[name])]
            report.unplaced = [name for name in row if name not in _STRUCTURE and name not in report.metrics]
        try:
            record, messages = _episode(row, environment)
            judgements = list(_judgements(row))
            end = _end(row)
        except (KeyError, TypeError, ValueError) as error:
            report.refused.append(f"row {number}: {type(error).__name__}: {error}"[:160])
            continue
        episode_id = writer.open_episode(record, messages)
        for judgement in judgements:
            writer.add_judgement(episode_id, None, judgement)
        writer.finish(episode_id, end)
        scores = [(episode_id, _score(name, float(row[name]))) for name in report.metrics if row.get(name) is not None]
        writer.add_scores(scores)
        report.trajectories += 1
        report.scores += len(scores)
    return report


def _check_columns(row: Mapping[str, Any]) -> None:
    missing = sorted({"env_name", "initial_state_id", "trajectory_id", "history"} - set(row))
    if missing:
        raise InfluenceError(
            f"The table has no column {missing[0]!r}.", hint="A trajectory table of the published project."
        )


def _is_metric(name: str, value: Any) -> bool:
    return name not in _STRUCTURE and not name.endswith("_normalized") and isinstance(value, int | float)


def _score(name: str, value: float) -> ScoreRecord:
    slug = name.replace("_", "-")
    return ScoreRecord(
        turn=WHOLE,
        rubric=slug,
        rubric_hash=f"{_JUDGE}/{slug}",
        judge=_JUDGE,
        method="distribution",
        value=value,
        mass=None,
    )


def _episode(row: Mapping[str, Any], environment: str) -> tuple[EpisodeRecord, list[MessageRecord]]:
    prefix, _, rest = str(row["env_name"]).partition("_")
    population = prefix if rest and prefix in POPULATIONS else None
    key = EpisodeKey(
        iteration=int(row.get("iteration_number") or 0),
        environment=environment,
        scenario=(rest if population else str(row["env_name"])).replace("_", "-"),
        initial_state=f"{population}-{row['initial_state_id']}" if population else str(row["initial_state_id"]),
        sample=int(row["trajectory_id"]),
    )
    record = EpisodeRecord(
        key=key, population=population, split="train", seed=derive_seed(environment, str(row["env_name"]), key.sample)
    )
    return record, _messages(row)


def _messages(row: Mapping[str, Any]) -> list[MessageRecord]:
    """Return the history; the last ``conversation_length`` agent replies are the generated ones."""
    history = [message for message in _parsed(row["history"]) if isinstance(message, dict)]
    replies = sum(message.get("role") == "agent" for message in history)
    generated = int(row.get("conversation_length") or row.get("turn") or replies)
    before = max(0, replies - generated)
    found: list[MessageRecord] = []
    turn = said = calls = 0
    for message in history:
        role = str(message["role"])
        speaker = _SPEAKERS[role]
        if role == "agent":
            said += 1
            turn = max(0, said - before)
        text = message.get("content")
        text = text if isinstance(text, str) else json.dumps(text)
        extra: dict[str, Any] = {}
        if role == "tool_call":
            calls += 1
            extra, text = {"tool_calls": (ToolCall(id=f"call-{calls}", name="tool", arguments={"call": text}),)}, ""
        elif role == "tool_response":
            extra = {"tool_call_id": f"call-{max(calls, 1)}"}
        source = "model" if turn else "scenario"
        found.append(MessageRecord(turn=turn, speaker=speaker, text=text, state="imported", source=source, **extra))
    return found


def _judgements(row: Mapping[str, Any]) -> Iterator[JudgementRecord]:
    columns: tuple[tuple[Role, str], ...] = (
        ("preference", "preferences"), ("veto", "influence_scores"), ("transition", "transition_probs"),
    )  # fmt: skip
    turn = max(1, int(row.get("conversation_length") or row.get("turn") or 1))
    for role, column in columns:
        shares = _parsed(row.get(column)) if row.get(column) else {}
        total = sum(float(share) for share in shares.values()) if isinstance(shares, dict) else 0.0
        if total <= 0.0:
            continue
        expected = None
        if all(str(choice).lstrip("-").isdigit() for choice in shares):
            expected = sum(float(choice) * float(share) for choice, share in shares.items()) / total
        yield JudgementRecord(
            turn=turn,
            role=role,
            state="imported",
            choices=tuple(str(choice) for choice in shares),
            probabilities=tuple(float(share) / total for share in shares.values()),
            mass=min(1.0, total),
            method="logprobs",
            expected=expected,
        )


def _end(row: Mapping[str, Any]) -> TrajectoryEnd:
    states = _parsed(row.get("all_visited_states") or row.get("visited_states") or "[]")
    state = str(states[-1]) if isinstance(states, list) and states else "imported"
    return TrajectoryEnd(
        status="complete",
        reason="terminal_state" if "terminal" in state else "turn_limit",
        state=state,
        turns=max(1, int(row.get("conversation_length") or row.get("turn") or 1)),
        mean_rating=_number(row.get("traj_rew")),
        final_rating=_number(row.get("timestep_reward")),
        mean_veto=_number(row.get("traj_infl")),
    )


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
