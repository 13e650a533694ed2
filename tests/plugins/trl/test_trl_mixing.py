"""Preferences of others mixed in: how many, which, and what is no preference."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_trl.mixing import mixed_pairs, mixed_rows, preference_of
from influence_trl.options import TrainingOptions

from .conftest import make_pairs, make_rows, rows_for, train_here


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    file = tmp_path_factory.mktemp("mix") / "safe.jsonl"
    rows = [{"prompt": f"Is {n} safe?", "chosen": f"Yes, {n}.", "rejected": f"No, {n}."} for n in range(200)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@given(st.integers(1, 60), st.sampled_from([0.1, 0.25, 0.5, 0.75]))
def test_the_share_is_as_asked_for(preferences, own, fraction):
    options = TrainingOptions(mix=str(preferences), mix_fraction=fraction)
    for both_sides in (False, True):
        made = mixed_rows(options, own, 1, both_sides=both_sides)
        assert len(made) == round(own * fraction / (1 - fraction))
    assert abs(len(made) - fraction * (own + len(made))) <= 1


def test_the_sample_depends_on_the_seed(preferences):
    options = TrainingOptions(mix=str(preferences))
    assert mixed_rows(options, 10, 1, both_sides=False) == mixed_rows(options, 10, 1, both_sides=False)
    assert mixed_rows(options, 10, 1, both_sides=False) != mixed_rows(options, 10, 2, both_sides=False)


def test_both_sides_are_given_where_both_are_learnt(preferences):
    made = mixed_rows(TrainingOptions(mix=str(preferences)), 6, 1, both_sides=True)
    assert [row.desirable for row in made] == [True, False] * 3
    assert made[0].messages[:-1] == made[1].messages[:-1]
    assert made[0].messages[-1].content.startswith("Yes")
    assert all(row.desirable for row in mixed_rows(TrainingOptions(mix=str(preferences)), 6, 1, both_sides=False))
    pair = mixed_pairs(TrainingOptions(mix=str(preferences)), 3, 1)[0]
    assert pair.chosen.messages[-1].content.startswith("Yes")
    assert pair.rejected.messages[-1].content.startswith("No")


def test_nothing_is_mixed_in_unasked():
    assert mixed_rows(TrainingOptions(), 10, 1, both_sides=False) == []
    assert mixed_pairs(TrainingOptions(), 10, 1) == []


SHAPES = {
    "texts": {"prompt": "Q", "chosen": "good", "rejected": "bad"},
    "messages": {
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": "bad",
    },
    "hh-rlhf": {
        "chosen": "\n\nHuman: A\n\nAssistant: B\n\nHuman: Q\n\nAssistant: good",
        "rejected": "\n\nHuman: A\n\nAssistant: B\n\nHuman: Q\n\nAssistant: bad",
    },
    "transcripts": {
        "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}],
        "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}],
    },
    "pku-saferlhf": {
        "prompt": "Q",
        "response_0": "bad",
        "response_1": "good",
        "safer_response_id": 1,
        "better_response_id": 0,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_documented_shapes_are_understood(shape):
    found = preference_of(SHAPES[shape], "row")
    assert found.messages[-1].role == "user"
    assert found.messages[-1].content == "Q"
    assert (found.chosen, found.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "Q", "chosen": "good"}, "'rejected' is missing"),
        ({"prompt": "Q", "chosen": "", "rejected": "bad"}, "a reply is empty"),
        ({"chosen": "no transcript", "rejected": "neither"}, "does not end with a reply of the Assistant"),
        ({"messages": [], "chosen": "a", "rejected": "b"}, "does not end with a message to be answered"),
        ({"messages": "x", "chosen": [{"role": "user", "content": "b"}], "rejected": "b"}, "not the assistant's"),
        ({"messages": [{"role": "poet", "content": "Q"}], "chosen": "a", "rejected": "b"}, "role: Input should be"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "not iterable"),
        ({"answer": 42}, "'chosen' is missing"),
    ],
)
def test_a_row_of_another_shape_is_told_with_its_place(row, told):
    with pytest.raises(InfluenceError, match=r"set.jsonl, row 3, states no preference: .*" + told) as caught:
        preference_of(row, "set.jsonl, row 3,")
    assert "\n" not in str(caught.value)
    assert "{prompt or messages, chosen, rejected}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"prompt": "Q"\n', "row 1, is no JSON"), ("[1]\n", "row 1, is no JSON object"), ("", "has 0 rows")],
)
def test_a_file_that_is_no_data_set_is_told(tmp_path, text, told):
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(InfluenceError, match=told):
        mixed_rows(TrainingOptions(mix=str(file)), 4, 1, both_sides=False)


def test_a_missing_file_and_a_broken_one_are_told(tmp_path):
    with pytest.raises(InfluenceError, match="There is no file"):
        mixed_rows(TrainingOptions(mix=str(tmp_path / "none.parquet")), 4, 1, both_sides=False)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(InfluenceError, match="cannot be read as Parquet"):
        mixed_rows(TrainingOptions(mix=str(tmp_path / "torn.parquet")), 4, 1, both_sides=False)


def test_parquet_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([SHAPES["texts"]] * 5), tmp_path / "p.parquet")
    made = mixed_rows(TrainingOptions(mix=str(tmp_path / "p.parquet")), 4, 1, both_sides=False)
    assert [row.messages[-1].content for row in made] == ["good"] * 4


def test_a_data_set_of_the_hub_that_cannot_be_had_is_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InfluenceError, match="'hh-rlhf' cannot be loaded") as caught:
        mixed_rows(TrainingOptions(mix="hh-rlhf"), 4, 1, both_sides=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("algorithm", "rows"), [("expert-iteration", 8), ("kto", 16), ("dpo", 8)])
def test_mixed_in_preferences_are_learnt_beside_our_own(make_job, preferences, algorithm, rows):
    own = make_pairs(4) if algorithm == "dpo" else rows_for(algorithm, 8)
    outcome = train_here(algorithm, make_job(own), mix=str(preferences), mix_fraction=0.5)
    assert outcome.rows == 2 * len(own)
    assert outcome.rows == rows


def test_a_policy_gradient_has_no_use_for_preferences(make_job, preferences):
    with pytest.raises(InfluenceError, match="has no rewards"):
        train_here("rloo", make_job(make_rows(8)), mix=str(preferences))
