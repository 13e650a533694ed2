"""The importer on folders as rich as real ones: whatever they say in any of its forms is in the environment."""

import json
import shutil

import pytest

from influence_cli.environments.loading import load_environment
from influence_cli.environments.published import import_published
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ToolCall

from .conftest import SMALL, folder_of


@pytest.fixture
def imported(published, tmp_path):
    def make(name: str, **more):
        report = import_published(published / name, tmp_path / name, **more)
        return report, load_environment(tmp_path / name)

    return make


def first(environment, scenario, state, **more):
    reference = next(r for r in environment.initial_states([scenario]) if r.initial_state == state)
    return environment.episode(reference, sample=0, population=reference.population, cue=None, seed=1, **more)


# -- therapy-like -----------------------------------------------------------------------------------------------------


def test_anchors_and_merges_are_written_out(imported):
    _, environment = imported("therapist")
    assert environment.spec.roles.preference.choices == tuple(str(n) for n in range(1, 11))
    episode = first(environment, "smoking", "weak-0")
    assert episode.choices("transition", "initial_state") == ("yes", "no", "undecided")
    assert "1 to 10" not in episode.prompt("transition", "initial_state", [])[-1].content


def test_a_draw_is_the_same_in_prompts_texts_of_files_and_histories(imported):
    _, environment = imported("therapist")
    for sample in range(4):
        episode = environment.episode(
            environment.initial_states()[0], sample=sample, population="weak", cue=None, seed=3
        )
        user = episode.prompt("user", "initial_state", ())[0].content
        name = next(each for each in ("Ada", "Björk", "Chidi") if f"You play {each}." in user)
        assert "{user_name}" not in user
        assert "{" not in user
        assert f"{name} writes to you" in episode.prompt("agent", "initial_state", ())[0].content


def test_states_keep_their_histories_and_default_transitions(imported):
    _, environment = imported("therapist")
    episode = first(environment, "smoking", "weak-0")
    (entry,) = episode.entry("relapse_state", turn=1)
    assert entry.speaker == "system"
    assert "did smoke a cigarette, and is back" in entry.text
    assert episode.automatic("relapse_state") == "terminal_yes"


def test_ids_that_differ_only_in_marks_stay_apart(imported):
    _, environment = imported("therapist")
    ids = [r.initial_state for r in environment.initial_states(["late-night-shopping"]) if r.population == "weak"]
    assert ids == ["weak-a-1", "weak-a-1-2"]


@pytest.mark.parametrize(
    ("veto", "choices", "others"),
    [
        ("normal", ("0", "1"), ["veto-five-point", "veto-constitutional"]),
        ("five_point", ("1", "2", "3", "4", "5"), ["veto-normal", "veto-constitutional"]),
        ("constitutional", ("0", "1"), ["veto-normal", "veto-five-point"]),
    ],
)
def test_each_veto_variant_can_be_the_veto(imported, veto, choices, others):
    _, environment = imported("therapist", veto=veto)
    assert environment.spec.roles.veto.choices == choices
    assert [metric.id for metric in environment.spec.metrics] == others


def test_a_veto_variant_that_is_not_there_is_told(published, tmp_path):
    with pytest.raises(InfluenceError, match="has no five_point veto"):
        import_published(published / "actions", tmp_path / "x", veto="five_point")


# -- booking-like -----------------------------------------------------------------------------------------------------


def test_calls_in_every_manner_have_name_and_arguments(imported):
    _, environment = imported("bookings")
    calls = {}
    for state in ("vuln-0", "vuln-1", "vuln-2", "vuln-3"):
        opening = first(environment, "flights", state).opening()
        calls[state] = [(c.name, c.arguments) for m in opening for c in m.tool_calls]
        asked = [c.id for m in opening for c in m.tool_calls]
        assert [m.tool_call_id for m in opening if m.speaker == "tool"] == asked
    name, arguments = calls["vuln-0"][0]
    assert name == "book_flight"
    assert arguments["destination"] in ("Oslo", "Lima", "Graz")
    assert calls["vuln-1"] == [("book_flight", {"destination": "Oslo", "date": "any"})]
    assert calls["vuln-2"] == [
        ("book_flight", {"call": "please book two seats"}),
        ("book_flight", {"destination": "Lima", "date": "Monday"}),
    ]
    assert calls["vuln-3"] == [("book_flight", {})]


def test_results_say_what_happened_and_missing_ones_are_made_up_for(imported):
    report, environment = imported("bookings")
    results = [m for m in first(environment, "flights", "vuln-2").opening() if m.speaker == "tool"]
    assert [m.outcome for m in results] == ["success", "failure"]
    assert '"seats": 2' in results[0].text
    assert ("tool_call messages without a response", "answered by an error: each call has a result") in report.unplaced


def test_functions_become_tools_whatever_their_form(imported):
    _, environment = imported("bookings")
    tools = {tool.name: tool for tool in environment.spec.tools}
    assert set(tools) == {"book_flight", "reserve_table", "ferries"}
    assert tools["book_flight"].parameters["required"] == ["destination", "date"]


def test_a_conversation_is_offered_the_tools_of_its_own_file(imported):
    report, environment = imported("bookings")
    offered = {
        reference.scenario: [tool.name for tool in environment.episode(
            reference, sample=0, population=reference.population, cue=None, seed=1
        ).tools]
        for reference in environment.initial_states()
    }  # fmt: skip
    assert {name: tools for name, tools in offered.items() if tools} == {
        "flights": ["book_flight"],
        "tables": ["reserve_table"],
        "ferries": ["ferries"],
    }
    assert len(environment.spec.tools) == 3
    assert any("no other is offered" in here for _, here in report.mapped)
    ferries = first(environment, "ferries", "7")
    told = ferries.answer_call(ToolCall(id="1", name="book_flight", arguments={}), ferries.start, 0.0)
    assert told.text == "error: there is no tool 'book_flight'; available: ferries"


def test_a_cue_without_a_text_is_refused_and_drawn_values_are_remembered(imported):
    _, environment = imported("therapist")
    with pytest.raises(InfluenceError, match="therapist has no text for the cue 'stated'"):
        environment.refuse_silent("stated")
    environment.refuse_silent("none")
    environment.refuse_silent(None)
    _, politics = imported("politics")
    politics.refuse_silent("stated")  # without populations there is nothing to show
    for sample in range(4):
        episode = politics.episode(politics.initial_states()[0], sample=sample, population=None, cue=None, seed=3)
        drawn = episode.record.profile
        assert drawn["background"] in ("a progressive teacher", "a conservative farmer")
        said = "".join(message.text for message in episode.opening())
        assert drawn["location"] in said


def test_a_sketch_of_a_tool_and_calls_that_are_only_arguments(imported):
    _, environment = imported("bookings")
    tool = next(tool for tool in environment.spec.tools if tool.name == "ferries")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "who travels"},
            "from_port": {"type": "string", "description": "where it starts"},
            "num_people": {"type": "number", "description": "how many"},
        },
        "required": ["name", "from_port", "num_people"],
    }
    opening = first(environment, "ferries", "7").opening()
    (call,) = opening[3].tool_calls
    assert (call.name, call.arguments) == ("ferries", {"name": "Ola Lie", "from_port": "Bergen", "num_people": 2})
    assert opening[4].outcome == "failure"


def test_two_definitions_of_one_tool_take_the_calls_of_both(tmp_path):
    def defined(**properties):
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        return {**SMALL, "function_def": {"name": "book", "parameters": parameters}}

    text = {"type": "string"}
    files = {"a.json": defined(who=text, when=text), "b.json": defined(who=text, where=text)}
    report = import_published(folder_of(tmp_path / "src", {}, files), tmp_path / "mine")
    (tool,) = load_environment(tmp_path / "mine").spec.tools
    assert set(tool.parameters["properties"]) == {"who", "when", "where"}
    assert tool.parameters["required"] == ["who"]
    assert any("second definition" in there for there, _ in report.unplaced)


def test_a_veto_of_words_is_asked_for_as_numbers(imported):
    _, environment = imported("bookings")
    assert environment.spec.roles.veto.choices == ("0", "1")
    assert "Answer 1 for yes, 0 for no." in environment.spec.roles.veto.question


def test_what_only_some_scenarios_have_is_empty_in_the_others(imported):
    report, environment = imported("bookings")
    assert environment.scenarios["politics-note"].variables["function_def"] == ""
    assert ("{function_def} in prompts", "scenarios that lack it have an empty text there") in report.unplaced


def test_json_with_comments_is_read(imported):
    report, environment = imported("bookings")
    (message,) = first(environment, "politics-note", "0").opening()
    assert message.text == "Only a note, /* no comment */ with http://example.org in it."
    assert any("comments" in there for there, _ in report.unplaced)


# -- action-like and politics-like ------------------------------------------------------------------------------------


def test_a_numeric_transition_of_any_case_becomes_the_sigmoid(imported):
    _, environment = imported("actions")
    scale = environment.spec.roles.transition.scale
    assert (scale.choices, scale.slope, scale.centre) == (("1", "2", "3", "4", "5"), 5.0, 3.0)
    assert environment.spec.states["initial_state"].transitions == {"yes": "action_state", "no": "no_action_state"}
    assert environment.spec.states["action_state"].transitions == {"default": "terminal_state"}


def test_action_and_certainty_are_variables(imported):
    _, environment = imported("actions")
    (message,) = first(environment, "street-race", "weak-0").opening()
    assert message.text == "Should I race on the ring road? I am unsure. Number 0."


def test_a_list_of_histories_and_correlated_draws(imported):
    _, environment = imported("politics")
    assert environment.spec.populations == {}
    assert len(environment.initial_states()) == 4
    episode = environment.episode(environment.initial_states()[0], sample=0, population=None, cue=None, seed=5)
    said = episode.opening()[0].text
    assert "{" not in said
    background = "progressive" if "progressive" in said else "conservative"
    assert background in episode.prompt("preference", "initial_state", ())[-1].content


def test_further_prefixes_can_be_named(published, tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(published / "politics", folder)
    for kind in ("left", "right"):
        (folder / f"{kind}_taxes.json").write_text((folder / "taxes.json").read_text())
    (folder / "taxes.json").unlink()
    import_published(folder, tmp_path / "plain")
    assert set(load_environment(tmp_path / "plain").scenarios) == {"free-speech", "left-taxes", "right-taxes"}
    import_published(folder, tmp_path / "told", prefixes=["left", "right"])
    environment = load_environment(tmp_path / "told")
    assert set(environment.spec.populations) == {"left", "right"}
    assert set(environment.scenarios) == {"free-speech", "taxes"}


# -- histories of the published tables, where they are at hand --------------------------------------------------------


def test_every_call_of_the_published_bookings_fits_the_tool_that_its_sketch_becomes(repository, tmp_path):
    places = [above / "shared/data/published/booking-llama3-8b-kto.parquet" for above in repository.parents]
    table = next((path for path in places if path.is_file()), None)
    if table is None:
        pytest.skip("the published tables are not at hand")
    import jsonschema
    import pyarrow.parquet

    files = {}
    for row in pyarrow.parquet.read_table(table).to_pylist():
        prompt = json.loads(row["agent_system_prompt"])[0]["content"]
        history = json.loads(row["history"])
        end = next(place for place, message in enumerate(history) if message["role"] == "tool_response")
        sketch = prompt.partition("tool available to you: ")[2].partition("\n\n")[0]
        content = files.setdefault(f"{row['env_name']}.json", {"function_def": sketch, "histories": {}})
        content["histories"][str(row["initial_state_id"])] = history[: end + 1]
    report = import_published(folder_of(tmp_path / "src", {}, files), tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    assert set(environment.spec.populations) == {"uncertain"}
    assert report.initial_states == sum(len(content["histories"]) for content in files.values()) > 800
    tools = {tool.name: jsonschema.Draft202012Validator(tool.parameters) for tool in environment.spec.tools}
    for reference in environment.initial_states():
        opening = environment.episode(reference, sample=0, population="uncertain", cue=None, seed=0).opening()
        calls = [call for message in opening for call in message.tool_calls]
        assert len(calls) == 1
        assert all(tools[call.name].is_valid(call.arguments) for call in calls)
        assert opening[-1].outcome == "failure"
