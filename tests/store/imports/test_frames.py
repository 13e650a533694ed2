"""Tables put together from inert records, sound ones and lying ones."""

import numpy as np
import pytest

from influence_cli.store.imports.frames import Record, frame_rows


def record(name, *arguments, state=None):
    kind = type("Kind", (Record,), {"__slots__": (), "kind": f"some.module.{name}"})
    made = kind(*arguments)
    made.__setstate__(state)
    return made


def dtype(name, order="<"):
    return record("dtype", name, False, True, state=(3, order, None, None, None, -1, -1, 0))


def array(shape, kind, raw, *, fortran=False):
    return record("_reconstruct", None, (0,), b"b", state=(1, shape, kind, fortran, raw))


def numbers(values, kind="i8", order="<"):
    data = np.asarray(values, f"{order}{kind}")
    return array(data.shape, dtype(kind, order), data.tobytes())


def names(*found):
    return record("_new_Index", None, {"data": array((len(found),), dtype("O8", "|"), list(found)), "name": None})


def counted(count):
    return record("_new_Index", None, {"start": 0, "stop": count, "step": 1, "name": None})


def block(values, places):
    return record("_unpickle_block", values, places, 2)


def frame(blocks, axes):
    return record("DataFrame", state={"_mgr": record("BlockManager", tuple(blocks), axes)})


def test_columns_take_their_places():
    found = frame_rows(
        frame(
            [
                block(numbers([[1, 2], [3, 4]]), record("slice", 0, 4, 2)),
                block(array((1, 2), dtype("O8", "|"), ["x", None]), numbers([1])),
            ],
            [names("a", "b", "c"), counted(2)],
        )
    )
    assert list(found) == [{"a": 1, "b": "x", "c": 3}, {"a": 2, "b": None, "c": 4}]


def test_the_older_form_of_the_manager():
    blocks = [{"values": numbers([[1.5, 2.5]], "f8"), "mgr_locs": record("slice", 0, 1, 1)}]
    manager = record(
        "BlockManager", state=([], [], [], {"0.14.1": {"axes": [names("a"), counted(2)], "blocks": blocks}})
    )
    assert list(frame_rows(record("DataFrame", state={"_data": manager}))) == [{"a": 1.5}, {"a": 2.5}]


def test_arrays_by_columns_and_of_other_byte_orders():
    values = np.array([[1, 2, 3], [4, 5, 6]])
    by_columns = array((2, 3), dtype("i8"), values.tobytes(order="F"), fortran=True)
    found = list(frame_rows(frame([block(by_columns, record("slice", 0, 2, 1))], [names("a", "b"), counted(3)])))
    assert found == [{"a": 1, "b": 4}, {"a": 2, "b": 5}, {"a": 3, "b": 6}]
    big = frame([block(numbers([[258]], "i4", ">"), record("slice", 0, 1, 1))], [names("a"), counted(1)])
    assert list(frame_rows(big)) == [{"a": 258}]
    buffer = record("_frombuffer", record("bytearray", values.tobytes()), dtype("i8"), (2, 3), "C")
    found = list(frame_rows(frame([block(buffer, record("slice", 0, 2, 1))], [names("a", "b"), counted(3)])))
    assert found[0] == {"a": 1, "b": 4}


def test_numbers_and_arrays_inside_cells():
    cell = record("scalar", dtype("f8"), np.float64(2.5).tobytes())
    inner = numbers([7, 8])
    values = array((1, 2), dtype("O8", "|"), [cell, inner])
    assert list(frame_rows(frame([block(values, record("slice", 0, 1, 1))], [names("a"), counted(2)]))) == [
        {"a": 2.5},
        {"a": [7, 8]},
    ]


def test_text_instead_of_bytes_in_old_protocols():
    raw = record("encode", np.array([5]).tobytes().decode("latin1"), "latin1")
    found = frame([block(array((1, 1), dtype("i8"), raw), record("slice", 0, 1, 1))], [names("a"), counted(1)])
    assert list(frame_rows(found)) == [{"a": 5}]


ONE = record("slice", 0, 1, 1)


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([], "missing"),
        ([block(numbers([[1], [2]]), ONE)], "does not fit"),
        ([block(numbers([1]), ONE)], "two dimensions"),
        ([block(numbers([[1]]), numbers([3]))], "no name"),
        ([block(numbers([[1]]), record("slice", "a", 1, 1))], "without numbers"),
        ([record("other", 1, 2)], "unknown form"),
        ([block([1], ONE)], "unknown form"),
        ([block(record("other"), ONE)], "made by other"),
        ([block(array((1, 1), dtype("O8", "|"), b"no list"), ONE)], "without its objects"),
        ([block(array((1, 1), dtype("M8"), b"12345678"), ONE)], "entries of type"),
        ([block(array((1, 1), "f8", b"12345678"), ONE)], "unknown type"),
        ([block(array((1, 1), dtype("i8"), b"123"), ONE)], "longer or shorter"),
        ([block(array((1, 1), dtype("i8"), 3), ONE)], "without its bytes"),
        ([block(array((10**6, 10**6), dtype("i8"), b""), ONE)], "impossible size"),
        ([block(array((-1, 1), dtype("i8"), b""), ONE)], "impossible size"),
    ],
)
def test_what_does_not_fit_is_no_table(blocks, told):
    with pytest.raises((ValueError, TypeError), match=told):
        list(frame_rows(frame(blocks, [names("a"), counted(1)])))


@pytest.mark.parametrize(
    "loaded", [record("DataFrame"), record("DataFrame", state={"_mgr": 3}), record("BlockManager"), "text", {"a": 1}]
)
def test_other_objects_are_no_table(loaded):
    with pytest.raises(ValueError):
        list(frame_rows(loaded))


@pytest.mark.parametrize("index", [3, record("_new_Index", None, {"start": 0, "stop": 10**9, "step": 1})])
def test_names_that_are_none(index):
    with pytest.raises(ValueError):
        list(frame_rows(frame([], [index, counted(1)])))
