"""From top log-probabilities to a distribution over choices."""

import math
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from influence_cli.backends.logprobs import ChoiceMatcher, ChoiceReading, Position, count_answers, matcher_for
from influence_cli.errors import CallFailedError
from influence_cli.schemas.requests import Usage

RATINGS = tuple(str(number) for number in range(1, 11))


def position(token: str | None = None, **probabilities: float) -> Position:
    return place(probabilities, token)


def place(probabilities: dict[str, float], token: str | None = None) -> Position:
    top = tuple((text, math.log(p) if p else -9999.0) for text, p in probabilities.items())
    return Position(token if token is not None else top[0][0], top)


def read(choices, *positions: Position, whole=()):
    reading = ChoiceReading(choices, whole=whole)
    reading.look(positions)
    return reading


def found(reading: ChoiceReading) -> dict[str, float]:
    distribution = reading.distribution(Usage())
    return {c: p * distribution.mass for c, p in zip(distribution.choices, distribution.probabilities, strict=True)}


def test_spellings_of_one_choice_are_added():
    spelled = place({"yes": 0.5, " yes": 0.1, "Yes": 0.1, "\u2581YES": 0.05, "no": 0.2, "\u0120No": 0.05})
    assert found(read(("yes", "no"), spelled)) == pytest.approx({"yes": 0.75, "no": 0.25})


def test_what_lies_outside_stays_outside():
    distribution = read(("yes", "no"), position(yes=0.3, The=0.5, no=0.1)).distribution(Usage())
    assert distribution.mass == pytest.approx(0.4)
    assert distribution.probabilities == pytest.approx((0.75, 0.25))
    assert distribution.method == "logprobs"


def test_no_probability_at_all_is_unusable_and_says_what_was_likelier():
    with pytest.raises(CallFailedError, match="'The', 'I'") as caught:
        read(("yes", "no"), position(The=0.9, I=0.1)).distribution(Usage())
    assert caught.value.kind == "unusable"


def test_mass_is_never_above_one_whatever_servers_round():
    assert read(("yes", "no"), place({"yes": 1.0001, "no": 0.2})).distribution(Usage()).mass == 1.0


def test_case_matters_where_choices_differ_by_it():
    reading = read(("A", "a", "b"), position(A=0.5, a=0.3, B=0.2))
    assert found(reading) == pytest.approx({"A": 0.5, "a": 0.3, "b": 0.2})


def test_a_token_that_fits_two_choices_by_case_is_neither():
    assert found(read(("yes", "Yes", "no"), position(YES=0.6, no=0.4)))["yes"] == 0.0


def test_a_tokenizer_that_shows_10_as_one_token_leaves_1_alone():
    reading = read(RATINGS, place({"1": 0.6, "10": 0.3, "2": 0.1}))
    assert not list(reading.undecided())
    assert not reading.needed_more
    assert found(reading)["1"] == pytest.approx(0.6)


def test_what_is_known_of_the_tokenizer_is_used_again():
    assert not list(read(RATINGS, place({"1": 0.6, "2": 0.4}), whole={"10"}).undecided())


def test_1_stays_open_where_10_may_be_two_tokens():
    reading = read(RATINGS, place({"1": 0.6, "2": 0.4}))
    assert list(reading.undecided()) == ["1"]
    assert reading.needed_more
    assert reading.ambiguous == pytest.approx(0.6)


def test_the_next_position_decides_between_1_and_10():
    second = place({"0": 0.25, "<|im_end|>": 0.7, "5": 0.05}, "<|im_end|>")
    reading = read(RATINGS, place({"1": 0.6, "2": 0.4}), second)
    assert reading.ambiguous == 0.0
    assert found(reading) == pytest.approx({c: {"1": 0.42, "10": 0.15, "2": 0.4}.get(c, 0.0) for c in RATINGS})


def test_what_the_next_position_does_not_show_counts_as_an_end():
    reading = read(RATINGS, place({"1": 1.0}), place({"0": 0.3, ".": 0.1}))
    assert found(reading)["1"] == pytest.approx(0.7)


def test_a_continuation_decides_what_the_answer_did_not():
    reading = read(RATINGS, place({"2": 0.4, "1": 0.6}))
    reading.look([place({"0": 0.5, "\n": 0.5})], "1")
    assert found(reading)["10"] == pytest.approx(0.3)


def test_the_same_beginning_with_and_without_space_is_decided_at_once():
    reading = read(RATINGS, place({"2": 0.4, "1": 0.5, " 1": 0.1}))
    assert list(reading.undecided()) == ["1"]
    reading.look([place({"0": 0.5, "\n": 0.5})], "1")
    assert found(reading)["10"] == pytest.approx(0.3)


def test_the_drawn_token_decides_only_its_own_beginning():
    reading = read(("end it", "end now", "go on"), place({"end": 0.5, "go": 0.5}, "go"), place({" on": 1.0}))
    assert list(reading.undecided()) == ["end"]
    assert found(reading)["go on"] == pytest.approx(0.5)


def test_choices_of_several_words_are_followed_to_their_end():
    looks = (
        place({"very": 0.8, "un": 0.2}),
        place({" likely": 0.5, " un": 0.5}, " un"),
        place({"likely": 0.9, "do": 0.1}),
    )
    reading = read(("very likely", "very unlikely", "unclear"), *looks)
    assert found(reading) == pytest.approx({"very likely": 0.4, "very unlikely": 0.36, "unclear": 0.2})


def test_a_beginning_of_only_one_choice_counts_for_it_when_nobody_looks_further():
    assert found(read(("continue", "stop"), position(contin=0.7, stop=0.3)))["continue"] == pytest.approx(0.7)


def test_a_beginning_of_several_choices_counts_for_none_when_nobody_looks_further():
    distribution = read(("end it", "end now", "go"), position(end=0.7, go=0.3)).distribution(Usage())
    assert distribution.mass == pytest.approx(0.3)


def test_a_space_of_its_own_is_followed():
    reading = read(RATINGS, place({"\u2581": 0.9, "The": 0.1}), place({"7": 0.5, "10": 0.3, "1": 0.2}))
    assert found(reading) == pytest.approx({c: {"7": 0.45, "10": 0.27, "1": 0.18}.get(c, 0.0) for c in RATINGS})


def test_an_answer_that_ends_at_once_says_nothing():
    with pytest.raises(CallFailedError):
        read(("yes", "no"), place({"": 1.0})).distribution(Usage())


def test_beginnings_of_no_importance_are_not_looked_at():
    assert not list(read(RATINGS, place({"7": 0.999, "1": 0.001})).undecided())


def test_samples_are_counted():
    distribution = count_answers(("yes", "no"), ["Yes.", "no", "yes, surely", "perhaps"], Usage())
    assert (distribution.method, distribution.draws, distribution.mass) == ("sampled", 4, 0.75)
    assert distribution.probabilities == pytest.approx((2 / 3, 1 / 3))


def test_samples_that_name_no_choice_are_unusable():
    with pytest.raises(CallFailedError, match="perhaps"):
        count_answers(("yes", "no"), ["perhaps", "who knows"], Usage())


@pytest.mark.parametrize(
    ("answer", "choice"),
    [("10", "10"), ("1", "1"), (" 7.", "7"), ("**7**", "7"), ('"3"', "3"), ("8/10", "8"), ("11", None), ("", None)],
)
def test_an_answer_is_read_as_the_longest_whole_word(answer, choice):
    assert ChoiceMatcher(RATINGS).read(answer) == choice


def test_an_answer_may_be_in_capitals():
    assert ChoiceMatcher(("yes", "no")).read("YES") == "yes"
    assert ChoiceMatcher(("A", "a", "No")).read("no") == "No"


def test_a_matcher_forgets_before_it_grows_without_bound():
    matcher = ChoiceMatcher(("yes", "no"))
    for number in range(10_000):
        matcher.classify("", f"token{number}")
    assert len(matcher._memo) <= 4096


def test_matchers_are_made_once():
    assert matcher_for(RATINGS) is matcher_for(RATINGS)


TOKENS = st.sampled_from(["1", " 1", "10", "0", "2", " ", "", "\n", "yes", "Yes", "ye", "y", "no", "N", "<|end|>", "5"])
TOPS = st.dictionaries(TOKENS, st.floats(1e-6, 1.0), min_size=1, max_size=10)


def normalised(top: dict[str, float], left_out: float = 0.0) -> dict[str, float]:
    total = sum(top.values()) * (1.0 + left_out)
    return {token: p / total for token, p in top.items()}


@given(st.lists(TOPS, min_size=1, max_size=4), st.data(), st.floats(0.0, 2.0))
def test_probability_is_never_invented(tops, data, left_out):
    positions = [place(normalised(top, left_out), data.draw(st.sampled_from(sorted(top)))) for top in tops]
    reading = read(("1", "10", "yes", "no"), *positions)
    total = sum(reading._found.values()) + sum(node.probability for node in reading._undecided.values())
    assert total <= 1.0 + 1e-9
    assert all(p >= 0.0 for p in reading._found.values())


@given(TOPS, st.sampled_from(list(permutations(("1", "10", "yes", "no")))))
def test_the_order_of_choices_does_not_matter(top, order):
    first = read(("1", "10", "yes", "no"), place(normalised(top)))
    second = read(order, place(normalised(top)))
    assume(sum(first._found.values()) > 0.0)
    ones, others = first.distribution(Usage()), second.distribution(Usage())
    assert ones.mass == pytest.approx(others.mass)
    assert all(ones.probability(c) == pytest.approx(others.probability(c)) for c in order)


@given(st.floats(0.01, 0.99), st.floats(0.0, 1.0))
def test_splitting_10_gives_what_a_whole_10_gives(p_one_or_ten, share_ten):
    ten, one = p_one_or_ten * share_ten, p_one_or_ten * (1.0 - share_ten)
    split = read(
        RATINGS, place({"1": p_one_or_ten, "2": 1.0 - p_one_or_ten}), place({"0": share_ten, ".": 1 - share_ten})
    )
    whole = read(RATINGS, place({"1": one, "10": ten, "2": 1.0 - p_one_or_ten}))
    assert found(split) == pytest.approx(found(whole), abs=1e-9)
