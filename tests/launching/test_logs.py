"""The end of a log is read by its bytes, whatever they are."""

from hypothesis import given
from hypothesis import strategies as st

from influence_cli.launching import logs
from influence_cli.launching.logs import read_end

SAID = st.lists(st.sampled_from([b"a", b"caf\xe9", b"\xff", "é".encode(), b"\r\n", b"\n", b"\n", b"x" * 40])).map(
    b"".join
)


@given(SAID, st.none() | st.integers(1, 9))
def test_the_last_lines_and_where_they_end(tmp_path_factory, said, lines):
    log = tmp_path_factory.mktemp("logs") / "task.log"
    log.write_bytes(said)
    everything = said.decode(errors="replace").splitlines()
    assert read_end(log, lines) == (everything[-(lines or 0) :], len(said))


def test_a_long_log_is_read_from_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_MOST", 4)
    (tmp_path / "task.log").write_bytes(b"one\ntwo\nthree\n")
    assert read_end(tmp_path / "task.log", 2) == (["two", "three"], 14)


def test_there_is_no_log(tmp_path):
    assert read_end(tmp_path / "task.log") == ([], 0)
