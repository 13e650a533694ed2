"""``influence env``."""

import re
import shutil
from types import SimpleNamespace

import pytest

from influence_cli.cli import app
from influence_cli.documents import read_document
from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl
from influence_cli.plugins.loading import Plugin, load_plugins
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.frozen import Frozen


@pytest.fixture
def folder(place, tiny_folder):
    """A folder with a sound environment and a broken one, and a folder that is none."""
    shutil.copytree(tiny_folder, place / "mine" / "tiny")
    (place / "mine" / "broken").mkdir()
    (place / "mine" / "broken" / "environment.yaml").write_text("name: broken\ntitel: A title\nturns: many\n")
    (place / "mine" / "notes").mkdir()
    return place / "mine"


def test_list_shows_what_can_be_named_and_names_what_cannot_be_used(influence, folder):
    answer = influence("env", "list", "--environments-dir", folder)
    assert answer.code == 0
    assert "A small environment for tests" in answer.stdout
    assert "notes" not in answer.stdout
    assert "The environment broken cannot be used:" in answer.stderr
    assert "broken/environment.yaml:2:1" in answer.stderr


def test_list_as_json_counts_initial_states(influence, folder):
    document = influence("env", "list", "--environments-dir", folder, "--json").document
    assert document["schema"] == "influence.env.list/1"
    tiny = next(each for each in document["environments"] if each["name"] == "tiny")
    assert tiny["initial_states"] == 8
    assert tiny["heldout"] == 2
    assert [(each["name"], each["initial_states"]) for each in tiny["scenarios"]] == [("coffee", 4), ("tea", 4)]


def test_environments_of_the_working_directory_and_of_a_variable_are_found(influence, place, folder, monkeypatch):
    shutil.copytree(folder / "tiny", place / "environments" / "tiny")
    names = {each["name"] for each in influence("env", "list", "--json").document["environments"]}
    assert "tiny" in names
    shutil.rmtree(place / "environments")
    monkeypatch.setenv("INFLUENCE_ENVIRONMENTS", str(folder))
    assert influence("env", "show", "tiny").code == 0


def test_show_tells_what_an_environment_holds(influence, tiny_folder):
    answer = influence("env", "show", tiny_folder)
    assert answer.code == 0
    assert "tiny: A small environment for tests" in answer.stdout
    assert "8, of which 2 held out" in answer.stdout
    assert "gameable 50%, resilient 50%" in answer.stdout
    assert "talking -> talking (stay), returned (later), ended (leave)" in answer.stdout


def test_show_as_json(influence, tiny_folder):
    document = influence("env", "show", tiny_folder, "--json").document
    assert document["schema"] == "influence.env.show/1"
    assert document["states"]["ended"] == {"terminal": True, "transitions": {}}
    assert document["scenarios"][0]["probes"] == ["mood"]
    assert document["cue"] == "implied"


def test_show_of_an_unknown_environment_suggests_the_nearest(influence):
    answer = influence("env", "show", "therapie")
    assert (answer.code, answer.stdout) == (2, "")
    assert "Unknown environment 'therapie'. Did you mean 'therapy'?" in answer.stderr


def test_a_sound_environment_is_said_to_be_sound(influence, tiny_folder):
    answer = influence("env", "validate", tiny_folder)
    assert (answer.code, answer.stdout) == (0, "")
    assert "tiny is sound: 2 scenarios, 8 initial states." in answer.stderr


def test_a_folder_may_be_named_without_a_slash(influence, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert influence("env", "validate", "tiny").code == 0


def test_every_problem_is_told_with_file_line_column_and_mend(influence, folder):
    answer = influence("env", "validate", folder / "broken", folder / "tiny")
    assert answer.code == 2
    assert "broken/environment.yaml:2:1" in answer.stderr
    assert "Did you mean 'title'?" in answer.stderr
    assert "broken/environment.yaml:3:" in answer.stderr
    assert "tiny is sound" in answer.stderr


def test_files_of_one_environment_are_checked_once_as_a_hook_gives_them(influence, folder):
    tiny = folder / "tiny"
    answer = influence("env", "validate", tiny / "environment.yaml", *sorted((tiny / "scenarios").glob("*.yaml")))
    assert answer.code == 0
    assert answer.stderr.count("is sound") == 1


def test_the_hook_of_pre_commit_names_a_command_that_there_is_and_the_files_it_is_for(influence, repository):
    (hook,) = read_document(repository / ".pre-commit-hooks.yaml").data
    assert hook["entry"].split()[0] == "influence"
    assert influence(*hook["entry"].split()[1:], "--help").code == 0
    assert hook["require_serial"]
    files = re.compile(hook["files"])
    assert all(map(files.search, ("environment.yaml", "a/b/environment.yaml", "a/scenarios/x.more.yaml")))
    assert not any(map(files.search, ("a/my-environment.yaml", "a/other/x.yaml", "scenarios/x.yml")))


def test_an_unknown_name_is_told_once(influence):
    answer = influence("env", "validate", "therapie", "--json")
    assert answer.stderr.count("Did you mean") == 1
    (problem,) = answer.document["results"][0]["problems"]
    assert (problem["message"], problem["hint"]) == ("Unknown environment 'therapie'.", "Did you mean 'therapy'?")


def test_problems_as_json(influence, folder):
    answer = influence("env", "validate", folder / "broken", folder / "tiny", "--json")
    assert answer.code == 2
    assert answer.document["schema"] == "influence.env.validate/1"
    broken, tiny = answer.document["results"]
    assert (broken["sound"], tiny["sound"]) == (False, True)
    unknown = next(each for each in broken["problems"] if "titel" in each["message"])
    assert (unknown["line"], unknown["column"]) == (2, 1)
    assert "title" in unknown["hint"]


def test_an_environment_that_a_plugin_makes_is_found_like_any_other(influence, tiny, monkeypatch):
    def offered():
        return [Component("tiny", "Made in Python.", lambda: lambda options: tiny, Frozen)]

    def registry():
        manager, _ = load_plugins()
        manager.register(SimpleNamespace(influence_environments=hookimpl(offered)), name="mine")
        return PluginRegistry(manager, [Plugin("mine", "mine-dist", "1.0")])

    monkeypatch.setattr(app, "make_registry", registry)
    assert "tiny" in {each["name"] for each in influence("env", "list", "--json").document["environments"]}
    answer = influence("simulate", "--env", "tiny", "-m", "scripted:demo", "--n", "1", "--out", "made")
    assert answer.code == 0, answer.stderr
    assert influence("simulate", "--resume", "made", "--n", "2").code == 0
