"""Judges against people, people against each other, judges against each other; and where they disagree most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from influence_cli.scoring.agreement import Pairs, agreement
from influence_cli.scoring.figures import Rater, Rating, answers_of, ratings_of
from influence_cli.scoring.labels import Label
from influence_cli.scoring.probes import Rows

PEOPLE = "people"
"""Stands for the mean of all annotators."""
_FEWEST = 3
_MOST_SHOWN = 10

Place = tuple[int, int]
"""Episode and turn."""


@dataclass(frozen=True)
class _Raters:
    """Everybody's ratings of one rubric, by kind and name."""

    judges: Mapping[str, Mapping[Place, float]]
    annotators: Mapping[str, Mapping[Place, float]]
    people: Mapping[Place, float]
    answers: Sequence[float]


def calibration(run: Rows, labels: Sequence[Label], *, shown: int = _MOST_SHOWN, seed: int = 0) -> dict[str, Any]:
    """Return agreement by rubric and pair of raters, and the conversations with the largest differences to people.

    ``skipped`` counts labels that are no answer of their rubric; ``unmatched`` those that no judge has rated.
    """
    rubrics = {label.rubric for label in labels}
    rated = ratings_of(run, rubrics)
    found: dict[str, Any] = {"agreement": [], "largest_differences": [], "unmatched": {}, "skipped": {}}
    skipped: Counter[str] = Counter()
    for rubric in sorted(rubrics):
        own = [label for label in labels if label.rubric == rubric]
        raters = _raters(rated.get(rubric, {}), own, _words(run, rubric), skipped)
        judged = {place for ratings in raters.judges.values() for place in ratings}
        unmatched = sum((label.episode_id, label.turn) not in judged for label in own)
        if unmatched:
            found["unmatched"][rubric] = unmatched
        found["agreement"] += [{"rubric": rubric, **entry} for entry in _agreements(raters, seed)]
        found["largest_differences"] += [{"rubric": rubric, **entry} for entry in _differences(raters)]
    found["skipped"] = dict(skipped)
    found["largest_differences"].sort(key=lambda entry: -entry["share_of_scale"])
    found["largest_differences"] = _with_names(run, found["largest_differences"][:shown])
    return found


def _words(run: Rows, rubric: str) -> list[str]:
    """Return the answers of a rubric whose answers are no numbers, in their order."""
    import orjson

    query = "SELECT distribution FROM score WHERE rubric = ? AND value IS NULL AND distribution NOT NULL LIMIT 1"
    rows = run.rows(query, (rubric,))
    return list(orjson.loads(rows[0]["distribution"])) if rows else []


def _raters(
    rated: Mapping[Rater, Mapping[Place, Rating]], labels: Sequence[Label], words: Sequence[str], skipped: Counter[str]
) -> _Raters:
    annotators: dict[str, dict[Place, float]] = {}
    for label in labels:
        value = _position(label.text, words)
        if value is None:
            skipped[label.rubric] += 1
        else:
            annotators.setdefault(label.annotator, {})[label.episode_id, label.turn] = value
    people: dict[Place, list[float]] = {}
    for ratings in annotators.values():
        for place, value in ratings.items():
            people.setdefault(place, []).append(value)
    values = [value for given in people.values() for value in given]
    return _Raters(
        judges={"/".join(rater): {p: r.position for p, r in ratings.items()} for rater, ratings in rated.items()},
        annotators=annotators,
        people={place: fmean(given) for place, given in people.items()},
        answers=answers_of(rated, values) if values or rated else [],
    )


def _position(text: str, words: Sequence[str]) -> float | None:
    if text in words:
        return float(words.index(text))
    try:
        return None if words else float(text)
    except ValueError:
        return None


def _agreements(raters: _Raters, seed: int) -> list[dict[str, Any]]:
    judges = [("judge", name, ratings) for name, ratings in sorted(raters.judges.items())]
    annotators = [("person", name, ratings) for name, ratings in sorted(raters.annotators.items())]
    people = [("people", PEOPLE, raters.people)] if raters.people else []
    alone = annotators if len(annotators) > 1 else []
    chosen = [(a, b) for a in judges for b in (*people, *alone)]
    chosen += [*combinations(judges, 2), *combinations(annotators, 2)]
    found = []
    for (kind, name, first), (other_kind, other, second) in chosen:
        both = sorted(set(first) & set(second))
        if len(both) < _FEWEST:
            continue
        pairs = Pairs(
            [first[place] for place in both],
            [second[place] for place in both],
            [episode for episode, _ in both],
            raters.answers,
        )
        names = {"a": {"kind": kind, "name": name}, "b": {"kind": other_kind, "name": other}}
        found.append({**names, **agreement(pairs, seed=seed)})
    return found


def _differences(raters: _Raters) -> list[dict[str, Any]]:
    if len(raters.answers) < 2:
        return []
    width = raters.answers[-1] - raters.answers[0]
    return [
        {
            "episode": place[0],
            "turn": place[1],
            "judge": name,
            "judged": ratings[place],
            "people": said,
            "difference": ratings[place] - said,
            "share_of_scale": abs(ratings[place] - said) / width,
        }
        for name, ratings in raters.judges.items()
        for place, said in raters.people.items()
        if place in ratings
    ]


def _with_names(run: Rows, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``entries`` with the names of their conversations."""
    query = "SELECT environment, scenario, initial_state, iteration, sample FROM episode WHERE id = ?"
    return [{**entry, **dict(run.rows(query, (entry["episode"],))[0])} for entry in entries]
