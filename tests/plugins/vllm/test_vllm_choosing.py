"""Closed questions from the log-probabilities of named tokens: exact for every tokenizer and model."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.api import CallFailedError
from influence_cli.seeding import unit_draw
from influence_vllm.choosing import ChoiceQuestions

VOCABULARY = 9
ENDING = (7, 8)
choices = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple), min_size=2, max_size=8, unique=True)


def next_token(seed, answer):
    """Return a model's log-probabilities of all tokens after ``answer``: any model will do."""
    weights = [unit_draw(seed, *answer, "token", token) for token in range(VOCABULARY)]
    total = math.fsum(weights)
    return [math.log(weight / total) for weight in weights]


def alone(seed, choice):
    """Return the log-probability of one choice as a whole answer, token by token."""
    steps = [next_token(seed, choice[:place])[token] for place, token in enumerate(choice)]
    after = next_token(seed, choice)
    return math.fsum(steps) + math.log(math.fsum(math.exp(after[token]) for token in ENDING))


@given(choices, st.integers(0, 100))
def test_a_choice_is_worth_all_its_tokens_and_its_end(options, seed):
    asked = ChoiceQuestions(options, ENDING)
    seen = [{token: next_token(seed, each.answer)[token] for token in each.wanted} for each in asked.questions]
    found = asked.log_probabilities(seen)
    assert found == pytest.approx([alone(seed, choice) for choice in options])
    assert math.fsum(map(math.exp, found)) < 1.0 + 1e-9


@given(choices)
def test_no_place_is_looked_at_twice_and_none_without_need(options):
    asked = ChoiceQuestions(options, ENDING)
    places = [each.answer for each in asked.questions]
    beginnings = {choice[:length] for choice in options for length in range(len(choice) + 1)}
    assert len(set(places)) == len(places)
    assert set(places) == beginnings
    assert asked.longest == max(map(len, options)) + 1


def test_what_is_impossible_is_worth_nothing():
    asked = ChoiceQuestions([(1,), (2,)], ENDING)
    seen = [dict.fromkeys(each.wanted, -math.inf) for each in asked.questions]
    assert asked.log_probabilities(seen) == [-math.inf, -math.inf]


def test_more_than_the_engine_shows_at_one_place_is_refused():
    with pytest.raises(CallFailedError, match="at most 128"):
        ChoiceQuestions([(token,) for token in range(200)], ENDING)
