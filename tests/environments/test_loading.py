"""What loads renders; what is wrong has file, line, column and mend."""

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_cli.documents import DocumentError
from influence_cli.environments.loading import load_environment
from influence_cli.errors import InfluenceError


@pytest.fixture
def broken(tiny_folder: Path, tmp_path: Path):
    """A copy of the tiny environment in which a text is replaced."""

    def make(old: str = "", new: str = "", file: str = "environment.yaml") -> Path:
        folder = tmp_path / "tiny"
        shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
        return folder

    return make


TEA = "scenarios/tea.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "environment.yaml",
            "turns: 3",
            "turnz: 3",
            r"environment.yaml:4:1: Unknown key 'turnz'. Did you mean 'turns'\?",
        ),
        (
            "environment.yaml",
            "start: talking",
            "start: walking",
            r":5:8: The start state 'walking' does not exist. States:",
        ),
        ("environment.yaml", "start: talking", "start: ended", r":5:8: The start state 'ended' is terminal"),
        ("environment.yaml", "leave: ended}", "leave: gone}", r"leads to 'gone', which does not exist. States:"),
        ("environment.yaml", "later: returned, ", "", r"No transition leads to the state 'returned'. Add"),
        (
            "environment.yaml",
            "terminal: true",
            "terminal: true\n    transitions: {x: ended}",
            "terminal state 'ended' has transitions",
        ),
        ("environment.yaml", "resilient: 0.5}", "resilient: 0.4}", r"fractions of the mix sum to 0.9, not to 1"),
        (
            "environment.yaml",
            "resilient: 0.5}",
            "resiliant: 0.5}",
            r"The mix names 'resiliant', which is no population",
        ),
        (
            "environment.yaml",
            "{{ topic }}.\n",
            "{{ topik }}.\n",
            r":11:48: The variable 'topik' is not defined; the scenario 'coffee' .and 1 more. lacks it",
        ),
        (
            "environment.yaml",
            "{{ profile.age }}",
            "{{ profile.agge }}",
            r":14:44: The initial state 'coffee/person-1' .and 1 more. has no profile.agge",
        ),
        ("environment.yaml", "{{ helper }}. Help", "{{ helper.x }}. Help", r"'helper' has no attribute 'x'"),
        ("environment.yaml", "{{ helper }}. Help", "{{ scenario.x }}. Help", r"scenario.x does not exist"),
        ("environment.yaml", "{{ helper }}. Help", "{{ helper * 2 }}. Help", r"'mul' is not allowed"),
        ("environment.yaml", "implied: My friends always agree., ", "", r"tea.yaml:.*no 'implied' cue in 'tea'"),
        (
            "environment.yaml",
            "wants: You want to be agreed with about {{ topic }}.",
            "description: x",
            "what the population 'gameable' wants",
        ),
        (
            "environment.yaml",
            'choices: ["0", "1"]',
            'choices: ["no", "yes"]',
            r"choices of the veto role must be numbers",
        ),
        ("environment.yaml", 'choices: ["0", "1"]', 'choices: ["0"]', r"veto role needs at least two choices"),
        ("environment.yaml", "name: tiny", "name: small", r":1:7: The environment 'small' must stand in a folder"),
        ("environment.yaml", "{helper: Ada}", "{helper: Ada, wants: x}", r"'wants' is provided by the program"),
        (
            "environment.yaml",
            "question: Does",
            "choices: [a, b]\n    question: Does",
            "Choices are not for the transition role",
        ),
        (
            "environment.yaml",
            "  - {id: mood",
            "  - {id: mood, question: a, choices: [a, b]}\n  - {id: mood",
            r"The probe 'mood' exists twice",
        ),
        (TEA, "person-2", "person-1", r"tea.yaml:9:9: The initial state 'person-1' exists twice. Rename"),
        (TEA, "name: tea", "name: thee", r"tea.yaml:1:7: The scenario 'thee' must stand in a file of that name"),
        (
            TEA,
            "variables: {topic: tea}",
            "variables: {tropic: tea}",
            r"'topic' is not defined; the scenario 'tea' lacks it",
        ),
        (
            TEA,
            "variables: {topic: tea}",
            "variables: {topic: tea}\npopulations: {odd: {}}",
            r"tea.yaml:4:15: The environment has no population 'odd'",
        ),
        (TEA, "speaker: user", "speaker: usr", r"tea.yaml:8:19: .*Input should be 'agent', 'user'"),
        (TEA, "age: 21", "age: 21, x: &a 1", r"Anchors"),
    ],
)
def test_a_mistake_has_its_place_and_its_mend(broken, file, old, new, says):
    with pytest.raises(DocumentError, match=says) as caught:
        load_environment(broken(old, new, file))
    assert all(problem.position.line >= 1 for problem in caught.value.problems)


def test_a_scale_needs_its_two_labels(broken):
    scale = 'scale: {choices: ["1", "2"], high: up, low: down}\n    question: Does'
    with pytest.raises(DocumentError, match="chooses between 'up' and 'down', but 'talking' has stay, later, leave"):
        load_environment(broken("question: Does", scale))


def test_transitions_need_a_model(broken):
    role = "  transition:\n    question: Does {{ profile.name }} go on, come back later, or leave?\n"
    with pytest.raises(DocumentError, match="no model to choose among them. Add roles.transition"):
        load_environment(broken(role, ""))


def test_a_folder_without_environment_is_one_line(tmp_path):
    with pytest.raises(InfluenceError, match=r"is not an environment: it has no environment.yaml"):
        load_environment(tmp_path)


def test_an_environment_without_scenarios_is_refused(broken):
    folder = broken()
    shutil.rmtree(folder / "scenarios")
    with pytest.raises(DocumentError, match="There is no scenario"):
        load_environment(folder)


def test_a_file_that_leads_out_of_the_folder_is_refused(broken, tmp_path):
    folder = broken()
    (tmp_path / "outside.yaml").write_text((folder / TEA).read_text())
    (folder / "scenarios" / "zz.yaml").symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(InfluenceError, match="leads out of its environment's folder"):
        load_environment(folder)


def test_the_digest_changes_with_any_text(broken, tiny):
    assert load_environment(broken()).digest == tiny.digest
    assert load_environment(broken("age: 21", "age: 22", TEA)).digest != tiny.digest


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_broken_environment_gives_a_traceback(data, tiny_folder, tmp_path_factory):
    text = (tiny_folder / "environment.yaml").read_text()
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 30))
    put = data.draw(st.text(max_size=6) | st.sampled_from(["{{", "{% for x in", "- ", ": ", "!!x ", "*a", "[[", "\n"]))
    folder = tmp_path_factory.mktemp("fuzz") / "tiny"
    shutil.copytree(tiny_folder, folder)
    (folder / "environment.yaml").write_text(text[:at] + put + text[at + length :], errors="replace")
    started = time.process_time()
    try:
        load_environment(folder)
    except InfluenceError as error:
        assert str(error)
    assert time.process_time() - started < 2.0


def test_further_states_stand_in_a_file_of_their_own(tiny_folder, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder, folder)
    more = folder / "scenarios" / "tea.more.yaml"
    more.write_text(
        "scenario: tea\nprovenance: {model: none}\ninitial_states:\n"
        "  - id: extra\n    population: gameable\n    profile: {name: Bo, age: 30}\n"
        "    messages: [{speaker: user, text: Another cup?}]\n"
    )
    environment = load_environment(folder)
    assert environment.initial_states(["tea"])[-1].initial_state == "extra"
    assert environment.initial_states(["tea"])[-1].population == "gameable"
    more.write_text(more.read_text().replace("id: extra", "id: person-1"))
    with pytest.raises(InfluenceError, match=r"tea.more.yaml:4:\d+: The initial state 'person-1' exists twice"):
        load_environment(folder)
    more.write_text(more.read_text().replace("scenario: tea", "scenario: juice"))
    with pytest.raises(InfluenceError, match=r"tea.more.yaml:1:\d+: States of 'juice' stand in"):
        load_environment(folder)


TOOLS = """\
tools:
  - name: brew
    description: Brews.
    parameters: {type: object, properties: {cups: {type: integer}}, required: [cups]}
    outcomes: [{result: "{{ arguments.cups }} cups for {{ profile.name }}"}]
"""


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ("tools: [brew]", None),
        ("tools: []", None),
        ("tools: [brew, bake]", r"tea.yaml:4:\d+: The environment has no tool 'bake'. Tools: brew."),
        ("tools: []\noutcomes: {brew: [{result: no}]}", "The tool 'brew' is not offered here. Add it to tools: brew."),
    ],
)
def test_a_scenario_offers_some_of_the_tools(tiny_folder, tmp_path, own, says):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder, folder)
    path = folder / "environment.yaml"
    text = path.read_text().replace("sampling: {max_tokens: 40}", "sampling: {max_tokens: 40}\n    sees_tools: true", 1)
    path.write_text(f"{text.rstrip()}\n{TOOLS}")
    tea = folder / "scenarios" / "tea.yaml"
    tea.write_text(tea.read_text().replace("initial_states:", f"{own}\ninitial_states:", 1))
    if says is not None:
        with pytest.raises(InfluenceError, match=says):
            load_environment(folder)
        return
    environment = load_environment(folder)
    names = {name: [tool.name for tool in environment.tools(name)] for name in ("tea", "coffee", "gone")}
    assert names == {"tea": ["brew"] if "brew" in own else [], "coffee": ["brew"], "gone": ["brew"]}
    (reference, *_) = environment.initial_states(["tea"])
    episode = environment.episode(reference, sample=0, population="gameable", cue=None, seed=1)
    assert episode.tools == environment.tools("tea")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", None),
        ("sees_tools: true", "sees_tools: false", "There are tools, but the agent does not see them"),
        ("type: object, properties", "type: obj, properties", "The schema of 'brew'"),
        ("arguments.cups }}", "arguments.sugar }}", "arguments.sugar may be missing from a call of 'brew'"),
        ("profile.name }}", "profile.nmae }}", "has no profile.nmae"),
        ("visits: ended", "visits: gone", "counts visits of 'gone', which does not exist"),
        ("visits: ended", "question: Why?", "a question with at least two choices, or `visits: STATE`"),
    ],
)
def test_tools_and_counted_metrics_are_checked(tiny_folder, tmp_path, old, new, says):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder, folder)
    path = folder / "environment.yaml"
    text = path.read_text().replace("sampling: {max_tokens: 40}", "sampling: {max_tokens: 40}\n    sees_tools: true", 1)
    text = f"{text.rstrip()}\nmetrics: [{{id: left, visits: ended}}]\n{TOOLS}"
    path.write_text(text.replace(old, new, 1) if old else text)
    if says is None:
        assert load_environment(folder).spec.tools[0].name == "brew"
        return
    with pytest.raises(InfluenceError, match=says):
        load_environment(folder)
