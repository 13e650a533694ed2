"""Distributions are normalised, and draws follow them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, Distribution

weights = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=10).filter(lambda w: sum(w) > 0.1)


def distribution(values: list[float]) -> Distribution:
    total = sum(values)
    choices = tuple(str(i + 1) for i in range(len(values)))
    return Distribution(choices=choices, probabilities=tuple(v / total for v in values), mass=1.0, method="exact")


@given(weights)
def test_the_expected_value_lies_between_the_choices(values):
    assert 1.0 - 1e-9 <= (distribution(values).expected_value or 0.0) <= len(values) + 1e-9


@given(weights, st.floats(0.0, 1.0, exclude_max=True))
def test_only_possible_choices_are_drawn(values, point):
    drawn = distribution(values).draw(point)
    assert distribution(values).probability(drawn) > 0.0


def test_words_have_no_expected_value():
    assert Distribution(choices=("a",), probabilities=(1.0,), mass=1.0, method="exact").expected_value is None


@pytest.mark.parametrize("bad", [(0.5, 0.4), (1.5, -0.5), (1.0,), (float("nan"), 1.0)])
def test_what_is_not_normalised_is_refused(bad):
    with pytest.raises(ValidationError):
        Distribution(choices=("a", "b"), probabilities=bad, mass=1.0, method="exact")


@pytest.mark.parametrize("choices", [("a", "a"), ("a", " b"), ("a", ""), ("a",)])
def test_choices_are_different_and_bare(choices):
    with pytest.raises(ValidationError):
        ChoiceRequest(role="veto", messages=(ChatMessage(role="user", content="x"),), choices=choices)
