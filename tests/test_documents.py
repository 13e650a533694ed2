"""YAML is read safely, and every problem has its place."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.documents import (
    DocumentError,
    Position,
    parse_document,
    read_document,
    validate_document,
    write_document,
)
from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen

HERE = Path("file.yaml")


class Inner(Frozen):
    size: int
    names: tuple[str, ...] = ()


class Outer(Frozen):
    inner: Inner | None = None
    many: dict[str, Inner] = {}


def parse(text: str) -> object:
    return parse_document(text, HERE).data


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"]), max_size=40)
NUMBERS = st.sampled_from(
    ["1e-14", "5e3", ".5", "0_1", "1_000", "007", "~", "null", "yes", "true", "1.", "-0", "=", "<<"]
)


@given(
    st.recursive(
        TEXTS | NUMBERS | st.integers(-(10**9), 10**9) | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | NUMBERS, inner, max_size=4),
        max_leaves=12,
    ).filter(bool)
)
def test_what_is_written_is_read_back_as_it_was(content):
    assert parse_document(write_document({"content": content}), HERE).data == {"content": content}


def test_nothing_is_written_by_reference():
    twice = ["the same"]
    assert "*" not in write_document({"a": twice, "b": twice})


def test_plain_values_follow_the_core_schema():
    text = "a: yes\nb: 1.5\nc: 0x1\nd: 2020-01-01\ne:\nf: '5'\ng: -3\nh: true\ni: ~\nj: .5e3\nk: 007"
    expected = {"a": "yes", "b": 1.5, "c": "0x1", "d": "2020-01-01", "e": None, "f": "5"}
    assert parse(text) == {**expected, "g": -3, "h": True, "i": None, "j": 500.0, "k": "007"}


def test_keys_stay_text():
    assert parse('1: a\nno: b\n"": c') == {"1": "a", "no": "b", "": "c"}


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("[" * 200_000, 1, 65, "nested"),
        ("\n".join(" " * i + "a:" for i in range(3000)), 65, 65, "nested"),
        ("a: &x 1\nb: *x", 1, 4, "Anchors"),
        ("a: &x [1]\nb: *x", 1, 4, "Anchors"),
        ("a: 1\nb: *x", 2, 4, "liases"),
        ("a: 1\nb: 2\na: 3", 3, 1, "twice"),
        ("a: !!python/object/apply:os.system ['true']", 1, 4, "tag"),
        ("a: !!binary aGk=", 1, 4, "tag"),
        ("? [a, b]\n: 1", 1, 3, "key must be text"),
        ("a: 1\n---\nb: 2", 2, 1, "one YAML document"),
        ("a: 1\nb: x\x00y", 2, 5, "U+0000"),
        ("a: 1\nb: x\u202ey", 2, 5, "U+202E"),
        ("a: [1, 2", 2, 1, "not valid YAML"),
        ("a: b: c", 1, 5, "not valid YAML"),
    ],
)
def test_what_is_refused_has_its_place(text, line, column, says):
    started = time.process_time()
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert time.process_time() - started < 1.0
    problem = caught.value.problems[0]
    assert problem.position == Position(line, column)
    assert says in str(problem)
    assert str(problem).startswith(f"file.yaml:{line}:{column}: ")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    started = time.process_time()
    with pytest.raises(InfluenceError, match="100 MB"):
        read_document(path)
    assert time.process_time() - started < 1.0


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(DocumentError, match=r"latin.yaml:2:1: The file is not UTF-8. Save it as UTF-8."):
        read_document(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InfluenceError, match="No such file"):
        read_document(tmp_path / "none.yaml")


def test_an_unknown_key_suggests_the_nearest():
    document = parse_document("inner:\n  size: 1\n  nmaes: [a]\n", HERE)
    with pytest.raises(DocumentError, match=r"file.yaml:3:3: Unknown key 'nmaes'. Did you mean 'names'\?"):
        validate_document(document, Outer)


def test_an_unknown_key_below_a_mapping_lists_what_is_known():
    document = parse_document("many:\n  x:\n    size: 1\n    zzz: 2\n", HERE)
    with pytest.raises(DocumentError, match=r"file.yaml:4:5: Unknown key 'zzz'. Known keys: names, size."):
        validate_document(document, Outer)


def test_a_missing_key_says_where_to_add_it():
    document = parse_document("many:\n  x:\n    names: [a]\n", HERE)
    with pytest.raises(DocumentError, match=r"file.yaml:3:5: The key 'size' is missing. Add 'size: ...' here."):
        validate_document(document, Outer)


def test_a_wrong_value_has_its_place():
    document = parse_document("inner:\n  size: large\n", HERE)
    with pytest.raises(DocumentError, match=r"file.yaml:2:9: inner.size: Input should be a valid integer"):
        validate_document(document, Outer)


def test_a_word_is_found_inside_a_block():
    document = parse_document("a:\n  text: |\n    first\n    second {{ name }}\nb: name\n", HERE)
    assert document.find(("a", "text"), r"\bname\b") == Position(4, 15)


def test_many_problems_are_counted():
    text = "many:\n" + "".join(f"  x{i}: {{}}\n" for i in range(30))
    with pytest.raises(DocumentError, match="and 20 more problems"):
        validate_document(parse_document(text, HERE), Outer)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="ascii", categories=["L"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_what_yaml_writes_is_read_back(data):
    assert parse(yaml.safe_dump(data)) == data


@given(st.text(max_size=200))
def test_any_text_is_data_or_a_problem(text):
    try:
        document = parse_document(text, HERE)
    except InfluenceError as error:
        assert "\n" not in str(error)
    else:
        assert document.position(("nowhere",)) >= Position(1, 1)
