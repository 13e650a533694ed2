"""Draws depend on names, never on order."""

from hypothesis import given
from hypothesis import strategies as st

from influence_cli.seeding import SEED_BITS, derive_seed, unit_draw

names = st.lists(st.integers() | st.text(), min_size=1, max_size=5)


@given(names)
def test_a_seed_is_a_function_of_its_names(parts):
    assert derive_seed(*parts) == derive_seed(*parts)
    assert 0 <= derive_seed(*parts) < 2**SEED_BITS
    assert 0.0 <= unit_draw(*parts) < 1.0


@given(names, names)
def test_different_names_give_different_seeds(one, other):
    same = [(type(x), x) for x in one] == [(type(x), x) for x in other]
    assert (derive_seed(*one) == derive_seed(*other)) == same


def test_numbers_and_text_are_different_names():
    assert derive_seed(1) != derive_seed("1")
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def test_draws_are_spread_evenly():
    draws = [unit_draw("draw", i) for i in range(4000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02
