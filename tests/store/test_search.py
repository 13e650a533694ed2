"""Messages are found by their words, also while a run is written."""

import time

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.store.reader import RunReader
from influence_cli.store.search import INDEX, search_messages

from .conftest import call, episode, message, opening, whole_conversation


def test_words_and_phrases_are_found_with_their_place(run):
    with run.writer() as writer:
        i = writer.open_episode(episode("a"), opening("Should I just stay home tonight?"))
        writer.add_message(i, call(), message(text="Nobody can decide this for you."))
        with RunReader(run) as reader:
            (found,) = search_messages(reader, '"just stay home"')
            assert (found.initial_state, found.turn, found.speaker) == ("a", 0, "user")
            assert "\x02just stay home\x03" in found.excerpt
            assert search_messages(reader, "home AND nobody") == []
            writer.add_message(i, call(2), message(2, text="Then stay at home."))
            assert len(search_messages(reader, "home")) == 2


def test_dropped_messages_are_not_found(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening("x"))
        writer.add_message(i, call(role="user"), message(1, "user", "never said"))
        writer.drop_message(i, 1, "user", "talking")
    with RunReader(run) as reader:
        assert search_messages(reader, "never") == []


def test_a_query_that_cannot_be_read_says_how(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
    with RunReader(run) as reader, pytest.raises(InfluenceError, match="cannot be read.*Put phrases in quotes"):
        search_messages(reader, 'AND "')


def test_without_a_place_for_the_index_it_is_made_in_memory(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
    (run.path / INDEX).mkdir()
    with RunReader(run) as reader:
        assert len(search_messages(reader, "hello")) == 1


def test_a_second_search_is_quick(run):
    with run.writer() as writer:
        i = writer.open_episode(episode(), opening("x"))
        for turn in range(1, 3000):
            writer.add_message(i, call(turn), message(turn, text=f"word{turn} and some more text to index"))
    with RunReader(run) as reader:
        search_messages(reader, "word5")
        started = time.process_time()
        assert len(search_messages(reader, "word2999")) == 1
        assert time.process_time() - started < 0.2
