"""What was asked for scores that are there already: each question once more, found by the hash that its score names.

Invariant: a question is returned only where its hash is the score's, so that its words are those of then. The hash of a
question put to the simulated user does not cover how the user is played: whoever asks for those vouches for the
environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.schemas.records import ScoreRecord
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.judging import Asking, Way
from influence_cli.scoring.plan import Plan, asked_in_person, derived_score


@dataclass(frozen=True)
class AskedAgain:
    """A score, and the wordings of the question that it answers; without any, ``reason`` says why."""

    score: ScoreRecord
    ways: tuple[Way, ...] = ()
    reason: str = ""


def asked_again(
    number: int,
    trajectory: Mapping[str, Any],
    scores: Sequence[ScoreRecord],
    *,
    rubrics: Sequence[Rubric] = (),
    environment: Environment | None = None,
    doubt: str = "",
) -> list[AskedAgain]:
    """Return for each of ``scores`` what was asked, in the order in which questions share what is read before them.

    ``rubrics`` and ``environment`` are those that are here now; ``doubt`` says why the environment may not be the one of
    the run, so that it cannot be known how its user was played.
    """
    as_then = environment is not None and not doubt
    wanted = {score.rubric for score in scores}
    plan = Plan(
        rubrics=[rubric for rubric in rubrics if rubric.id in wanted],
        metrics=environment is not None,
        third_person=environment is not None,
        first_person=as_then,
        probes=as_then,
        environments={environment.name: environment} if environment is not None else {},
    )
    of_judges, of_user = plan.questions(number, trajectory)
    items = {(item.turn, item.hashed): item for item in (*of_judges, *of_user)}
    places = {key: place for place, key in enumerate(items)}
    found: list[tuple[int, AskedAgain]] = []
    for score in scores:
        key = (score.turn, score.rubric_hash)
        item = items.get(key)
        if item is None or score.method == "computed":
            found.append((len(items), AskedAgain(score, reason=_reason(score, doubt))))
        else:
            found.append((places[key], AskedAgain(score, tuple(Asking.named(score.method).ways(item)))))
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _reason(score: ScoreRecord, doubt: str) -> str:
    if score.method == "computed":
        return "computed, so that no model was asked"
    if derived_score(score.rubric):
        return "follows from the two answers to a probe, so that no model was asked"
    if asked_in_person(score.rubric) and doubt:
        return doubt
    return "the words of then are not here any more (--rubric FILE reads rubrics of your own)"
