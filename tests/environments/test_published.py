"""The importer of the published project's environments, on small files of that form."""

import json
import time

import pytest
import yaml

from influence_cli.environments.format_strings import as_template, fields_of
from influence_cli.environments.loading import load_environment
from influence_cli.environments.published import import_published
from influence_cli.environments.templates import compile_template
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import Message

MASTER = {
    "state_config": {
        "initial_state": {
            "valid_transitions": {"Yes": {"next_state": "later"}, "No": {"next_state": "initial_state"}},
            "default_transition": "initial_state",
        },
        "later": {
            "history": [
                {"role": "environment_system", "content": "{user_name} is back, having gone for {char_action}."}
            ],
            "valid_transitions": {"Yes": {"next_state": "terminal"}, "No": {"next_state": "later"}},
        },
        "terminal": {"terminal": True},
    },
    "character_config": {"system_prompt": "You are {user_name}. {char_prompt} Show {{braces}}."},
    "agent_config": {"system_prompt": "Help {user_name}.", "max_tokens": 200, "temperature": 1.0},
    "preference_model_config": {
        "system_prompt": "How happy is {user_name}? {pm_prompt}",
        "prompt_suffix": "Answer 1 to 10.",
        "valid_tokens": [str(n) for n in range(1, 11)],
        "perspective": "3rd person",
    },
    "influence_detector_model_config": {
        "system_prompt": "Harmful?",
        "prompt_suffix": "0 or 1.",
        "valid_tokens": ["0", "1"],
        "five_point_system_prompt": "How harmful?",
        "five_point_prompt_suffix": "1 to 5.",
    },
    "transition_model_config": {"system_prompt": "Does {user_name} do it?", "prompt_suffix": "Yes or No."},
    "possible_env_vars": {"user_name": ["Ada", "Bo", "Cy"], "company": ["Acme"]},
}


def write(folder, master=None, files=None):
    folder.mkdir(exist_ok=True)
    (folder / "_master_config.yaml").write_text(yaml.safe_dump(master or MASTER))
    for name, content in (files or {"weak_smoking": one("weak"), "normal_smoking": one("normal")}).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def one(kind, histories=None):
    return {
        "env_name": "smoking",
        "char_prompt": f"You are a {kind} person who wants to {{char_action}}.",
        "pm_prompt": f"A {kind} rater.",
        "char_action": "smoke again",
        "histories": histories
        or {
            "0": [{"role": "environment", "content": f"I want a cigarette, says the {kind} one {{user_name}}"}],
            "1": [
                {"role": "environment", "content": "Book it {not_a_field}"},
                {"role": "tool_call", "content": json.dumps({"name": "book", "parameters": {"who": "me"}})},
                {"role": "tool_response", "content": "Error: offline"},
                {"role": "agent", "content": "One moment {{sic}}"},
            ],
        },
    }


def test_an_environment_of_the_published_form_becomes_a_valid_one(tmp_path):
    report = import_published(write(tmp_path / "therapist"), tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    assert (report.scenarios, report.initial_states) == (1, 4)
    assert set(environment.spec.populations) == {"weak", "normal"}
    assert environment.spec.states["initial_state"].transitions == {"Yes": "later", "No": "initial_state"}
    assert [m.id for m in environment.spec.metrics] == ["veto-five-point"]
    assert any(there == "perspective of preference_model_config" for there, _ in report.unplaced)


def test_each_history_is_played_as_its_files_population(tmp_path):
    import_published(write(tmp_path / "therapist"), tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    for reference in environment.initial_states():
        episode = environment.episode(reference, sample=0, population="weak", cue=None, seed=1)
        kind = reference.population
        assert episode.record.population == kind
        system = episode.prompt("user", "initial_state", [Message(speaker="user", text="hi")])[0].content
        assert f"You are a {kind} person who wants to smoke again." in system
        assert "Show {braces}." in system
        assert system.split()[2] in {"Ada.", "Bo.", "Cy."}


def test_tool_messages_become_calls_and_results(tmp_path):
    import_published(write(tmp_path / "therapist"), tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    reference = next(r for r in environment.initial_states() if r.initial_state == "weak-1")
    opening = environment.episode(reference, sample=0, population="weak", cue=None, seed=1).opening()
    assert [m.speaker for m in opening] == ["user", "agent", "tool", "agent"]
    assert opening[1].tool_calls[0].arguments == {"who": "me"}
    assert opening[2].outcome == "failure"
    assert opening[0].text == "Book it {not_a_field}"
    assert opening[3].text == "One moment {sic}"


def test_numeric_transitions_become_a_scale(tmp_path):
    master = {
        **MASTER,
        "state_config": {
            "initial_state": {
                "valid_transitions": {"yes": {"next_state": "end"}, "no": {"next_state": "initial_state"}}
            },
            "end": {"terminal": True},
        },
        "transition_model_config": {"system_prompt": "How likely?", "valid_tokens": ["1", "2", "3", "4", "5"]},
    }
    import_published(write(tmp_path / "actions", master), tmp_path / "mine")
    scale = load_environment(tmp_path / "mine").spec.roles.transition.scale
    assert (scale.slope, scale.centre, scale.high, scale.low) == (5.0, 3.0, "yes", "no")


def test_without_prefixes_there_are_no_populations(tmp_path):
    import_published(write(tmp_path / "politics", files={"taxes": one("plain")}), tmp_path / "mine")
    assert load_environment(tmp_path / "mine").spec.populations == {}


def test_two_thousand_histories_take_less_than_ten_seconds(tmp_path):
    histories = {
        str(n): [
            {"role": ("environment", "agent")[turn % 2], "content": f"Turn {turn} of {n}: " + "about many things " * 20}
            for turn in range(3)
        ]
        for n in range(2000)
    }
    write(tmp_path / "big", files={"weak_big": one("weak", histories)})
    started = time.process_time()
    report = import_published(tmp_path / "big", tmp_path / "mine")
    load_environment(tmp_path / "mine")
    assert report.initial_states == 2000
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"weak_a": {"histories": {}}}, "holds no histories"),
        ({"weak_a": ["no"]}, "holds no histories"),
        ({"weak_a": one("weak", {"0": [{"role": "ghost", "content": "x"}]})}, "no history with a message"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, files, says):
    with pytest.raises(InfluenceError, match=says):
        import_published(write(tmp_path / "bad", files=files), tmp_path / "mine")


def test_a_folder_of_something_else_is_told(tmp_path):
    with pytest.raises(InfluenceError, match=r"has no _master_config.yaml"):
        import_published(tmp_path, tmp_path / "mine")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{a} and {{b}}", "1 and {b}"),
        ("{a!r} {x}", "{a!r} {x}"),
        ("100 % {% and {{{{", "100 % {% and {{{{"),
        ("broken { brace", "broken { brace"),
        ("{{% if %}}", "{% if %}"),
    ],
)
def test_format_strings_become_templates_that_say_the_same(text, rendered):
    assert compile_template(as_template(text, {"a"})).render({"a": 1}) == rendered


def test_fields_are_found():
    assert fields_of("{a} {B} {{c}}") == {"a", "b"}
