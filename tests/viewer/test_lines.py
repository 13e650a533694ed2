"""What screens are made of: charts, differences, prompts, transcripts, lists of runs."""

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.store.conversation import read_conversation
from influence_cli.store.reader import RunReader
from influence_cli.viewer import formats
from influence_cli.viewer.cells import width
from influence_cli.viewer.charts import Point, axis, bar, interval_line, sparkline
from influence_cli.viewer.chat import ChatOptions, lay_out
from influence_cli.viewer.comparing import side_by_side
from influence_cli.viewer.differences import changed, sentences
from influence_cli.viewer.exporting import transcript_text
from influence_cli.viewer.prompts import prompt_of
from influence_cli.viewer.run_list import RunList
from influence_cli.viewer.widgets.query_bar import complete

from .conftest import NASTY, make_nasty_run

FINITE = st.floats(-1e6, 1e6)


@given(st.floats(allow_nan=True), st.integers(1, 60))
def test_a_bar_is_as_wide_as_its_room(share, cells):
    assert width(bar(share, cells)) == cells


def test_bars_and_sparklines_keep_their_order():
    assert [bar(x, 2) for x in (0, 0.5, 1)] == ["  ", "\u2588 ", "\u2588\u2588"]
    assert sparkline([0, 1, 1000]) == " \u2581\u2588"
    assert sparkline([]) == ""
    assert len(sparkline(range(100), 10)) == 10


@given(
    st.lists(st.tuples(FINITE, st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=5),
    st.integers(10, 80),
    st.booleans(),
)
def test_an_interval_stands_inside_its_axis(values, cells, zero):
    points = [Point("p", v, v - a, v + b) for v, a, b in values]
    low, high = axis(points, zero=zero)
    assert low < high
    for point in points:
        line = interval_line(point, low, high, cells, zero=zero)
        assert len(line) == cells
        assert "\u25cf" in line


def test_an_endless_interval_is_drawn_to_the_edges():
    point = Point("p", 1.0, float("-inf"), float("inf"))
    line = interval_line(point, *axis([point]), 20)
    assert (line[0], line[-1]) == ("\u251c", "\u2524")


TEXT = st.text(alphabet="ab .!?\n", max_size=80)


@given(TEXT)
def test_sentences_are_the_whole_text(text):
    assert "".join(text[a:b] for a, b in sentences(text)) == text


@given(TEXT, TEXT)
def test_what_did_not_change_is_the_same_on_both_sides(left, right):
    gone, come = changed(left, right)

    def rest(text, spans):
        kept = [text[a:b] for a, b in sentences(text) if (a, b) not in spans]
        return [" ".join(sentence.split()) for sentence in kept]

    assert rest(left, gone) == rest(right, come)
    assert changed(left, left) == ([], [])


def test_only_the_sentence_that_changed_is_marked():
    gone, come = changed("I see. Stay home! Bye.", "I see. Call a friend! Bye.")
    assert ["I see. Stay home! Bye."[a:b] for a, b in gone] == ["Stay home! "]
    assert ["I see. Call a friend! Bye."[a:b] for a, b in come] == ["Call a friend! "]


@pytest.mark.parametrize("cells", [20, 57, 99, 100, 140, 200])
def test_every_line_of_every_conversation_fits(run, runs, cells):
    nasty = make_nasty_run(runs / "nasty")
    for directory, count in ((run, 3), (nasty, len(NASTY))):
        with RunReader(directory) as reader:
            read = [read_conversation(reader, number) for number in range(1, count + 1)]
        for conversation in read:
            for unfolded in (False, True):
                lines = lay_out(conversation, cells, ChatOptions(turn=1, unfolded=unfolded)).lines
                assert max(sum(width(text) for text, _ in line) for line in lines) <= cells
            lines = side_by_side(conversation, read[0], ("one\x1b", "other"), cells)
            assert max(sum(width(text) for text, _ in line) for line in lines) <= cells
            assert "\x1b" not in transcript_text(conversation, blind=False)


def test_quotes_and_words_are_marked_in_place(run):
    with RunReader(run) as reader:
        conversation = read_conversation(reader, 1)
    chat = lay_out(conversation, 120, ChatOptions(words=("FRIEND",)))
    quoted = [text for line in chat.lines for text, style in line if style == "quote"]
    assert quoted == ["Nobody has to know.", "friend"]
    blind = lay_out(conversation, 120, ChatOptions(blind=True))
    assert not [text for line in blind.lines for text, style in line if style == "quote"]
    assert "7.50" not in "".join(text for line in blind.lines for text, _ in line)


def test_a_fence_of_a_transcript_cannot_be_closed_from_inside(run):
    with RunReader(run) as reader:
        conversation = read_conversation(reader, 1)
    evil = conversation.messages[0].model_copy(update={"text": "a\n````\n# forged"})
    text = transcript_text(conversation.__class__(**{**vars(conversation), "messages": (evil,)}), blind=True)
    assert "`````text\na\n````\n# forged\n`````" in text
    assert "mean rating" not in text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("pop", "population"),
        ("rating>3 pop", "rating>3 population"),
        ("population:", "population:gameable"),
        ("population:r", "population:resilient"),
        ("scenario:", 'scenario:"a b"'),
        ("population", None),
        ("xyz", None),
        ("", None),
        ("pop ", None),
        ('"pop', None),
        ("rating>", None),
    ],
)
def test_the_last_word_is_completed(query, expected):
    values = {"population": ["gameable", "resilient"], "scenario": ["a b"]}
    assert complete(query, ["population", "rating", "scenario"], values) == expected


def test_prompts_are_those_that_were_asked(tiny, tmp_path):
    """Against what the models of a real simulation were really asked, message by message."""
    import asyncio

    from influence_cli.backends.names import parse_model_name
    from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
    from influence_cli.schemas.configs import SimulationConfig
    from influence_cli.simulation.calls import Run
    from influence_cli.simulation.models import RoleModel
    from influence_cli.simulation.runner import Runner, start_tally
    from influence_cli.store.run_directory import create_run

    from .conftest import manifest

    asked: dict[tuple[str, str], set] = {}

    class Listening(ScriptedBackend):
        async def generate(self, request):
            asked.setdefault(request.role, set()).add(request.messages)
            return await super().generate(request)

        async def choose(self, request):
            asked.setdefault(request.role, set()).add(request.messages)
            return await super().choose(request)

    config = SimulationConfig(environments=("tiny",), n=4)
    made = manifest(config=config, environments={"tiny": tiny.digest})
    directory = create_run(tmp_path / "run", made)
    name = parse_model_name("scripted:demo")
    backend = Listening("demo", ScriptedOptions())
    models = {role: RoleModel(name, backend) for role in ("agent", "user", "preference", "transition", "veto")}
    with directory.writer() as writer:
        run = Run(config, models, writer, start_tally([tiny], config))
        asyncio.run(Runner(run, [tiny], writer).simulate())
    seen = 0
    with RunReader(directory) as reader:
        for number in range(1, 5):
            conversation = read_conversation(reader, number)
            for turn in conversation.reply_turns():
                for role in ("agent", "user", "preference", "transition", "veto"):
                    try:
                        prompt = prompt_of(conversation, role, turn, directory, lambda _path: {"tiny": tiny})
                    except InfluenceError:
                        continue
                    blocks = {tuple((m.role, m.content.strip()) for m in messages) for messages in asked[role]}
                    assert prompt.blocks in blocks, (role, turn)
                    assert tiny.digest[:12] in prompt.note
                    seen += 1
        assert seen > 20
        changed_one = type(tiny)(tiny.spec, list(tiny.scenarios.values()), "other", tiny.folder)
        with pytest.raises(InfluenceError, match="has changed since"):
            prompt_of(conversation, "agent", 1, directory, lambda _path: {"tiny": changed_one})
        with pytest.raises(InfluenceError, match="not here any more"):
            prompt_of(conversation, "agent", 1, directory, lambda _path: {})
        with pytest.raises(InfluenceError, match="no reply yet"):
            prompt_of(conversation, "agent", 99, directory, lambda _path: {"tiny": tiny})


def test_a_run_without_digests_says_that_its_prompts_are_unknown(run):
    with RunReader(run) as reader:
        conversation = read_conversation(reader, 1)
    with pytest.raises(InfluenceError, match="does not say which"):
        prompt_of(conversation, "agent", 1, run, lambda _path: {})


def test_runs_are_read_again_only_when_they_changed(run, runs, monkeypatch):
    from influence_cli.viewer import run_list

    listed = RunList([runs], [run.path])
    (line,) = listed.scan()
    assert (line.state, line.conversations, line.failed) == ("done", 24, 0)
    with monkeypatch.context() as patched:
        patched.setattr(run_list, "read_line", lambda path: pytest.fail("read again"))
        assert listed.scan() == [line]
    shutil.rmtree(run.path)
    (runs / "first").mkdir()
    assert listed.scan()[0].problem


def test_a_run_that_is_held_is_running_or_paused(run, runs):
    from influence_cli.store.steering import pause_run, unpause_run

    with run.writer():
        pause_run(run.path, "ada")
        assert RunList([runs], []).scan()[0].state == "paused"
        unpause_run(run.path)
        unpause_run(run.path)
        assert RunList([runs], []).scan()[0].state == "running"


def test_formats():
    assert formats.age("2026-01-01T00:00:00+00:00", 1767225600 + 90) == "1 min"
    assert formats.age("2026-01-01T00:00:00+00:00", 1767225600 + 86400 * 3) == "3 d"
    assert formats.age("nonsense") == formats.NONE
    assert [formats.share(x) for x in (0, 0.0005, 0.005, 0.5, 1)] == ["0%", "<0.1%", "0.5%", "50%", "100%"]
    assert formats.count(None) == formats.NONE
    assert formats.count(1234) == "1,234"
    assert formats.cell(1, "flag") == "\u2691"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_nobody_to_pause_or_stop_is_said(run):
    from influence_cli.store.steering import pause_run, stop_run

    with pytest.raises(InfluenceError, match="Nobody is writing"):
        pause_run(run.path, "ada")
    with pytest.raises(InfluenceError, match="Nobody is writing"):
        stop_run(run.path)
