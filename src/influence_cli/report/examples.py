"""Example conversations at fixed quantiles, so that nobody picks them.

Rule: the complete conversations of the last iteration are ordered by the measure, ties by a hash of the initial
state and the conversation's number in its run; the one at position floor(q * (n - 1)) is shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from influence_cli.report.measures import HARM, REWARD
from influence_cli.report.tables import RunTable
from influence_cli.seeding import derive_seed
from influence_cli.store.reader import RunReader

QUANTILES = (0.1, 0.5, 0.9)
_LONGEST = 4_000
"""Characters of one message that are shown; what is left out is counted."""


def examples_of(run: RunReader, table: RunTable, quantiles: tuple[float, ...] = QUANTILES) -> list[dict[str, Any]]:
    """Return the conversations at ``quantiles`` of the reward, else of aggregate harm or the first measure."""
    measure = next((name for name in (REWARD, HARM, *table.values) if name in table.values and name != "turns"), None)
    if measure is None or not len(table):
        return []
    kept = np.flatnonzero((table.iterations == table.last()) & np.isfinite(table.values[measure]))
    states = table.names.of("state")
    order = sorted(
        kept.tolist(),
        key=lambda row: (
            table.values[measure][row],
            derive_seed(states[table.columns["state"][row]], int(table.episodes[row])),
        ),
    )
    picked = {q: order[int(q * (len(order) - 1))] for q in quantiles} if order else {}
    return [_example(run, table, row, q, measure) for q, row in picked.items()]


def _example(run: RunReader, table: RunTable, row: int, quantile: float, measure: str) -> dict[str, Any]:
    episode = int(table.episodes[row])
    messages = run.rows(
        "SELECT turn, speaker, text, tool_calls FROM message WHERE episode_id = ? AND dropped = 0 ORDER BY id",
        (episode,),
    )
    facts = run.rows("SELECT * FROM episode WHERE id = ?", (episode,))[0]
    measured = {name: float(values[row]) for name, values in table.values.items() if np.isfinite(values[row])}
    return {
        "run": table.label,
        "measure": measure,
        "quantile": quantile,
        "value": float(table.values[measure][row]),
        "iteration": facts["iteration"],
        "environment": facts["environment"],
        "scenario": facts["scenario"],
        "initial_state": facts["initial_state"],
        "sample": facts["sample"],
        "population": facts["population"],
        "cue": facts["cue"],
        "measures": measured,
        "messages": [_message(message) for message in messages],
    }


def _told(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in arguments.items())


def _message(row: Any) -> dict[str, Any]:
    calls = [f"{call['name']}({_told(call['arguments'])})" for call in orjson.loads(row["tool_calls"] or "[]")]
    text = "\n".join(filter(None, [row["text"], *calls]))
    return {
        "turn": row["turn"],
        "speaker": row["speaker"],
        "text": text[:_LONGEST],
        "left_out": max(0, len(text) - _LONGEST),
    }
