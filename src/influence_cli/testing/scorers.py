"""The conformance suite for scorers: what every one promises, as tests.

Subclass it where your tests are, and give it your scorer::

    class TestMyScorer(ScorerConformance):
        @pytest.fixture
        def scorer(self):
            return MyScorer(MyOptions())
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from influence_cli.environments.environment import Environment
from influence_cli.scoring.scorers import Measured, Scorer

_NAME = re.compile(r"[a-z0-9]+([-_:][a-z0-9]+)*")


def message(turn: int, speaker: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a message of a trajectory document."""
    source = "tool" if speaker == "tool" else "model" if turn else "scenario"
    facts: dict[str, Any] = {"finish_reason": None, "tool_calls": [], "tool_call_id": None, "outcome": None}
    return {"turn": turn, "speaker": speaker, "text": text, "state": "talking", "source": source, **facts, **more}


def trajectory(*messages: Mapping[str, Any], state: str = "ended") -> dict[str, Any]:
    """Return a document ``influence.trajectory/1`` that holds ``messages``."""
    where = {"iteration": 0, "environment": "none", "scenario": "some", "initial_state": "one", "sample": 0, "seed": 1}
    ends = {"status": "complete", "reason": "terminal_state", "state": state, "mean_rating": None, "final_rating": None}
    return {
        "schema": "influence.trajectory/1",
        **where,
        "population": "gameable",
        "cue": "none",
        "split": "train",
        "profile": {"name": "Ada"},
        **ends,
        "turns": max((m["turn"] for m in messages), default=0),
        "mean_veto": None,
        "unusable": 0,
        "failure": None,
        "detail": None,
        "messages": [dict(each) for each in messages],
        "judgements": [],
    }


CALL = {"id": "1", "name": "book", "arguments": {"when": "tonight"}}
TRAJECTORIES = (
    trajectory(),
    trajectory(message(0, "user", "Should I?")),
    trajectory(message(0, "user", "Should I?"), message(1, "agent", "Think it over."), message(1, "user", "Hm.")),
    trajectory(message(0, "agent", "Written before."), message(1, "agent", "\u202e\x1b[31m \u00df\U0001f600" * 50)),
    trajectory(
        message(0, "user", "A table, please."),
        message(1, "agent", "", tool_calls=[CALL]),
        message(1, "tool", "error: full", tool_call_id="1", outcome="failure"),
        message(1, "agent", "Your table is booked, reference QX-1234."),
        message(2, "agent", "   "),
    ),
)
"""Conversations without anything, without a reply, with odd text, with tools."""


class ScorerConformance:
    """Tests of one scorer; override ``scorer``, and ``trajectories`` or ``environment`` if yours needs others."""

    trajectories = TRAJECTORIES
    environment: Environment | None = None

    @pytest.fixture
    def scorer(self) -> Scorer:
        """Return the scorer under test."""
        raise NotImplementedError

    def test_it_is_a_scorer(self, scorer: Scorer) -> None:
        """It has everything that the protocol names."""
        assert isinstance(scorer, Scorer)
        assert scorer.version

    def test_it_finds_something(self, scorer: Scorer) -> None:
        """At least one of the trajectories gets a score."""
        assert any(self._found(scorer, each) for each in self.trajectories)

    def test_scores_are_named_finite_and_about_the_conversation(self, scorer: Scorer) -> None:
        """Names are in small letters, values finite, turns 0 or one that the conversation had."""
        for each in self.trajectories:
            turns = {0, *(m["turn"] for m in each["messages"])}
            for name, turn, value in self._found(scorer, each):
                assert _NAME.fullmatch(name), name
                assert math.isfinite(value), name
                assert turn in turns, name

    def test_each_score_comes_once(self, scorer: Scorer) -> None:
        """No name comes twice for one turn: the second would take the first one's place."""
        for each in self.trajectories:
            places = [(name, turn) for name, turn, _ in self._found(scorer, each)]
            assert len(places) == len(set(places))

    def test_it_repeats_itself(self, scorer: Scorer) -> None:
        """The same trajectory is scored alike."""
        for each in self.trajectories:
            assert self._found(scorer, each) == self._found(scorer, each)

    def test_it_changes_nothing(self, scorer: Scorer) -> None:
        """The trajectory is left as it was."""
        for each in self.trajectories:
            before = copy.deepcopy(each)
            self._found(scorer, each)
            assert each == before

    def _found(self, scorer: Scorer, each: Mapping[str, Any]) -> list[Measured]:
        return [Measured(*score) for score in scorer.scores(each, self.environment)]
