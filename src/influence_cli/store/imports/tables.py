"""Trajectory tables of the published project (arXiv 2411.02306).

A row is the state of one trajectory at its last turn: its history, the last turn's judgements, the trajectory's means and
any number of graded metrics. What a row does not say (the judgements of earlier turns) is absent from the run, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
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
from influence_cli.store.imports.conversation import IMPORTED, Conversation, ImportReport, Refused

POPULATIONS = ("vuln", "weak", "gameable", "normal", "uncertain", "resilient")
NEEDED = ("env_name", "initial_state_id", "trajectory_id", "history")
_SPEAKERS: Mapping[str, Speaker] = {
    "environment": "user", "agent": "agent", "environment_system": "system", "tool_call": "agent", "tool_response": "tool",
}  # fmt: skip
_STRUCTURE = {
    *NEEDED, "turn", "agent_system_prompt", "preferences", "influence_scores", "transition_probs", "visited_states",
    "timestep_reward", "timestep_influence_level", "traj_rew", "traj_infl", "all_visited_states", "conversation_length",
    "iteration_number",
}  # fmt: skip
_OUR_NAMES = {
    "consumed": "took-action",
    "convincing_not_to_book": "convinces-not-to-book",
    "dissuade_booking": "dissuade-booking",
    "pretend_tool_call_worked": "pretends-call-worked",
    "pretend_tool_call_wasnt_made": "pretends-no-call",
    "apologizes_tool_call_not_working": "apologises-for-failure",
    "explicit_mention_of_error": "mentions-error",
    "agent_implies_error_occurred": "implies-error",
}
"""Metrics that ask what one of our rubrics asks, under its name."""


def table_conversations(
    rows: Iterable[Mapping[str, Any]], environment: str, report: ImportReport
) -> Iterator[Conversation | Refused]:
    """Yield the conversations of a table's rows; rows that make no sense are refused. InfluenceError for another table."""
    metrics: list[str] | None = None
    for number, row in enumerate(rows, 1):
        if metrics is None:
            _check_columns(row)
            metrics = [name for name in row if _is_metric(name, row[name])]
            report.unplaced = sorted(set(row) - _STRUCTURE - set(metrics))
        try:
            yield _conversation(row, environment, metrics)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            told = f"no {error}" if isinstance(error, KeyError) else str(error).split("\n", 1)[0]
            yield Refused(f"row {number}", told)


def _check_columns(row: Mapping[str, Any]) -> None:
    missing = [name for name in NEEDED if name not in row]
    if missing:
        raise InfluenceError(
            f"The table has no column {missing[0]!r}.", hint="It is no trajectory table of the published project."
        )


def _is_metric(name: str, value: Any) -> bool:
    return name not in _STRUCTURE and not name.endswith("_normalized") and isinstance(value, int | float)


def _conversation(row: Mapping[str, Any], environment: str, metrics: Iterable[str]) -> Conversation:
    return Conversation(
        record=_record(row, environment),
        messages=tuple(_messages(row)),
        end=_end(row),
        judgements=tuple(_judgements(row)),
        scores=tuple(_score(name, value) for name in metrics if (value := _number(row.get(name))) is not None),
    )


def _score(name: str, value: float) -> ScoreRecord:
    slug = _OUR_NAMES.get(name, name.replace("_", "-"))
    computed = name == "consumed"
    return ScoreRecord(
        turn=WHOLE,
        rubric=slug,
        rubric_hash=f"{IMPORTED}/{slug}",
        judge=IMPORTED,
        method="computed" if computed else "distribution",
        value=value,
    )


def _record(row: Mapping[str, Any], environment: str) -> EpisodeRecord:
    prefix, _, rest = str(row["env_name"]).partition("_")
    population = prefix if rest and prefix in POPULATIONS else None
    name = str(row["initial_state_id"])
    key = EpisodeKey(
        iteration=_whole(row.get("iteration_number")) or 0,
        environment=environment,
        scenario=(rest if population else str(row["env_name"])).replace("_", "-"),
        initial_state=f"{population}-{name}" if population else name,
        sample=int(row["trajectory_id"]),
    )
    return EpisodeRecord(
        key=key, population=population, split="train", seed=derive_seed(environment, str(row["env_name"]), key.sample)
    )


def _messages(row: Mapping[str, Any]) -> Iterator[MessageRecord]:
    """Yield the history; the last ``conversation_length`` agent replies are the generated ones."""
    history = _parsed(row["history"])
    if not isinstance(history, list) or not history:
        raise ValueError("the history is no list of messages")
    replies = sum(message["role"] == "agent" for message in history)
    before = max(0, replies - _turns(row, replies))
    turn = said = calls = 0
    for message in history:
        role = str(message["role"])
        if role not in _SPEAKERS:
            raise ValueError(f"unknown role {role[:40]!r}")
        if role == "agent":
            said += 1
            turn = max(0, said - before)
        text = message.get("content")
        text = text if isinstance(text, str) else json.dumps(text)
        extra: dict[str, Any] = {}
        if role == "tool_call":
            calls += 1
            extra, text = {"tool_calls": (ToolCall(id=f"call-{calls}", name="tool", arguments=_arguments(text)),)}, ""
        elif role == "tool_response":
            extra = {"tool_call_id": f"call-{max(calls, 1)}"}
        source = "model" if turn else "scenario"
        yield MessageRecord(turn=turn, speaker=_SPEAKERS[role], text=text, state=IMPORTED, source=source, **extra)


def _arguments(text: str) -> dict[str, Any]:
    """Return a call's arguments: the object that the text is, or the text itself."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"call": text}


def _judgements(row: Mapping[str, Any]) -> Iterator[JudgementRecord]:
    columns: tuple[tuple[Role, str], ...] = (
        ("preference", "preferences"), ("veto", "influence_scores"), ("transition", "transition_probs"),
    )  # fmt: skip
    for role, column in columns:
        shares = _parsed(row.get(column)) if row.get(column) else {}
        total = math.fsum(float(share) for share in shares.values()) if isinstance(shares, dict) else 0.0
        if total <= 0.0 or not math.isfinite(total):
            continue
        expected = None
        if all(str(choice).lstrip("-").isdigit() for choice in shares):
            expected = math.fsum(float(choice) * float(share) for choice, share in shares.items()) / total
        yield JudgementRecord(
            turn=_turns(row, 1),
            role=role,
            state=IMPORTED,
            choices=tuple(str(choice) for choice in shares),
            probabilities=tuple(float(share) / total for share in shares.values()),
            mass=min(1.0, total),
            method="logprobs",
            expected=expected,
        )


def _end(row: Mapping[str, Any]) -> TrajectoryEnd:
    states = _parsed(row.get("all_visited_states") or row.get("visited_states") or "[]")
    state = str(states[-1]) if isinstance(states, list) and states else IMPORTED
    return TrajectoryEnd(
        status="complete",
        reason="terminal_state" if "terminal" in state else "turn_limit",
        state=state,
        turns=_turns(row, 1),
        mean_rating=_number(row.get("traj_rew")),
        final_rating=_number(row.get("timestep_reward")),
        mean_veto=_number(row.get("traj_infl")),
    )


def _turns(row: Mapping[str, Any], otherwise: int) -> int:
    return max(1, _whole(row.get("conversation_length")) or _whole(row.get("turn")) or otherwise)


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
