"""A GGUF file is believed only as far as its own size bears it out."""

import struct

import pytest

from influence_cli.errors import InfluenceError
from influence_transformers.gguf_head import read_head

gguf = pytest.importorskip("gguf")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def field(name: str, kind: int, value: bytes) -> bytes:
    return text(name.encode()) + struct.pack("<I", kind) + value


def number(name: str, value: int) -> bytes:
    return field(name, 4, struct.pack("<I", value))


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0) -> bytes:
    sides = b"".join(struct.pack("<Q", side) for side in shape)
    return text(name.encode()) + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)


def head(*fields: bytes, tensors=(), version: int = 3, counts=None, room: int = 4096) -> bytes:
    said = counts or (len(tensors), len(fields))
    return b"GGUF" + struct.pack("<IQQ", version, *said) + b"".join(fields) + b"".join(tensors) + b"\0" * room


@pytest.fixture
def read(tmp_path):
    def of(data: bytes):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return read_head(path)

    return of


def test_what_a_writer_writes_is_read(read, tmp_path):
    import numpy as np

    path = tmp_path / "made.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((2, 8), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_head(path)
    assert found.metadata["general.architecture"] == "llama"
    assert found.metadata["llama.embedding_length"] == 8
    assert len(found.metadata["tokenizer.ggml.tokens"]) == 2
    assert found.elements == 48


LIST = struct.pack("<IQ", 8, 2**62)
NUMBERS = struct.pack("<IQ", 10, 2**60)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "does not begin"),
        (b"GGML" + b"\0" * 40, "does not begin"),
        (head(version=9), "version 9"),
        (head(counts=(2**40, 0)), "tensors and 0 fields"),
        (head(counts=(0, 2**40)), "0 tensors and"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63), "longer than it is"),
        (head(field("a", 8, struct.pack("<Q", 2**40))), "longer than it is"),
        (head(field("a", 9, LIST)), "longer than the file"),
        (head(field("a", 9, NUMBERS)), "longer than it is"),
        (head(field("a", 99, b"")), "unknown kind 99"),
        (head(field("a", 9, struct.pack("<IQ", 9, 1))), "unknown kind 9"),
        (head(number("a", 1), number("a", 2)), "twice"),
        (head(tensors=[tensor("w", 2**40, 2**20)]), "longer than the file"),
        (head(tensors=[tensor("w", 8, offset=2**50)]), "longer than the file"),
        (head(tensors=[tensor("w", *[1] * 9)]), "9 dimensions"),
        (head(tensors=[tensor("w", 8, kind=77)]), "unknown kind 77"),
        (head(number("general.alignment", 0)), "alignment is none"),
        (head(number("general.alignment", 48)), "no power of two"),
        (head(number("llama.block_count", 10**9), tensors=[tensor("w", 8)]), "layers, with 1 tensors"),
        (head(number("llama.embedding_length", 10**9), tensors=[tensor("w", 8)]), "no tensor is that wide"),
        (head(number("llama.context_length", 2**31), tensors=[tensor("w", 8)]), "its context"),
    ],
)
def test_what_the_size_does_not_bear_out_is_refused(read, data, told):
    with pytest.raises(InfluenceError, match=told):
        read(data)


@pytest.mark.parametrize("broken", ["tokens", "nothing"])
def test_a_head_that_makes_sense_and_a_model_that_does_not_is_one_line(tmp_path, broken):
    pytest.importorskip("torch")
    from influence_transformers.conversion import convert_gguf

    architecture = field("general.architecture", 8, text(b"llama"))
    tokens = field("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 1) + text(b"\xff\xfe"))
    path = tmp_path / "model.gguf"
    path.write_bytes(head(architecture, *([tokens] if broken == "tokens" else []), tensors=[tensor("w", 8)]))
    with pytest.raises(InfluenceError) as caught:
        convert_gguf(path, tmp_path / "made")
    assert "\n" not in str(caught.value)
