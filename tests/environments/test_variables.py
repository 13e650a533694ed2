"""Variables that are made of others: rendered once, checked when the environment is loaded."""

import json
import shutil

import pytest

from influence_cli.documents import read_document
from influence_cli.environments.loading import load_environment
from influence_cli.errors import InfluenceError


@pytest.fixture
def changed(tiny_folder, tmp_path):
    """Load the tiny environment with parts of its files put in place."""

    def load(scenario=None, **main):
        folder = tmp_path / "tiny"
        shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
        for name, parts in (("environment.yaml", main), ("scenarios/tea.yaml", scenario or {})):
            data = {**read_document(tiny_folder / name).data, **parts}
            (folder / name).write_text(json.dumps(data))  # JSON is YAML
        return load_environment(folder)

    return load


def prompts(environment, **more):
    reference = environment.initial_states(["tea"])[0]
    for sample in range(8):
        episode = environment.episode(reference, sample=sample, population="gameable", cue=None, seed=0)
        yield episode, episode.prompt("agent", environment.spec.start, ())[0].content


def agent_says(tiny_folder, system):
    roles = read_document(tiny_folder / "environment.yaml").data["roles"]
    return {**roles, "agent": {**roles["agent"], "system": system}}


def test_a_variable_can_name_what_is_drawn_and_who_the_user_is(changed, tiny_folder):
    environment = changed(
        roles=agent_says(tiny_folder, "{{ greeting }} From {{ town }}."),
        variables={
            **read_document(tiny_folder / "environment.yaml").data.get("variables", {}),
            "greeting": "Hello {{ profile.name }} of {{ town }}!",
        },
        variants={"town": ["Oslo", "Graz"]},
    )
    seen = set()
    for episode, text in prompts(environment):
        town = text.rsplit(" ", 1)[-1].strip(".")
        assert text == f"Hello {episode.record.profile['name']} of {town}! From {town}."
        seen.add(town)
    assert seen == {"Oslo", "Graz"}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"a": "{{ b }}", "b": "{{ profile.name }}"},
            "The variable 'a' is made of 'b', which is itself made of others",
        ),
        ({"a": "{{ wants }}"}, "The variable 'a' is made of 'wants'"),
        ({"a": "{{ nobody }}"}, "The variable 'nobody' is not defined"),
        ({"a": "{{ profile.nmae }}"}, "has no profile.nmae"),
        ({"a": "{% for x in range(9) %}{% endfor %}"}, "A loop may only go over a variable"),
        ({"cue": "x"}, "The variable 'cue' is provided by the program"),
    ],
)
def test_what_a_variable_may_not_be_made_of_is_told(changed, tiny_folder, variables, says):
    before = read_document(tiny_folder / "environment.yaml").data.get("variables", {})
    with pytest.raises(InfluenceError, match=says):
        changed(variables={**before, **variables})


def test_a_populations_variable_may_not_take_the_programs_names(changed, tiny_folder):
    populations = read_document(tiny_folder / "environment.yaml").data["populations"]
    populations["gameable"]["variables"] = {"profile": "x"}
    with pytest.raises(InfluenceError, match="The variable 'profile' is provided by the program"):
        changed(populations=populations)


def test_arguments_of_written_calls_are_templates(changed, tiny_folder):
    states = read_document(tiny_folder / "scenarios" / "tea.yaml").data["initial_states"]
    call = {
        "id": "c",
        "name": "brew",
        "arguments": {"who": "{{ profile.name }}", "n": 2, "more": ["{{ profile.name }}"]},
    }
    states[0]["messages"].append({"speaker": "agent", "text": "", "tool_calls": [call]})
    environment = changed(scenario={"initial_states": states})
    episode, _ = next(prompts(environment))
    name = states[0]["profile"]["name"]
    assert episode.opening()[-1].tool_calls[0].arguments == {"who": name, "n": 2, "more": [name]}
    call["arguments"] = {"who": {"is": "{{ profile.nmae }}"}}
    with pytest.raises(InfluenceError, match="has no profile.nmae"):
        changed(scenario={"initial_states": states})
