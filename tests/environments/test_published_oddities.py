"""The importer on odd folders and broken ones: a valid environment or one line, never a traceback."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_cli.environments.loading import load_environment
from influence_cli.environments.published import import_published
from influence_cli.environments.published.reading import read_json, read_yaml
from influence_cli.environments.published.report import ImportReport
from influence_cli.errors import InfluenceError

from .conftest import SMALL, broken, folder_of


@pytest.mark.parametrize(
    ("files", "states"),
    [
        ({"a.json": SMALL, "below/a.json": SMALL}, 2),
        ({"a.json": SMALL, "broken.json": "{", "list.json": [1]}, 1),
        ({"a.json": b"\xef\xbb\xbf" + json.dumps(SMALL).encode()}, 1),
        ({"weak_a.json": SMALL, "a.json": SMALL, "normal_a.json": SMALL}, 3),
        ({"ä ö.json": SMALL, "ü.json": SMALL}, 2),
        ({"a.json": {"histories": {"0": ["Hello.", None, 3, {"role": "ghost", "content": "x"}], "1": []}}}, 1),
        ({"a.json": {"histories": {"0": [{"role": "environment", "content": "a\x00b\u202ec\ud800"}]}}}, 1),
        ({"a.json": {**SMALL, "message": "m", "if": "x", "profile": "p", "cue": "{if} {message}"}}, 1),
        ({"a.json": {**SMALL, "a": "{b}", "b": "{a}"}}, 1),
        ({"a.json": {**SMALL, "possible_env_vars": {"x": [], "y": "one", "z": {"q": 1}}}}, 1),
        ({"a.json": {**SMALL, "function_def": "not json at all"}}, 1),
        ({"a.json": {**SMALL, "function_def": {"name": "f", "parameters": {"type": "object", "properties": 3}}}}, 1),
        ({"a.json": '{"histories": {"0": [{"role": "environment", "content": "one"}]}, "histories": {"0": [{"role": "environment", "content": "two"}]}}'}, 1),
    ],
)  # fmt: skip
def test_odd_files_are_read_as_far_as_they_go(tmp_path, files, states):
    report = import_published(folder_of(tmp_path / "src", {}, files), tmp_path / "mine")
    assert report.initial_states == states == len(load_environment(tmp_path / "mine").initial_states())
    assert report.unplaced


def test_a_file_without_prefix_stands_apart_from_those_with_one(tmp_path):
    files = {"a.json": SMALL, "normal_a.json": SMALL, "weak_a.json": SMALL}
    import_published(folder_of(tmp_path / "src", {}, files), tmp_path / "mine")
    references = load_environment(tmp_path / "mine").initial_states()
    assert {(r.scenario, r.population) for r in references} == {("a", "weak"), ("a", "normal"), ("a-2", None)}


@pytest.mark.parametrize(
    "master",
    [
        "state_config: {initial_state: {valid_transitions: {x: {next_state: nowhere}, y: 3, z: null}}}",
        "state_config: {Start Here: {terminal: true, valid_transitions: {a: {next_state: Über}}}, Über: {}}",
        "state_config: [1, 2]\nagent_config: text\ncharacter_config: {system_prompt: [a, b]}",
        "preference_model_config: {system_prompt: 'x {unknown} {0} {a.b} {', valid_tokens: [good, bad]}",
        "agent_config: {temperature: hot, max_tokens: -1}\nmax_turns: many",
        "transition_model_config: {valid_tokens: ['1', '2']}\nstate_config: {s: {valid_transitions: {go: {next_state: s}, stay: {next_state: t}}}, t: {terminal: true}}",
        "a: !!python/object/apply:os.system ['true']",
        "possible_env_vars: {name: [Ada]}\nagent_config: {system_prompt: '{name} {{% raw %}} {{ 7 * 7 }} {# x #}'}",
    ],
)  # fmt: skip
def test_odd_settings_are_read_as_far_as_they_go(tmp_path, master):
    import_published(folder_of(tmp_path / "src", master, {"a.json": SMALL}), tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    episode = environment.episode(environment.initial_states()[0], sample=0, population=None, cue=None, seed=1)
    assert "49" not in episode.prompt("agent", environment.spec.start, ())[0].content


@pytest.mark.parametrize(
    ("master", "files", "says"),
    [
        ("a: &a [1, 2]\nb: [*c]", {"a.json": SMALL}, r"names nothing|undefined alias"),
        ("[1", {"a.json": SMALL}, r"_master_config.yaml:2: this is not valid YAML"),
        ("{[a]: 1}", {"a.json": SMALL}, "a key must be text"),
        ("", {"a.json": SMALL}, "holds no settings"),
        ("a: 1", {}, "no JSON file"),
        ("a: 1", {"a.json": "{"}, "is no JSON"),
        ("a: 1", {"a.json": b"\xff\xfe"}, "is not UTF-8"),
        ("a: 1", {"a.json": "[" * 100_000}, "is no JSON"),
        ("a: " + "[" * 1000, {"a.json": SMALL}, "nested more than"),
        ("a: 1", {"a.json": {"histories": {"0": [{"role": "ghost", "content": "x"}]}}}, "no history with a message"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, master, files, says):
    with pytest.raises(InfluenceError, match=says) as caught:
        import_published(folder_of(tmp_path / "src", master, files), tmp_path / "mine")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    source = folder_of(tmp_path / "src", "\n".join(lines), {"a.json": SMALL})
    started = time.process_time()
    with pytest.raises(InfluenceError, match="aliases make more than"):
        import_published(source, tmp_path / "mine")
    assert time.process_time() - started < 1


def test_a_file_of_a_hundred_megabytes_is_refused_at_once(tmp_path):
    source = folder_of(tmp_path / "src", {}, {})
    with (source / "a.json").open("wb") as file:
        file.truncate(100_000_000)
    started = time.process_time()
    with pytest.raises(InfluenceError, match="100 MB; at most 67 MB"):
        import_published(source, tmp_path / "mine")
    assert time.process_time() - started < 1


def test_a_file_too_large_for_one_scenario_becomes_several(tmp_path):
    histories = {str(n): [{"role": "environment", "content": f"{n} " + "word " * 6000}] for n in range(300)}
    source = folder_of(tmp_path / "src", {}, {"big.json": {"char_prompt": "c", "histories": histories}})
    report = import_published(source, tmp_path / "mine")
    environment = load_environment(tmp_path / "mine")
    assert len(environment.initial_states()) == report.initial_states == 300
    assert sorted(environment.scenarios) == ["big", "big-2", "big-3"]
    assert environment.scenarios["big-3"].variables == {"char_prompt": "c"}


def test_a_folder_of_folders_says_which_there_are(published, tmp_path):
    with pytest.raises(InfluenceError) as caught:
        import_published(published, tmp_path / "mine")
    assert "actions, bookings, politics, therapist" in (caught.value.hint or "")


def test_a_name_that_no_environment_may_have_is_refused(published, tmp_path):
    with pytest.raises(InfluenceError, match="is no name for an environment"):
        import_published(published / "politics", tmp_path / "My Env")


# -- broken at random -------------------------------------------------------------------------------------------------


CLASSES = ("therapist", "bookings", "actions", "politics")
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "{x}", "{{", "}}", "{%", "{{ x }}", "\x00", "\u202e", "ß-😀", "initial_state", "yes"]),
    st.just([]), st.just({}), st.lists(st.integers(), max_size=2), st.just({"content": 3}), st.just([["a"]]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_folder_broken_at_random_gives_a_valid_environment_or_one_line(published, data):
    source = published / data.draw(st.sampled_from(CLASSES))
    contents = {path.name: read_json(path, ImportReport()) for path in source.glob("*.json")}
    master = read_yaml(source / "_master_config.yaml", ImportReport())
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from([*sorted(contents), "master"]))
        if name == "master" and isinstance(master, dict) and master:
            master = broken(data.draw, master, ODD)
        elif name != "master" and isinstance(contents[name], dict) and contents[name]:
            contents[name] = broken(data.draw, contents[name], ODD)
    with tempfile.TemporaryDirectory() as place:
        # JSON is YAML, so that odd keys and texts arrive as they are.
        source = folder_of(Path(place) / "src", json.dumps(master), contents)
        try:
            import_published(source, Path(place) / "mine")
        except InfluenceError as error:
            assert "\n" not in str(error)
            return
        environment = load_environment(Path(place) / "mine")
        for reference in environment.initial_states():
            episode = environment.episode(reference, sample=0, population=reference.population, cue=None, seed=1)
            opening = [message.said() for message in episode.opening()]
            for role in ("agent", "user", "preference"):
                episode.prompt(role, episode.start, opening)
