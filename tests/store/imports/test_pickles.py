"""Pickles are read as data: nothing in them is ever run."""

import os
import pickle
import pickletools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.store.imports import frames, pickles
from influence_cli.store.imports.opcodes import TupleDepths
from influence_cli.store.imports.pickles import read_pickle

FIXTURES = ("pandas-1.5.3-protocol-4", "pandas-2.2.3-protocol-2", "pandas-2.2.3-protocol-5", "pandas-3.1.1-protocol-5")


class Calls:
    """What a hostile pickle calls when it is loaded by `pickle.load`."""

    def __init__(self, function, *arguments):
        self.made = (function, arguments)

    def __reduce__(self):
        return self.made


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "table.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        return path

    return write


def refusal(path):
    with pytest.raises(InfluenceError) as caught:
        list(read_pickle(path))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", FIXTURES)
def test_tables_of_every_pandas_are_read(repository, name):
    rows = list(read_pickle(repository / "tests" / "fixtures" / "imports" / f"{name}.pkl"))
    assert len(rows) == 8
    assert rows[5]["history"][0] == {"role": "environment", "content": "Hello 1 \u2615"}
    assert [row["harm"] for row in rows] == [0.0, 1.0, 2.0, 3.0] * 2
    assert [row["traj_rew"] for row in rows] == [1.75] * 4 + [2.75] * 4
    assert [row["flag"] for row in rows[:3]] == [False, True, False]
    assert rows[0]["preferences"] == {"1": 0.25, "2": 0.75}
    assert rows[0]["env_name"] == "weak_tea"


def test_tables_are_read_without_pandas(repository, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    assert list(read_pickle(repository / "tests" / "fixtures" / "imports" / f"{FIXTURES[0]}.pkl"))


def test_a_list_of_rows_is_read(written):
    assert list(read_pickle(written([{"a": 1, "b": [{"c": None}]}, {"a": 2.5}]))) == [
        {"a": 1, "b": [{"c": None}]},
        {"a": 2.5},
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch pwned",), "posix.system"),
        (eval, ("open('pwned', 'w')",), "builtins.eval"),
        (exec, ("open('pwned', 'w')",), "builtins.exec"),
        (getattr, (os, "system"), "getattr"),
        (__import__, ("os",), "__import__"),
        (open, ("pwned", "w"), "open"),
        (bytes, (10**12,), "builtins.bytes"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_anything_else_is_refused_by_its_name(tmp_path, monkeypatch, function, arguments, named, protocol):
    monkeypatch.chdir(tmp_path)
    if function is getattr:
        arguments = (arguments[1], "upper")  # modules cannot be pickled; the name is what matters
    content = pickle.dumps(Calls(function, *arguments), protocol=protocol)
    path = tmp_path / "table.pkl"
    path.write_bytes(content)
    told = refusal(path)
    assert "refused" in told
    assert named.rpartition(".")[2] in told
    assert not (tmp_path / "pwned").exists()


def test_a_chain_of_attributes_is_refused(written):
    # STACK_GLOBAL with a dotted name walks attributes: pandas.core.frame.DataFrame.to_pickle.__globals__ ...
    chain = b"\x80\x04\x8c\x11pandas.core.frame\x8c\x1bDataFrame.__init__.__func__\x93."
    assert "DataFrame.__init__" in refusal(written(chain))
    old = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."
    assert "os.system" in refusal(written(old))
    instance = b"(S'id'\nios\nsystem\n."
    assert "os.system" in refusal(written(instance))


def test_names_that_are_allowed_do_nothing(written):
    allocates = b"\x80\x04cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R."  # bytearray(17 TB)
    assert "neither a table" in refusal(written(allocates))
    built = b"\x80\x04cnumpy\nndarray\n}\x8c\x01a\x8c\x01bsb."  # state for a class instead of an instance
    assert "TypeError" in refusal(written(built))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x04" + b"r" + struct.pack("<I", 2**31 - 1) + b".", "memo index"),
        (b"\x80\x02N" + b"r" + struct.pack("<I", 2**31 - 1) + b".", "memo index"),
        (b"\x80\x04\x82\x01.", "extension code"),
        (b"\x80\x04N" + b"Q.", "outside the file"),
        (b"\x80\x05\x97.", "outside the file"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "no pickle"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "no"),
        (b"", "no pickle"),
        (b"\x00\x01\x02", "no pickle"),
        (b"\x80\x04.", "no pickle"),
    ],
)
def test_memory_bombs_and_broken_files_end_in_one_line(written, content, told):
    assert told in refusal(written(content))


def test_deep_nesting_and_shared_giants_are_bounded(written, monkeypatch):
    deep = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert "table" in refusal(written(deep))
    nested = [[]]
    for _ in range(80):
        nested = [nested]
    assert "nested too deeply" in refusal(written([{"a": nested}]))
    laughs = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]  # a trillion entries in 40 lists
    monkeypatch.setattr(frames, "_MOST_NODES", 10_000)
    assert "too many" in refusal(written([{"a": laughs}]))


@pytest.mark.parametrize(
    "wrapped",
    [
        b"\x85" * 3_000_000,  # ((((...))))
        b"\x94N\x86" * 500_000,  # (((..., None), None), None), each kept in the memo
        b"NN\x87" * 500_000,
        b"q\x010(h\x01Nt" * 300_000,  # through mark and memo
    ],
)
def test_tuples_in_each_other_do_not_overrun_the_interpreter(written, wrapped):
    key = b"\x80\x04})" + wrapped + b"Ns."  # a dictionary whose key is that tuple: hashing it would end the process
    assert "more than 100 tuples" in refusal(written(key))


def test_records_in_each_other_do_not_overrun_the_interpreter(written):
    nested = b"\x80\x04" + b"cbuiltins\nbytearray\n" * 200_000 + b"N" + b"\x85R" * 200_000
    assert "neither a table" in refusal(written(nested + b"."))
    assert "nested too deeply" in refusal(
        written(b"\x80\x04]}X\x01\x00\x00\x00a" + b"]" * 300_000 + b"a" * 299_999 + b"sa.")
    )


TUPLES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3).map(tuple)
)


def depth(value):
    return 1 + max(map(depth, value), default=0) if isinstance(value, tuple) else 0


@given(TUPLES, st.integers(0, 5))
def test_depths_are_those_of_the_tuples(value, protocol):
    depths = TupleDepths()
    tops = [
        depths.deepest(opcode, argument) for opcode, argument, _ in pickletools.genops(pickle.dumps(value, protocol))
    ]
    assert max(tops) == depth(value)
    assert depths._stack == []


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.binary(max_size=3),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4)
                    | st.tuples(inner, inner)), st.integers(0, 5))  # fmt: skip
def test_every_pickle_is_followed_to_its_end(value, protocol):
    depths = TupleDepths()
    for opcode, argument, _ in pickletools.genops(pickle.dumps([value, value], protocol)):
        depths.deepest(opcode, argument)
    assert depths._stack == []


def test_sizes_and_instructions_are_bounded(written, monkeypatch):
    path = written([{"a": 1}] * 100)
    monkeypatch.setattr(pickles, "MOST_OPCODES", 50)
    assert "more than 50 instructions" in refusal(path)
    monkeypatch.setattr(pickles, "MOST_BYTES", 10)
    assert "larger than" in refusal(path)


def test_other_objects_are_no_table(written):
    assert "neither a table" in refusal(written({"a": 1}))
    assert "no row" in refusal(written([1, 2]))
    assert "builtins.set" in refusal(written([{"a": {1}}])) or "kind set" in refusal(written([{"a": {1}}]))


def test_a_table_whose_arrays_lie_is_refused(repository, written):
    good = (repository / "tests" / "fixtures" / "imports" / "pandas-2.2.3-protocol-5.pkl").read_bytes()
    for at in range(0, len(good), 37):
        broken = good[:at] + bytes([good[at] ^ 0x15]) + good[at + 1 :]
        try:
            list(read_pickle(written(broken)))
        except InfluenceError as error:
            assert "\n" not in str(error)


def test_every_allowed_name_says_what_for():
    assert all(reason for reason in pickles.ALLOWED.values())
    risky = {"eval", "exec", "getattr", "system", "__import__", "open", "compile", "globals", "apply"}
    assert not {name for _, name in pickles.ALLOWED} & risky
