"""Shards share a run's conversations without loss, and come together again with all that was found out since."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import ScoreRecord
from influence_cli.store.check import check_run
from influence_cli.store.connection import connect
from influence_cli.store.merge import merge_shards, take_over
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run
from influence_cli.store.search import INDEX, search_messages
from influence_cli.store.shards import Shard, all_shards, parse_shard
from influence_cli.store.word_index import conversations_with, open_words, take_in

from .conftest import call, episode, manifest, message, opening, whole_conversation


def score(value: float = 1.0, **changes) -> ScoreRecord:
    facts = {"turn": 0, "rubric": "harm", "rubric_hash": "1", "judge": "scripted:demo", "method": "distribution"}
    return ScoreRecord(**{**facts, "value": value, "mass": 1.0, "usable": True, **changes})


def rows(directory, sql: str) -> list[tuple]:
    with RunReader(directory) as reader:
        return [tuple(row) for row in reader.rows(sql)]


@given(st.integers(1, 40), st.integers(0, 300))
def test_shards_have_every_item_once_and_evenly(of, total):
    shares = [list(shard.share(range(total))) for shard in all_shards(of)]
    assert sorted(item for share in shares for item in share) == list(range(total))
    assert [len(share) for share in shares] == [shard.count(total) for shard in all_shards(of)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 999), st.integers(1, 999))
def test_a_shard_is_read_as_it_is_written(number, of):
    if number <= of:
        assert parse_shard(str(Shard(number, of))) == Shard(number, of)
    else:
        with pytest.raises(InfluenceError, match="is not NUMBER/OF"):
            parse_shard(f"{number}/{of}")


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/4/5"])
def test_what_names_no_shard_is_refused(text):
    with pytest.raises(InfluenceError, match="For instance 2/4"):
        parse_shard(text)


def test_merged_conversations_stand_in_the_order_of_the_run(run):
    for shard in all_shards(3):
        with run.of_shard(shard).writer() as writer:
            for sample in shard.share(range(8)):
                whole_conversation(writer, episode(sample=sample))
    assert merge_shards(run) == 8
    assert rows(run, "SELECT id, sample FROM episode ORDER BY id") == [(n + 1, n) for n in range(8)]


def test_a_shard_takes_over_what_is_its_own_and_goes_on_from_there(run):
    with run.writer() as writer:
        whole_conversation(writer, episode("a"))
        writer.open_episode(episode("b"), opening())
        begun = writer.open_episode(episode("c"), opening())
        writer.add_message(begun, call(), message())
    own = run.of_shard(Shard(1, 2))
    assert take_over(own, [episode("a").key, episode("c").key, episode("unknown").key]) == 2
    assert take_over(own, [episode("a").key, episode("c").key]) == 0
    with own.writer() as writer:
        assert writer.is_finished(episode("a").key)
        again = writer.open_episode(episode("c"), opening())
        assert [m.text for m in writer.progress(again).messages if m.source == "model"] == ["hello"]
        writer.add_message(again, call(turn=2), message(turn=2, text="more"))
    assert merge_shards(run) == 1
    assert check_run(run) == []
    with RunReader(run) as reader:
        texts = {t["initial_state"]: [m["text"] for m in t["messages"]] for t in reader.trajectories()}
    assert texts == {"a": ["hi", "hello"], "b": ["hi"], "c": ["hi", "hello", "more"]}


def test_an_unfinished_conversation_is_taken_again_when_it_has_come_further(run):
    own = run.of_shard(Shard(1, 1))
    with own.writer() as writer:
        begun = writer.open_episode(episode(), opening())
        writer.add_message(begun, call(), message())
    assert merge_shards(run) == 1
    with own.writer() as writer:
        writer.add_message(begun, call(turn=2), message(turn=2))
    assert merge_shards(run) == 1
    assert merge_shards(run) == 0
    assert rows(run, "SELECT count(*) FROM message") == [(3,)]


def found(run, words: str) -> tuple[list[str], list[str]]:
    """Who says ``words``, by the search of messages and by the index of conversations; the latter brought up to date."""
    with RunReader(run) as reader:
        said = sorted({hit.initial_state for hit in search_messages(reader, words)})
        index = open_words(run.path / INDEX, "")
        try:
            list(take_in(index, reader))
            index.execute("ATTACH DATABASE ? AS words", (str(run.path / INDEX),))
            held = {row[0] for row in index.execute(*conversations_with(words, prefix=False, schema="words"))}
        finally:
            index.close()
    return said, sorted(state for number, state in rows(run, "SELECT id, initial_state FROM episode") if number in held)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_that_was_searched_before_a_merge_is_searched_rightly_after_it(run, damaged):
    own = run.of_shard(Shard(1, 1))
    with own.writer() as writer:
        for number in (writer.open_episode(episode(state), opening()) for state in ("a", "b")):
            writer.add_message(number, call(), message(text="apple"))
    merge_shards(run)
    assert found(run, "apple") == (["a", "b"], ["a", "b"])
    if damaged:
        (run.path / INDEX).write_bytes(b"no index" * 1_000)
    with own.writer() as writer:
        writer.drop_message(1, 1, "agent", "talking")
        for turn in (1, 2):
            writer.add_message(1, call(turn), message(turn, text="pear"))
    assert merge_shards(run) == 1
    assert found(run, "apple") == (["b"], ["b"])
    assert found(run, "pear") == (["a"], ["a"])


def test_scores_that_a_shard_gains_after_its_conversation_was_merged_are_taken_once(run):
    own = run.of_shard(Shard(1, 1))
    with own.writer() as writer:
        i = whole_conversation(writer, episode())
    merge_shards(run)
    with own.writer() as writer:
        writer.add_scores([(i, score(2.0))], [(i, call(turn=0, role="judge"))])
    for _ in range(2):
        assert merge_shards(run) == 0
        assert rows(run, "SELECT rubric, value FROM score") == [("harm", 2.0)]
        assert rows(run, "SELECT count(*) FROM call WHERE role = 'judge'") == [(1,)]
    assert check_run(run) == []


def test_of_two_scores_the_newer_stays_unless_it_failed(run):
    own = run.of_shard(Shard(1, 1))
    with own.writer() as writer:
        i = whole_conversation(writer, episode())
        writer.add_scores([(i, score(1.0))])
    merge_shards(run)
    with run.writer() as writer:
        writer.add_scores([(1, score(3.0))])
    merge_shards(run)
    assert rows(run, "SELECT value FROM score") == [(3.0,)]
    with own.writer() as writer:
        writer.add_scores([(i, score(None, mass=None, usable=False, failure="timeout"))])
    merge_shards(run)
    assert rows(run, "SELECT value FROM score") == [(3.0,)]
    with own.writer() as writer:
        writer.add_scores([(i, score(4.0))])
    merge_shards(run)
    assert rows(run, "SELECT value FROM score") == [(4.0,)]


def test_a_shard_that_was_killed_before_its_tables_were_made_holds_nothing_and_goes_on(run):
    own = run.of_shard(Shard(1, 2))
    with run.writer() as writer:
        whole_conversation(writer, episode("a"))
    own.database.touch()
    for _ in range(2):
        assert merge_shards(run) == 0
        with pytest.raises(InfluenceError, match="holds no conversation yet"), RunReader(own):
            pass
        connect(own.database, write=True).close()  # has a header now, and still no table
    assert take_over(own, [episode("a").key]) == 1
    assert merge_shards(run) == 0


def test_scores_of_a_conversation_that_was_had_elsewhere_are_not_taken(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
    with run.of_shard(Shard(1, 1)).writer() as writer:
        i = whole_conversation(writer, episode())
        writer.add_scores([(i, score())])
    merge_shards(run)
    assert rows(run, "SELECT count(*) FROM score") == [(0,)]


def test_shards_of_one_run_are_written_side_by_side_and_each_by_one(run):
    one, two = (run.of_shard(shard) for shard in all_shards(2))
    with run.writer(), one.writer(), two.writer():
        with pytest.raises(InfluenceError, match="is being written by process"), one.writer():
            pass
        with RunReader(one) as reader:
            assert reader.state() == "running"


@settings(max_examples=8)
@given(st.lists(st.integers(0, 9), max_size=8, unique=True), st.permutations([1, 2, 3]))
def test_what_shards_took_over_and_gave_back_changes_nothing(tmp_path_factory, samples, order):
    folder = tmp_path_factory.mktemp("shards")
    run = create_run(folder / "run", manifest())
    with run.writer() as writer:
        for sample in samples:
            whole_conversation(writer, episode(sample=sample))
    before = rows(run, "SELECT * FROM episode"), rows(run, "SELECT * FROM message"), rows(run, "SELECT * FROM call")
    for number in order:
        shard = Shard(number, 3)
        take_over(run.of_shard(shard), [episode(sample=sample).key for sample in shard.share(samples)])
    assert merge_shards(run) == 0
    after = rows(run, "SELECT * FROM episode"), rows(run, "SELECT * FROM message"), rows(run, "SELECT * FROM call")
    assert before == after
    shutil.rmtree(folder)
