"""Conversations are found by their words as reading them all would find them, whatever came when."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.schemas.configs import RunManifest
from influence_cli.store import word_index
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory, create_run
from influence_cli.store.search import INDEX
from influence_cli.store.trajectory_table import Order, TrajectoryTable
from influence_cli.store.word_index import gather, open_words, take_in

from .conftest import episode, manifest, message, opening

VOCABULARY = ("stay", "home", "stays", "\ue000")
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=3).map(" ".join)
DROPPED, TAKEN = "drop", "take in"
STEPS = st.lists(
    st.one_of(st.tuples(st.integers(0, 1), TEXTS), st.tuples(st.just(DROPPED), st.integers(0, 8)), st.just(TAKEN)),
    max_size=14,
)
WORDS = st.sampled_from(VOCABULARY[:-1])
PHRASES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
QUERIES = st.tuples(st.one_of(st.tuples(PHRASES, st.just(False)), st.tuples(WORDS, st.just(True))), st.booleans())
"""Words next to each other, or one that may go on; and whether those are wanted that hold none of it."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Make runs, each in a folder of its own."""
    folder, made = tmp_path_factory.mktemp("runs"), iter(range(1_000_000))

    def make() -> RunDirectory:
        told: RunManifest = manifest()
        return create_run(folder / str(next(made)), told)

    return make


def holds(text: str, words: str, *, prefix: bool) -> bool:
    """Return whether ``words`` stand next to each other in ``text``, found by reading it."""
    pattern = r"\b" + r"\W+".join(words.split()) + ("" if prefix else r"\b")
    return re.search(pattern, text.replace("\ue000", " ")) is not None


def take_all(run: RunDirectory, reader: RunReader) -> None:
    index = open_words(run.path / INDEX, ":memory:")
    list(take_in(index, reader))
    index.close()


def found(reader: RunReader, query: str) -> list[int]:
    table = TrajectoryTable(reader, reader.path / INDEX)
    try:
        return list(table.numbers(table.read(query), Order()))
    finally:
        reader.rows("DETACH DATABASE search")


@pytest.fixture(scope="module")
def watched(runs):
    """A run that is written, read and indexed at once, for as long as the module lasts."""
    run = runs()
    with run.writer() as writer, RunReader(run) as reader:
        index = open_words(run.path / INDEX, ":memory:")
        index.execute("PRAGMA synchronous = OFF")  # nothing here outlives a power cut
        yield writer, reader, index, TrajectoryTable(reader, run.path / INDEX), iter(range(1_000_000))
        index.close()


@settings(max_examples=200)
@given(steps=STEPS, query=QUERIES, batch=st.integers(1, 6), every=st.integers(1, 4))
def test_words_find_what_reading_everything_finds(watched, steps, query, batch, every):
    (words, prefix), negated = query
    writer, reader, index, table, fresh = watched
    numbers = [writer.open_episode(episode(f"p{next(fresh)}"), opening("stays")) for _ in range(2)]
    said: list[list] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_index, "_BATCH", batch)
        for place, step in enumerate(steps):
            if step == TAKEN or place % every == 0:
                list(take_in(index, reader))
            if step == TAKEN:
                continue
            if step[0] != DROPPED:
                said.append([numbers[step[0]], step[1]])
                writer.add_message(numbers[step[0]], None, message(len(said), "user", step[1]))
            elif said:
                gone = step[1] % len(said)
                writer.drop_message(said[gone][0], gone + 1, "user", "talking")
                said[gone][1] = ""
        list(take_in(index, reader))
    everything = [*((number, "stays") for number in numbers), *said]
    truth = {number for number, text in everything if holds(text, words, prefix=prefix)}
    asked = f"{words}*" if prefix else f'"{words}"'
    found = set(table.numbers(table.read(f"not {asked}" if negated else asked), Order()))
    assert found & set(numbers) == (set(numbers) - truth if negated else truth)


def test_no_phrase_reaches_from_one_message_into_the_next(runs):
    run = runs()
    with run.writer() as writer, RunReader(run) as reader:
        i = writer.open_episode(episode(), opening("should I stay"))
        writer.add_message(i, None, message(1, "agent", "home is best"))
        take_all(run, reader)
        assert found(reader, '"stay home"') == []
        assert found(reader, "stay home") == [i]
        assert found(reader, '"home is best"') == [i]


def test_a_message_dropped_after_it_was_taken_in_is_found_no_more(runs):
    run = runs()
    with run.writer() as writer, RunReader(run) as reader:
        i = writer.open_episode(episode(), opening("hello"))
        writer.add_message(i, None, message(1, "user", "never said"))
        take_all(run, reader)
        assert found(reader, "never") == [i]
        writer.drop_message(i, 1, "user", "talking")
        take_all(run, reader)
        assert found(reader, "never") == []
        assert found(reader, "hello") == [i]


def test_what_came_since_is_taken_in_and_nothing_twice(runs):
    run = runs()
    with run.writer() as writer, RunReader(run) as reader:
        i = writer.open_episode(episode(), opening("hello"))
        index = open_words(run.path / INDEX, ":memory:")
        assert list(take_in(index, reader)) == [1.0]
        assert list(take_in(index, reader)) == []
        writer.add_message(i, None, message(1, "agent", "late word"))
        other = open_words(run.path / INDEX, ":memory:")
        assert list(take_in(other, reader)) == [1.0]
        assert list(take_in(index, reader)) == []
        assert index.execute("SELECT count(*) FROM part").fetchone()[0] == 2
        index.close()
        other.close()
        assert found(reader, "late") == [i]


def test_a_run_that_was_watched_is_gathered_when_it_is_opened_again(runs, monkeypatch):
    monkeypatch.setattr(word_index, "_SCATTERED", 5)
    run = runs()
    with run.writer() as writer, RunReader(run) as reader:
        i = writer.open_episode(episode(), opening("hello"))
        index = open_words(run.path / INDEX, ":memory:")
        for turn in range(1, 8):
            gather(index)
            writer.add_message(i, None, message(turn, "user", f"word{turn}"))
            list(take_in(index, reader))
        writer.drop_message(i, 7, "user", "talking")
        assert index.execute("SELECT count(*) FROM part").fetchone()[0] < 7
        gather(index)
        list(take_in(index, reader))
        index.close()
        assert [found(reader, f"word{turn}") for turn in (1, 6, 7)] == [[i], [i], []]
