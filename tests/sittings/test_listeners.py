"""Whoever hears a sitting hears all of it, and nothing of it goes past them to a terminal."""

from contextlib import contextmanager

import pytest

from influence_cli.listening import Unwatched
from influence_cli.plugins.registry import make_registry
from influence_cli.sittings import simulate, train
from influence_cli.sittings.sources import Sources

FLAGS = {"default.model": "scripted:demo", "turns": 1}


class Recorder(Unwatched):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []
        self.ends: list[int] = []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.said.append(f"warning: {text}")

    @contextmanager
    def progress(self):
        yield lambda step, share, detail="": self.steps.append(step)

    def ended(self, tally):
        self.ends.append(tally.done)


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


def test_conversations_are_told_as_they_are_had_and_taken_up(heard, tiny_folder, tmp_path, capfd):
    registry, flags = make_registry(), {**FLAGS, "environments": [str(tiny_folder)]}
    sitting = simulate.begin(registry, Sources({**flags, "n": 2}), tmp_path / "run", heard)
    assert simulate.talk(sitting, heard).exit_code == 0
    assert (heard.said, heard.ends) == ([], [2])
    more = simulate.take_up(registry, str(tmp_path / "run"), Sources({"n": 3}), heard)
    assert simulate.talk(more, heard).exit_code == 0
    assert (heard.said, heard.ends) == (["2 of 3 conversations are finished."], [2, 3])
    assert capfd.readouterr() == ("", "")


def test_training_is_told_stage_by_stage(heard, tiny_folder, tmp_path, capfd):
    own = {"algorithm.name": "scripted", "iterations": 1, "samples": 2, "selection.fraction": "1/2"}
    flags = {**FLAGS, **own, "environments": [str(tiny_folder)]}
    plan = train.begin(make_registry(), Sources(flags), tmp_path / "run", heard)
    assert train.go(plan, heard).exit_code == 0
    lines = [text for text in heard.said if "conversations;" in text]
    assert len(lines) == len([text for text in heard.said if text.endswith(" ...")]) == 3
    assert any("raining" in step for step in heard.steps)
    assert capfd.readouterr() == ("", "")


def test_a_mistake_names_the_flag_where_there_is_one_and_the_setting_where_there_is_none(heard, tiny_folder):
    wrong = {**FLAGS, "environments": [str(tiny_folder)], "turns": 0}
    with pytest.raises(Exception, match="--turns"):
        simulate.begin(make_registry(), Sources(wrong, flag_names={"turns": "--turns"}), None, heard, dry=True)
    with pytest.raises(Exception, match="turns") as told:
        simulate.begin(make_registry(), Sources(wrong), None, heard, dry=True)
    assert "--turns" not in str(told.value)
