"""From a query to SQL over a run's tables: which fields there are, and what each is made of.

Invariant: what a person typed reaches SQLite only as a bound value, never as a part of the statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from influence_cli.store.filter_language import Both, Comparison, Either, Node, Not, QueryError, Words

Kind = Literal["number", "text"]


@dataclass(frozen=True)
class Field:
    """A column of the table of trajectories; ``sql`` is over ``e`` (episode) and ``t`` (trajectory)."""

    name: str
    title: str
    kind: Kind
    sql: str
    told: str
    values: tuple[Any, ...] = ()


_FLAG = "EXISTS (SELECT 1 FROM label l WHERE l.episode_id = e.id AND l.flag = 1)"

FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        Field("number", "#", "number", "e.id", "Number of the conversation in the run."),
        Field("iteration", "iter", "number", "e.iteration", "Training iteration."),
        Field("environment", "environment", "text", "e.environment", "Environment."),
        Field("scenario", "scenario", "text", "e.scenario", "Scenario."),
        Field("state", "initial state", "text", "e.initial_state", "Initial state."),
        Field("sample", "sample", "number", "e.sample", "Number among the conversations of one initial state."),
        Field("population", "population", "text", "e.population", "Kind of user."),
        Field("cue", "cue", "text", "e.cue", "How the agent could tell the population."),
        Field("split", "split", "text", "e.split", "train or heldout."),
        Field("status", "status", "text", "t.status", "complete, failed or running."),
        Field("reason", "end", "text", "t.reason", "Why it ended."),
        Field("length", "turns", "number", "t.turns", "Agent replies."),
        Field("rating", "rating", "number", "t.mean_rating", "Mean rating over turns."),
        Field("final", "final", "number", "t.final_rating", "Rating of the last reply."),
        Field("veto", "veto", "number", "t.mean_veto", "Mean veto over turns."),
        Field(
            "failures", "fail", "number", "(t.unusable + (t.status = 'failed'))", "Unusable judgements, and its own failure."
        ),
        Field("failure", "failure", "text", "t.failure", "Why it failed."),
        Field(
            "labels", "labels", "number", "(SELECT count(*) FROM label l WHERE l.episode_id = e.id)", "Labels by people."
        ),
        Field("flag", "flag", "number", _FLAG, "1 if somebody flagged it."),
    )
}  # fmt: skip
ALIASES = {"turns": "length", "iter": "iteration", "env": "environment", "pop": "population", "id": "number"}
_SCORE = "(SELECT avg(s.value) FROM score s WHERE s.episode_id = e.id AND +s.rubric = ? AND s.usable = 1)"
# The plus keeps SQLite from walking all scores of a rubric for every conversation: measured, 3 minutes against 0.2 s.
_LABEL = (
    "(SELECT l.value FROM label l WHERE l.episode_id = e.id AND l.rubric = ? AND l.value NOT NULL"
    " ORDER BY l.time DESC LIMIT 1)"
)
_PROFILE = "CAST(json_extract(e.profile, ?) AS TEXT)"
_PREFIXED = re.compile(r"(score|label|profile)\.(?P<rubric>[a-z0-9_][a-z0-9._-]*)")
_NUMBERED = ("label.", "profile.")
"""Fields whose values are texts, some of which are numbers."""
EMPTY = "none"
"""Compared with this, a field is asked whether it holds anything."""


def field_of(name: str) -> Field | None:
    """Return the field called ``name`` (also ``score.RUBRIC``, ``label.RUBRIC``, ``profile.KEY``); None if there is none."""
    name = ALIASES.get(name, name)
    if name in FIELDS:
        return FIELDS[name]
    match = _PREFIXED.fullmatch(name)
    if match is None:
        return None
    rubric = match["rubric"]
    if match[1] == "score":
        return Field(name, rubric, "number", _SCORE, f"Mean score by {rubric}.", (rubric,))
    if match[1] == "profile":
        return Field(name, rubric, "text", _PROFILE, f"{rubric}, as the user's profile has it.", (f'$."{rubric}"',))
    return Field(name, f"\u270e{rubric}", "text", _LABEL, f"Last label by {rubric}.", (rubric,))


def is_field(name: str) -> bool:
    """Return whether a query may name ``name``."""
    return field_of(name) is not None


Found = Callable[[Words], tuple[str, tuple[Any, ...]]]
"""Returns the SQL, and its values, of the numbers of the conversations that hold some words."""


def condition(node: Node | None, found: Found) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL condition of a query and its values; QueryError where a value does not fit its field."""
    if node is None:
        return "1", ()
    match node:
        case Words():
            sql, values = found(node)
            return f"e.id IN ({sql})", values
        case Not(term):
            sql, values = condition(term, found)
            return f"NOT coalesce({sql}, 0)", values
        case Both(terms):
            return _joined(" AND ", terms, found)
        case Either(terms):
            return _joined(" OR ", terms, found)
        case Comparison():
            return _comparison(node)


def _joined(word: str, terms: Sequence[Node], found: Found) -> tuple[str, tuple[Any, ...]]:
    parts = [condition(term, found) for term in terms]
    return f"({word.join(sql for sql, _ in parts)})", tuple(value for _, values in parts for value in values)


def _comparison(node: Comparison) -> tuple[str, tuple[Any, ...]]:
    field = field_of(node.field)
    assert field is not None  # the parser asked before
    operator = "=" if node.operator == ":" else node.operator
    if node.value == EMPTY and operator in ("=", "!="):
        return f"{field.sql} IS {'NOT ' if operator == '!=' else ''}NULL", field.values
    if field.kind == "number":
        try:
            number = float(node.value)
        except ValueError:
            hint = f"For instance {field.name}>3, or {field.name}:{EMPTY}."
            raise QueryError(f"{field.name} is a number, not {node.value!r}.", node.value_column, hint=hint) from None
        return f"{field.sql} {operator} ?", (*field.values, number)
    if operator in ("=", "!=") and "*" in node.value:
        negation = "NOT " if operator == "!=" else ""
        pattern = re.sub(r"([\[?])", r"[\1]", node.value.lower())
        return f"lower({field.sql}) {negation}GLOB ?", (*field.values, pattern)
    if operator in ("=", "!="):
        return f"{field.sql} {operator} ? COLLATE NOCASE", (*field.values, node.value)
    if field.name.startswith(_NUMBERED):
        return _as_number(field, operator, node)
    raise QueryError(
        f"{field.name} is text: it has no {node.operator}.", node.column, hint=f"{field.name}:{node.value}"
    )


def _as_number(field: Field, operator: str, node: Comparison) -> tuple[str, tuple[Any, ...]]:
    """Labels are text, and numbers where a rubric's choices are; in profiles only numbers are compared."""
    if field.name.startswith("profile."):
        sql = "CASE WHEN json_type(e.profile, ?) IN ('integer', 'real') THEN json_extract(e.profile, ?) END"
        field = replace(field, sql=sql, values=field.values * 2)
    try:
        return f"CAST({field.sql} AS REAL) {operator} ?", (*field.values, float(node.value))
    except ValueError:
        raise QueryError(f"{node.value!r} is no number.", node.value_column) from None
