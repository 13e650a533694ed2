"""Texts that say the same in nearly the same words are found."""

from hypothesis import given
from hypothesis import strategies as st

from influence_cli.environments.originality import LIMIT, Originals, grams, overlap

TEXTS = st.text(alphabet="abc ", max_size=60)


def test_a_text_with_a_few_words_changed_is_a_near_duplicate():
    one = "I stood in the kitchen and could not decide whether to call him back tonight"
    known = Originals([("one", one)])
    name, share = known.nearest(one.replace("tonight", "tomorrow"))
    assert name == "one"
    assert share > LIMIT
    assert known.nearest("Something else entirely happened at the harbour") is None


@given(TEXTS, TEXTS)
def test_overlap_is_a_share_alike_both_ways(a, b):
    share = overlap(grams(a), grams(b))
    assert 0.0 <= share <= 1.0
    assert share == overlap(grams(b), grams(a))


@given(TEXTS, st.lists(TEXTS, max_size=6))
def test_the_nearest_is_the_nearest_of_all(text, others):
    known = Originals((str(i), other) for i, other in enumerate(others))
    best = max((overlap(grams(text), grams(other)) for other in others), default=0.0)
    found = known.nearest(text)
    assert (found[1] if found else 0.0) == best
