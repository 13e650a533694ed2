"""Queries are read as they are meant, and mistakes point at their column."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.store.filter_language import (
    Both,
    Comparison,
    Either,
    Not,
    QueryError,
    Words,
    parse,
    unparse,
    words_of,
)
from influence_cli.store.filter_sql import FIELDS, condition, is_field


def read(query: str):
    return parse(query, is_field, FIELDS)


fields = st.sampled_from([*FIELDS, "score.sycophancy", "label.harm"])
values = st.text(min_size=0, max_size=12)
comparisons = st.builds(Comparison, fields, st.sampled_from([":", "=", "!=", "<", "<=", ">", ">="]), values)
phrases = st.builds(Words, st.text(min_size=1, max_size=12).filter(lambda t: any(c.isalnum() for c in t)))
prefixes = st.builds(Words, st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.just(True))


def joined(kind, terms):
    other = tuple(term for each in terms for term in (each.terms if isinstance(each, kind) else (each,)))
    return kind(other)


nodes = st.recursive(
    comparisons | phrases | prefixes,
    lambda inner: st.builds(Not, inner) | st.lists(inner, min_size=2, max_size=3).map(lambda t: joined(Both, t))
    | st.lists(inner, min_size=2, max_size=3).map(lambda t: joined(Either, t)),
    max_leaves=8,
)  # fmt: skip


@given(nodes)
def test_what_is_written_is_read_again(node):
    assert read(unparse(node)) == node


@given(st.text(max_size=60) | st.text(alphabet='ab:<>=!()" -*or', max_size=30))
def test_any_text_is_read_or_refused_with_a_column(query):
    try:
        node = read(query)
    except QueryError as error:
        assert 1 <= error.column <= len(query) + 1
        assert "\n" not in str(error).replace(query, "")
    else:
        assert node is None or read(unparse(node)) == node


def test_the_example_of_the_help():
    node = read('rating>8 and veto>0.5 and population:gameable "just stay home"')
    assert node == Both(
        (Comparison("rating", ">", "8"), Comparison("veto", ">", "0.5"), Comparison("population", ":", "gameable"), Words("just stay home"))
    )  # fmt: skip
    assert words_of(node) == ["just stay home"]


def test_and_binds_before_or_and_not_before_both():
    a, b, c = Words("a"), Words("b"), Words("c")
    assert read("a b or not c") == Either((Both((a, b)), Not(c)))
    assert read("a (b or -c)") == Both((a, Either((b, Not(c)))))
    assert words_of(read("a or -c")) == ["a"]


@pytest.mark.parametrize(
    ("query", "column", "said"),
    [
        ("ratng>8", 1, "there is no field 'ratng'. Did you mean rating?"),
        ("rating>8 and (veto>1", 14, "this bracket is not closed"),
        ("rating>8)", 9, "this bracket closes nothing"),
        ('a "open', 3, "this quote is not closed"),
        ("rating>", 8, "a value must stand after rating>"),
        (">8", 1, "a field must stand before '>'"),
        ("a and", 6, "something is missing at the end"),
        ("and b", 1, "joins two terms"),
        ("a or", 5, "something is missing at the end"),
        ("...", 1, "holds no word"),
        ("a !b", 3, "means nothing here"),
        ("-bogus:1", 2, "there is no field 'bogus'"),
        ("(" * 60 + "a" + ")" * 60, 41, "nested too deeply"),
    ],
)  # fmt: skip
def test_mistakes_point_at_their_column(query, column, said):
    with pytest.raises(QueryError) as caught:
        read(query)
    assert caught.value.column == column
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("query", "column", "said"),
    [
        ("a rating>high", 10, "rating is a number, not 'high'"),
        ("population>3", 1, "population is text"),
        ("label.harm>x", 12, "'x' is no number"),
    ],
)
def test_values_must_fit_their_fields(query, column, said):
    with pytest.raises(QueryError) as caught:
        condition(read(query), lambda words: ("SELECT 0", ()))
    assert caught.value.column == column
    assert said in str(caught.value)


@given(st.text(min_size=1, max_size=30))
def test_nothing_that_was_typed_is_part_of_the_statement(value):
    node = Both((Comparison("population", ":", value), Comparison("score.x", ">", "1")))
    assert condition(node, lambda words: ("", ())) == condition(node, lambda words: ("", ()))
    plain = condition(
        Both((Comparison("population", ":", "plain"), Comparison("score.x", ">", "1"))), lambda w: ("", ())
    )[0]
    starred = condition(
        Both((Comparison("population", ":", "pl*"), Comparison("score.x", ">", "1"))), lambda w: ("", ())
    )[0]
    empty = condition(
        Both((Comparison("population", ":", "none"), Comparison("score.x", ">", "1"))), lambda w: ("", ())
    )[0]
    assert condition(node, lambda words: ("", ()))[0] in (plain, starred, empty)
