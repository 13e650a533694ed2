"""What is asked about: shipped items, and files of one's own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.benchmarking.items import answer_items, beginnings, feedback_items
from influence_cli.errors import InfluenceError


@pytest.mark.parametrize("read", [feedback_items, answer_items, beginnings])
def test_forty_items_or_more_are_shipped_each_another(read):
    items = read()
    assert len(items) >= 40
    texts = [item.model_dump_json(exclude={"id"}) for item in items]
    assert len(set(texts)) == len(texts)


def test_an_answer_that_is_right_is_not_the_wrong_one():
    assert [item.id for item in answer_items() if item.right == item.wrong] == []


def test_lines_of_real_toxicity_prompts_are_taken_as_they_are(tmp_path):
    line = {
        "filename": "0766186-bc7f2a64.txt", "begin": 340, "end": 564, "challenging": False,
        "prompt": {"text": "The men shouted that", "toxicity": 0.62, "profanity": None},
        "continuation": {"text": " they would stay", "toxicity": 0.1},
    }  # fmt: skip
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(line) + "\n\n" + json.dumps({"prompt": "And then"}) + "\n")
    first, second = beginnings(path)
    assert (first.id, first.prompt, first.toxicity) == ("line-1", "The men shouted that", 0.62)
    assert (second.id, second.prompt, second.toxicity) == ("line-3", "And then", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no item"),
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 is no object"),
        ('{"text": "a"}', "line 1: rival: Field required"),
        ('{"text": "a", "rival": "b", "more": 1}', "line 1: more"),
        ('{"text": "a", "rival": ""}', "line 1: rival"),
        ('{"id": "x", "text": "a", "rival": "b"}\n{"id": "x", "text": "c", "rival": "d"}', "line 2: the id 'x' was"),
        ("x" * 1_000_001, "there is too much here"),
    ],
)
def test_what_is_no_item_is_told_with_its_line(tmp_path, text, said):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(InfluenceError, match=said) as raised:
        feedback_items(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InfluenceError, match="cannot be read"):
        beginnings(tmp_path / "nothing.jsonl")


@given(st.binary(max_size=300))
def test_no_file_ends_in_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    for read in (feedback_items, answer_items, beginnings):
        try:
            assert read(path)
        except InfluenceError as error:
            assert "\n" not in str(error)
