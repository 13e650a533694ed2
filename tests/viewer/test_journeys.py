"""What people come for, key by key."""

import os
import shutil
from pathlib import Path

import pytest
from tests.waiting import until

from influence_cli.store.labels import labels_of
from influence_cli.store.reader import RunReader
from influence_cli.viewer.picture import settled
from influence_cli.viewer.screens.compare import CompareScreen, PairScreen
from influence_cli.viewer.screens.conversation import ConversationScreen
from influence_cli.viewer.screens.run import RunScreen
from influence_cli.viewer.screens.runs import RunsScreen
from influence_cli.viewer.widgets.facet_panel import FacetPanel
from influence_cli.viewer.widgets.query_bar import QueryBar
from influence_cli.viewer.widgets.virtual_table import VirtualTable

from .conftest import NASTY, add_conversation, looking, make_nasty_run, message, screen_text


async def test_of_a_long_name_the_word_at_its_end_is_seen(runs, made_once):
    for word in ("heath", "cedar"):
        shutil.copytree(made_once / "first", runs / f"20261126-184406-simulate-{word}")
    async with looking((80, 24), folders=(runs,)) as (app, press):
        seen = screen_text(app)
        assert "\u2026" in seen
        assert ("simulate-heath" in seen, "simulate-cedar" in seen) == (True, True)
        await press("c", "j", "c")
        title = screen_text(app).splitlines()[0]
        assert title.startswith(" compare ")
        assert ("heath" in title, "cedar" in title) == (True, True)


async def test_the_worst_conversation_is_three_keys_away(run, runs):
    with RunReader(run) as reader:
        worst = reader.rows("SELECT episode_id FROM trajectory ORDER BY mean_veto DESC, episode_id LIMIT 1")[0][0]
    async with looking(folders=(runs,)) as (app, press):
        await press("enter", "w", "enter")
        assert isinstance(app.screen, ConversationScreen)
        assert app.screen.conversation.episode_id == worst
        await press("w")
        assert app.screen.turn == 1
        await press("b")
        assert app.screen.turn == 2


async def test_ten_conversations_are_labelled_with_twenty_keys(run, runs):
    async with looking(folders=(runs,), blind=True) as (app, press):
        await press("enter", "enter", "L")
        assert "rating" not in screen_text(app)
        for number in range(10):
            await press("0" if number == 9 else str(number + 1), "enter")
        await press("f", "m", *"odd", "enter", "escape", "escape", "escape")
        assert isinstance(app.screen, RunsScreen)
    with RunReader(run) as reader:
        given = [labels_of(reader, number)[0] for number in range(1, 11)]
        assert [label.value for label in given] == [*map(str, range(1, 10)), "10"]
        assert {(label.author, label.rubric, label.turn) for label in given} == {("ada", "harm", 0)}
        (last,) = labels_of(reader, 11)
        assert (last.flag, last.note, last.value) == (True, "odd", None)


async def test_a_rubric_about_turns_labels_the_turn_in_hand(run, runs):
    async with looking(open=run.path) as (app, press):
        await press("enter", "t", "L", "tab", "2", "backspace", "3")
        assert "Honest?" in screen_text(app)
        await press("shift+tab")
        assert "How harmful?" in screen_text(app)
    with RunReader(run) as reader:
        (label,) = labels_of(reader, 1)
        assert (label.rubric, label.turn, label.value) == ("honest", 2, "no")


async def test_two_iterations_are_compared(run, runs):
    async with looking(folders=(runs,)) as (app, press):
        await press("enter", "c")
        assert isinstance(app.screen, CompareScreen)
        text = screen_text(app)
        assert "first @0 \u2192 first @1" in text
        assert "12 on both sides" in text
        assert "95 % interval" in text
        await press("m")
        assert "Mean change of final" in screen_text(app)
        await press("s", "enter")
        assert isinstance(app.screen, PairScreen)
        text = screen_text(app)
        assert "\u2212 In iteration 0" in text or "\u2212 You know best. In iteration 0" in text
        assert "iteration 1" in text
        await press("n", "p", "escape")
        assert isinstance(app.screen, CompareScreen)
        await press("3")
        assert "the same" in " ".join(str(n.message) for n in app._notifications)


async def test_queries_filter_complete_and_point_at_mistakes(run, runs):
    async with looking(open=run.path) as (app, press):
        table = app.screen.query_one(VirtualTable)
        assert table.row_count == 24
        await press("slash", *"popu", "tab", *":g", "tab", "enter")
        assert app.screen.query_one(QueryBar).query_text == "population:gameable"
        assert table.row_count == 12
        await press("slash", *" ratng>1")
        await until(lambda: "no field 'ratng'" in screen_text(app) and "\u25b2" in screen_text(app))
        await settled(app)
        lines = screen_text(app).splitlines()
        place = next(line for line in lines if "\u25b2" in line)
        assert "there is no field 'ratng'. Did you mean rating?" in place
        assert place.index("\u25b2") == lines[1].index("ratng")
        await press("escape", "x")
        assert table.row_count == 24
        await press("slash", *'"stay. nobody"', "enter")
        assert table.row_count == 24
        await press("slash", "ctrl+l", *"iter:1 -stay", "enter")
        assert table.row_count == 0
        assert "No conversation matches" in screen_text(app)


async def test_any_column_sorts_and_a_click_on_its_heading_too(run, runs):
    async with looking(open=run.path) as (app, press):
        table = app.screen.query_one(VirtualTable)
        await press(*["l"] * 5, "s")
        ratings = [float(table.row(row)[5]) for row in range(24)]
        assert ratings == sorted(ratings, reverse=True)
        await press("s")
        assert [float(table.row(row)[5]) for row in range(24)] == sorted(ratings)
        table.post_message(VirtualTable.HeaderClicked(table, "scenario"))
        await press("g")
        assert table.row(0)[1] == "tea"


async def test_facets_filter_and_show_what_there_is(run, runs):
    async with looking(open=run.path) as (app, press):
        assert "gameable" in screen_text(app)
        await press("f", "enter")
        bar = app.screen.query_one(QueryBar)
        assert bar.query_text in ("population:gameable", "population:resilient")
        await press("enter")
        assert bar.query_text == ""


async def test_a_saved_view_comes_back(run, runs):
    async with looking(open=run.path) as (app, press):
        await press("slash", *"rating>8", "enter", "V", *"good ones", "enter", "x", "v", "G", "enter")
        assert app.screen.query_one(QueryBar).query_text == "rating>8"


async def test_a_run_that_is_being_written_is_followed(run, runs):
    async with looking(open=run.path) as (app, press):
        screen = app.screen
        screen._asked_at = -100.0
        with run.writer() as writer:
            writer.set_state("running")
            add_conversation(writer, 2, 0, harm=0.5, liked=5)
            for _ in range(60):
                await screen._changed()
                await settled(app)
                if screen.query_one(VirtualTable).row_count == 25:
                    break
            assert screen.query_one(VirtualTable).row_count == 25
            assert "running" in screen_text(app)
            await press("G", "enter")
            assert app.screen.conversation.episode_id == 25
            writer.add_message(25, None, message(3, "agent", "A word that comes late."))
            app.screen._look()
            await settled(app)
            assert "A word that comes late." in "".join("".join(t for t, _ in line) for line in app.screen.chat.lines)


async def test_nasty_conversations_are_shown_harmlessly(runs):
    directory = make_nasty_run(runs / "nasty")
    async with looking((100, 40), open=directory.path) as (app, press):
        for _ in NASTY:
            assert isinstance(app.screen, RunScreen)
            await press("enter")
            for keys in (("z",), ("G",), ("o",), ("escape", "y", "Y")):
                await press(*keys)
                text = screen_text(app)
                assert all(c.isprintable() for c in text.replace("\n", ""))
                strips = app.screen._compositor.render_strips()
                assert {strip.cell_length for strip in strips} == {100}
            assert "\x1b" not in app.clipboard
            assert "\u202e" not in app.clipboard
            await press("e", "escape", "j")
        exported = (directory.path / "exports" / "conversation-1.md").read_text()
        assert "\x1b" not in exported
        assert "\u241b[31mred" in exported


@pytest.mark.parametrize("damage", ["damaged", "newer", "empty", "no database", "killed"])
async def test_a_run_in_trouble_says_what_is_wrong(run, runs, damage):
    if damage == "damaged":
        os.truncate(run.database, 6000)
        said = "damaged"
    elif damage == "newer":
        import sqlite3

        with sqlite3.connect(run.database) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        said = "newer version of this program"
    elif damage == "empty":
        from influence_cli.store.run_directory import create_run

        from .conftest import manifest

        with create_run(Path("runs/none"), manifest(created="2026-01-02T00:00:00+00:00")).writer():
            pass
        said = "empty"
    elif damage == "no database":
        run.database.unlink()
        said = "empty"
    else:
        with run.writer() as writer:
            writer.set_state("running")
            add_conversation(writer, 5, 0, harm=0.1, liked=9)
        said = "stopped"
    async with looking(folders=(runs,)) as (app, press):
        assert said in screen_text(app)
        await press("enter")
        if damage == "killed":
            assert isinstance(app.screen, RunScreen)
            assert app.screen.query_one(VirtualTable).row_count == 25
        else:
            assert isinstance(app.screen, RunsScreen)
            assert list(app._notifications)


async def test_every_key_of_every_screen_is_in_its_help(run, runs):
    async with looking((100, 200), folders=(runs,)) as (app, press):
        for keys in ((), ("enter",), ("enter",)):
            await press(*keys)
            screen = app.screen
            wanted = {b.description for b in type(screen).BINDINGS if b.description}
            await press("question_mark")
            text = screen_text(app)
            assert [told for told in wanted if told not in text] == []
            await press("escape")


async def test_the_palette_offers_the_keys_and_the_themes(run, runs):
    async with looking(folders=(runs,)) as (app, press):
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Open", "Compare", "Theme: influence-light"} <= titles
        await press("f2")
        assert app.theme == "influence-light"
        next(c for c in app.get_system_commands(app.screen) if c.title.endswith("contrast")).callback()
        assert app.theme == "influence-contrast"


async def test_no_colour_is_needed(run, runs, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with looking(folders=(runs,)) as (app, press):
        await press("enter", "enter")
        text = screen_text(app)
        for sign in ("\u25c7 user", "\u25c6 agent", "\u2503", "\u2502", "\u25b8"):
            assert sign in text


async def test_hostile_names_reach_no_input_unescaped(runs):
    directory = make_nasty_run(runs / "nasty")
    async with looking(open=directory.path) as (app, press):
        bar = app.screen.query_one(QueryBar)
        app.screen.query_one("#facets").post_message(FacetPanel.Chosen("population", "\x1b[2Jgameable"))
        await press()
        await settled(app)
        assert bar.query_text == 'population:"*[2Jgameable"'
        assert app.screen.query_one(VirtualTable).row_count == len(NASTY)
        bar.set_query('"\x1b]52;c;x\x07\u202e"')
        assert bar.query_text == '"\u241b]52;c;x\u2407<202E>"'


async def test_two_runs_are_marked_and_compared(run, runs):
    from .conftest import make_run

    make_run(runs / "second", conversations=6)
    async with looking(folders=(runs,)) as (app, press):
        await press("c", "j", "c")
        text = screen_text(app)
        assert "6 pairs" in text
        assert "compare second @0 \u2192 first @1" in text


async def test_a_run_is_paused_and_stopped_from_its_screen(run, runs, monkeypatch):
    from influence_cli.store import steering
    from influence_cli.store.steering import is_paused

    sent = []
    monkeypatch.setattr(steering.os, "kill", lambda process, number: sent.append(process))
    async with looking(folders=(runs,)) as (app, press):
        await press("P")
        assert "Nobody is writing" in " ".join(str(n.message) for n in app._notifications)
        with run.writer():
            await press("P")
            assert is_paused(run.path)
            await press("enter", "P")
            assert not is_paused(run.path)
            await press("S", "n")
            assert sent == []
            await press("S", "y", "escape", "S", "y")
            assert sent == [os.getpid()] * 2


async def test_blind_labelling_hides_scores_everywhere(run, runs):
    async with looking(open=run.path, blind=True) as (app, press):
        text = screen_text(app)
        assert "veto" not in text.splitlines()[2]
        assert "rating" not in "".join(text.splitlines()[2:])
        await press("w")
        assert app.screen.order.field == "number"
        await press("enter", "w", "B", "escape")
        assert "veto" in screen_text(app).splitlines()[2]


async def test_the_prompt_of_a_run_that_cannot_tell_says_so(run, runs):
    async with looking(open=run.path) as (app, press):
        await press("enter", "A")
        assert "does not say which tiny" in " ".join(str(n.message) for n in app._notifications)


async def test_prompts_open_in_a_pager(run, runs, tiny, tmp_path):
    from influence_cli.schemas.records import EpisodeKey, EpisodeRecord
    from influence_cli.store.run_directory import create_run

    from .conftest import manifest

    reference = tiny.initial_states()[0]
    key = EpisodeKey(environment="tiny", scenario=reference.scenario, initial_state=reference.initial_state)
    directory = create_run(runs / "told", manifest(environments={"tiny": tiny.digest}))
    with directory.writer() as writer:
        population = reference.population or next(iter(tiny.spec.populations), None)
        record = EpisodeRecord(key=key, population=population, seed=1, profile={})
        episode = tiny.episode(reference, sample=0, population=population, cue=None, seed=1)
        i = writer.open_episode(record, episode.opening())
        writer.add_message(i, None, message(1, "agent", "hello", state=tiny.spec.start))
    async with looking(open=directory.path, environments_of=lambda _path: {"tiny": tiny}) as (app, press):
        await press("enter", "A")
        text = screen_text(app)
        assert "What agent was asked in turn 1" in text
        assert tiny.digest[:12] in text
        await press("y")
        assert app.clipboard.startswith("system:")


async def test_a_view_needs_a_name_and_shipped_ones_stay(run, runs):
    async with looking(open=run.path) as (app, press):
        await press("V", "enter")
        assert "needs a name" in " ".join(str(n.message) for n in app._notifications)
        await press("escape", "v", "d", "escape")
        assert "comes with the program" in " ".join(str(n.message) for n in app._notifications)


async def test_a_folder_that_cannot_be_written_is_searched_all_the_same(run, runs):
    from influence_cli.store.search import INDEX

    (run.path / INDEX).mkdir()
    async with looking(open=run.path, query='"stay home"') as (app, _press):
        await until(lambda: app.screen.source.searchable)
        await settled(app)
        assert app.screen.query_one(VirtualTable).row_count == 24
        assert app.screen.source._spare is not None
