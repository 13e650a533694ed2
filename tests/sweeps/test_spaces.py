"""Spaces are read as they are written, and whatever else stands there is told in one line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.documents import parse_document
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.spaces import Choices, Integers, Reals, ends, parse_dimension, written
from influence_cli.settings import as_yaml, parse_assignment, resolve_settings

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def dimensions(draw):
    kind = draw(st.sampled_from(["choices", "int", "uniform", "log"]))
    if kind == "choices":
        return Choices(values=tuple(draw(st.lists(values, min_size=1, max_size=5, unique_by=json.dumps))))
    if kind == "int":
        low, high = sorted(draw(st.lists(st.integers(-(10**17), 10**17), min_size=2, max_size=2, unique=True)))
        return Integers(low=low, high=high)
    positive = st.floats(1e-300, 1e300)
    low, high = sorted(
        draw(st.lists(positive if kind == "log" else st.floats(-1e300, 1e300), min_size=2, max_size=2, unique=True))
    )
    return Reals(low=low, high=high, log=kind == "log")


@given(dimensions())
def test_what_is_written_is_read_back(dimension):
    assert parse_dimension(written(dimension)) == dimension


@given(dimensions())
def test_both_ends_or_every_choice_stand_for_a_dimension(dimension):
    found = ends(dimension)
    assert len(found) == (len(dimension.values) if isinstance(dimension, Choices) else 2)


@given(st.text(max_size=40) | st.sampled_from(["log(", "int(1,2", "1..", "..", "uniform(1,1)", "log(0,1)"]) | values)
def test_anything_else_is_refused_in_words(value):
    try:
        found = parse_dimension(value)
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(error)
    else:
        assert parse_dimension(written(found)) == found


@given(values)
def test_a_value_on_the_command_line_is_read_back(value):
    try:
        key, found = parse_assignment(f"a.b={as_yaml(value)}")
    except InfluenceError as error:
        assert "control character" in str(error) or "stands twice" in str(error) or "A key must be text" in str(error)
        return
    assert key == "a.b"
    assert found == value or (isinstance(value, float) and math.isclose(found, value))
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("[1, 4, 16]", Choices(values=(1, 4, 16))),
        ("[a, 2.5, null, true]", Choices(values=("a", 2.5, None, True))),
        ("1..8", Integers(low=1, high=8)),
        ("int(1, 8)", Integers(low=1, high=8)),
        ("-2 .. 3", Integers(low=-2, high=3)),
        ("0.0..1", Reals(low=0.0, high=1.0)),
        ("uniform(0,1)", Reals(low=0.0, high=1.0)),
        ("log(1e-6,1e-4)", Reals(low=1e-6, high=1e-4, log=True)),
        ("1e-6..1e-4", Reals(low=1e-6, high=1e-4)),
    ],
)
def test_the_forms_of_the_manual(text, dimension, tmp_path):
    assert parse_dimension(parse_document(text, tmp_path).data) == dimension


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "the list is empty"),
        ([1, 2, 1], "1 stands twice in the list"),
        ("log(-1,1)", "a logarithm needs numbers above zero, not -1"),
        ("log(0,1)", "a logarithm needs numbers above zero, not 0"),
        ("uniform(2,1)", "the lower end 2 must be below the upper end 1"),
        ("int(1,2.5)", "'2.5' is no whole number"),
        ("uniform(a,1)", "'a' is no number"),
        ("uniform(0,inf)", "'inf' is no number to search up to"),
        ("uniform(-1e308,1e308)", "the ends are too far apart"),
        (3, "3 is one value; write [a,b,c]"),
        ("nonsense", "'nonsense' is no space; write [a,b,c]"),
        ({"a": 1}, "{'a': 1} is one value"),
    ],
)
def test_what_is_wrong_is_said(value, told):
    with pytest.raises(
        ValueError,
        match="^" + "".join(f"[{c}]" if c in "[](){}" else c for c in told).replace("[[]", r"\[").replace("[]]", r"\]"),
    ):
        parse_dimension(value)


def test_settings_of_a_trial_take_what_is_put_on_its_command_line():
    given_ = [f"samples={as_yaml(4)}", f"selection.fraction={as_yaml('1/4')}", f"algorithm.options.lr={as_yaml(1e-05)}"]
    config = resolve_settings(TrainConfig, assignments=given_)
    assert (config.samples, config.selection.fraction, config.algorithm.options["lr"]) == (4, 0.25, 1e-05)
