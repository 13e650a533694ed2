"""What the writer returned from is there, whatever happens next."""

import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.store import schema
from influence_cli.store.connection import connect
from influence_cli.store.reader import RunReader
from influence_cli.store.writer import RunWriter

from .conftest import call, end, episode, judgement, message, opening, whole_conversation


def test_progress_is_what_was_stored(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening())
        writer.add_message(i, call(), message(text="a"))
        writer.add_judgement(i, call(role="preference"), judgement())
        writer.add_call(i, call(role="veto", error="timeout", detail="slow"))
        progress = writer.progress(i)
    assert [m.text for m in progress.messages] == ["hi", "a"]
    assert progress.judgements == (judgement(),)
    assert [(c.role, c.error) for c in progress.calls] == [("agent", None), ("preference", None), ("veto", "timeout")]


def test_an_episode_is_stored_once(run):
    with run.writer() as writer:
        first = writer.open_episode(episode(), opening())
    with run.writer() as writer:
        assert writer.open_episode(episode(), opening()) == first
        assert len(writer.progress(first).messages) == 1


@pytest.mark.parametrize("changes", [{"seed": 8}, {"population": "resilient"}, {"cue": "none"}])
def test_an_episode_made_otherwise_is_refused(run, changes):
    with run.writer() as writer:
        writer.open_episode(episode(), opening())
    with run.writer() as writer, pytest.raises(InfluenceError, match="with other settings"):
        writer.open_episode(episode(**changes), opening())


def test_a_dropped_message_is_no_part_of_the_conversation(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening())
        writer.add_message(i, call(role="user"), message(1, "user", "old"))
        writer.drop_message(i, 1, "user", "talking")
        writer.add_message(i, call(role="user", ordinal=1), message(1, "user", "new", state="returned"))
        assert [m.text for m in writer.progress(i).messages] == ["hi", "new"]
        assert writer.totals().calls == 2


def test_finished_conversations_are_known_in_the_next_sitting(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
        writer.open_episode(episode("other"), opening())
    with run.writer() as writer:
        assert writer.is_finished(episode().key)
        assert not writer.is_finished(episode("other").key)
        assert writer.finished_count() == 1


def test_failed_conversations_can_be_reopened(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening())
        writer.finish(i, end(status="failed", reason="failure", failure="timeout", detail="slow"))
    with run.writer() as writer:
        assert writer.is_finished(episode().key)
        assert writer.reopen_failed() == 1
        assert not writer.is_finished(episode().key)


def test_totals_are_of_all_sittings(run):
    for state in ("a", "b"):
        with run.writer() as writer:
            i = writer.open_episode(episode(state), opening())
            writer.add_message(i, call(cost=0.25), message())
    with run.writer() as writer:
        totals = writer.totals()
    assert (totals.tokens, totals.cost, totals.calls) == (220, 0.5, 2)


def test_what_scores_took_counts_only_where_it_is_asked_for(run):
    with run.writer() as writer:
        for state, split in (("a", "train"), ("b", "heldout")):
            i = writer.open_episode(episode(state, split=split), opening())
            writer.add_message(i, call(cost=0.25), message())
            writer.add_call(i, call(2, cached=True))
            writer.add_call(i, call(role="judge", prompt_tokens=1000, cost=1.0))
        assert [(t.tokens, t.cost) for t in (writer.totals(), writer.totals(scoring=True))] == [(220, 0.5), (2240, 2.5)]
        assert [writer.tokens_of(0, split) for split in ("train", "heldout", None)] == [110, 110, 220]
        assert (writer.tokens_of(0, scoring=True), writer.tokens_of(1)) == (2020, 0)


def test_hostile_text_comes_back_as_it_was(run):
    nasty = "\x1b]0;title\x07 \x00 \u202e 👨‍👩‍👧 " + "x" * 1_000_000
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening())
        writer.add_message(i, call(), message(text=nasty))
        writer.add_message(i, call(turn=2), message(2, text="lone \ud800 surrogate"))
        texts = [m.text for m in writer.progress(i).messages]
    assert texts[1:] == [nasty, "lone \ufffd surrogate"]


texts = st.text(max_size=30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.integers(0, 3), texts),
        st.tuples(st.just("judgement"), st.integers(0, 3), st.floats(1, 10)),
        st.tuples(st.just("finish"), st.integers(0, 3), st.none()),
        st.tuples(st.just("reopen"), st.just(0), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_interleaving_survives_reopening(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("store") / "run.db"
    said: dict[int, list[str]] = {}
    rated: dict[int, list[float]] = {}
    finished: set[int] = set()
    writer = RunWriter(path, "run")
    for turn, (kind, number, value) in enumerate(steps):
        if kind == "reopen":
            writer.close()
            writer = RunWriter(path, "run")
            continue
        i = writer.open_episode(episode(f"s{number}"), opening())
        if kind == "message":
            writer.add_message(i, call(turn), message(turn, text=value))
            said.setdefault(number, []).append(value)
        elif kind == "judgement":
            writer.add_judgement(i, call(turn, "preference"), judgement(turn, expected=value))
            rated.setdefault(number, []).append(value)
        else:
            writer.finish(i, end())
            finished.add(number)
    writer.close()
    writer = RunWriter(path, "run")
    for number in set(said) | set(rated) | finished:
        i = writer.open_episode(episode(f"s{number}"), opening())
        progress = writer.progress(i)
        assert [m.text for m in progress.messages[1:]] == said.get(number, [])
        assert [j.expected for j in progress.judgements] == rated.get(number, [])
        assert writer.is_finished(episode(f"s{number}").key) == (number in finished)
    writer.close()


WRITE_FOR_EVER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from influence_cli.store.run_directory import open_run
    from tests.store.conftest import call, episode, message, opening
    with open_run(Path(sys.argv[1])).writer() as writer:
        for number in range(1_000_000):
            i = writer.open_episode(episode(f"s{number}"), opening())
            writer.add_message(i, call(), message(text=str(number)))
            print(number, flush=True)
"""


def writing_process(run, repository) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(WRITE_FOR_EVER), str(run.path), str(repository)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_nothing_that_was_returned_from(run, repository):
    with writing_process(run, repository) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
    last = int(told[-1]) if told else 199
    with run.writer() as writer:
        stored = {int(m.text) for i in range(1, last + 2) for m in writer.progress(i).messages if m.speaker == "agent"}
    assert set(range(last + 1)) <= stored


def test_a_second_writer_is_refused_and_a_dead_one_leaves_no_lock(run, repository):
    process = writing_process(run, repository)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(InfluenceError, match=rf"is being written by process {process.pid}\."), run.writer():
        pass
    process.kill()
    process.communicate()
    with run.writer() as writer:
        assert writer.totals().calls > 0


def test_readers_see_a_run_that_is_being_written(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
        with RunReader(run) as reader:
            assert reader.state() == "running"
            assert len(list(reader.trajectories())) == 1


def test_a_full_disk_is_one_line_and_damages_nothing(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening())
        writer.add_message(i, call(), message())
        size = writer._connection.execute("PRAGMA page_count").fetchone()[0]
        writer._connection.execute(f"PRAGMA max_page_count = {size}")
        with pytest.raises(InfluenceError, match=r"run.db: the disk is full\. Free some space"):
            writer.add_message(i, call(2), message(2, text="x" * 100_000))
        assert [m.text for m in writer.progress(i).messages] == ["hi", "hello"]
    with run.writer() as writer:
        writer.add_message(i, call(2), message(2))
        assert len(writer.progress(i).messages) == 3


def test_a_file_size_limit_is_one_line(run, repository):
    script = textwrap.dedent(WRITE_FOR_EVER).replace("print(number, flush=True)", "pass")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    command = [sys.executable, "-c", script, str(run.path), str(repository)]
    done = subprocess.run(command, check=False, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "InfluenceError" in done.stderr.strip().splitlines()[-1]
    with run.writer() as writer:
        assert writer.totals().calls > 0


def test_a_read_only_directory_is_one_line(run, not_mine):
    with not_mine(run) as copy, pytest.raises(InfluenceError, match="cannot be written"), copy.writer():
        pass


def test_a_disk_without_room_for_the_lock_is_one_line(run):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(InfluenceError, match=r"run\.db"), run.writer():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_damaged_database_is_one_line(run):
    run.database.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(InfluenceError, match="it is no database"), run.writer():
        pass
    with pytest.raises(InfluenceError, match="it is no database"):
        RunReader(run)


def test_a_newer_schema_is_refused_with_its_mend(run):
    with run.writer():
        pass
    connection = sqlite3.connect(run.database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opened in (run.writer, lambda: RunReader(run)):
        with pytest.raises(InfluenceError, match=r"newer version .*schema 99, known 3.*pip install -U"), opened():
            pass


def test_older_schemas_are_migrated_step_by_step(tmp_path):
    connection = connect(tmp_path / "run.db", write=True)
    schema.create_tables(connection)
    connection.execute("PRAGMA user_version = 1")
    seen = []
    steps = [lambda c: seen.append(1), lambda c: c.execute("ALTER TABLE run ADD COLUMN note TEXT")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SCHEMA_VERSION", 3)
        schema.migrate(connection, "run.db", steps)
        schema.migrate(connection, "run.db", steps)
    assert seen == [1]
    assert schema.database_version(connection) == 3
    connection.close()


def test_a_database_of_the_first_version_learns_what_tools_really_did(tmp_path):
    connection = connect(tmp_path / "run.db", write=True)
    schema.create_tables(connection)
    connection.execute("ALTER TABLE message DROP COLUMN outcome")
    for later in ("label", "stage"):
        connection.execute(f"DROP TABLE {later}")
    connection.execute("PRAGMA user_version = 1")
    schema.migrate(connection, "run.db")
    assert "outcome" in {row["name"] for row in connection.execute("PRAGMA table_info(message)")}
    assert schema.database_version(connection) == schema.SCHEMA_VERSION
    connection.close()
