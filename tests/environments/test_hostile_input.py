"""What bad input gets: one line in less than a second, never a traceback."""

import json
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_cli.documents import read_document
from influence_cli.environments.environment import Episode
from influence_cli.environments.loading import load_environment
from influence_cli.errors import InfluenceError

from .conftest import broken


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    copied = tmp_path / "tiny"
    shutil.copytree(tiny_folder, copied)
    return copied


def refusal(folder: Path) -> str:
    """Return the only line that loading ``folder`` gives, within a second."""
    started = time.process_time()
    with pytest.raises(InfluenceError) as caught:
        load_environment(folder)
    assert time.process_time() - started < 1.0
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert not any(ord(letter) < 32 or "\u202a" <= letter <= "\u202e" for letter in lines[0])
    return lines[0]


def with_prompt(folder: Path, template: str) -> Path:
    data = read(folder)
    data["roles"]["agent"]["system"] = template
    return write(folder, data)


def read(folder: Path):
    return read_document(folder / "environment.yaml").data


def write(folder: Path, data) -> Path:
    (folder / "environment.yaml").write_text(json.dumps(data))  # JSON is YAML
    return folder


BOMB = "a0: &a0 [x, x]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB.encode(), "Anchors and aliases are not allowed"),
        (b"a: " + b"[" * 200_000, "nested more than"),
        (b"a: " + b"{b: " * 100_000, "nested more than"),
        (b"- " * 200_000, "nested more than"),
        (b"a: !!python/object/apply:os.system ['true']", "The tag"),
        (b"name: ti\x00ny", "The control character U+0000"),
        ("name: ti\u202eny".encode(), "The control character U+202E"),
        (b'name: "ti\\u202Eny"', "The control character U+202E"),
        (b'name: "ti\\0ny"', "The control character U+0000"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: 1\n---\nb: 2", "one YAML document only"),
        (b"<<: {a: 1}\n? [x]\n: 1", "A key must be text"),
        (b"a: *nobody", "Anchors and aliases"),
        (b"%YAML 9.9\n---\na: 1", "not valid YAML"),
        (b"@", "not valid YAML"),
        (b"\x85", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("file", ["environment.yaml", "scenarios/tea.yaml"])
def test_a_hostile_file_is_refused(folder, file, content, says):
    (folder / file).write_bytes(content)
    assert says in refusal(folder)


@pytest.mark.parametrize("file", ["environment.yaml", "scenarios/tea.yaml", "scenarios/tea.more.yaml"])
def test_a_file_of_a_hundred_megabytes_is_refused(folder, file):
    with (folder / file).open("wb") as opened:
        opened.truncate(100_000_000)
    assert "is 100 MB; at most 8 MB are read." in refusal(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(10**9) %}{% endfor %}",
        "{% for a in profile %}{% for b in profile %}{% endfor %}{% endfor %}",
        "{% for a in profile recursive %}{{ loop(a) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set x = 'a' %}{{ x }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ profile.__class__ }}",
        "{{ profile['__class__'] }}",
        "{{ profile.name.__init__.__globals__ }}",
        "{{ profile.items() }}",
        "{{ profile|attr('__class__') }}",
        "{{ '%1000000000s'|format(1) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ cycler.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ lipsum(100000) }}",
        "{{ namespace() }}",
        "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
        "{{ " + "not " * 3000 + "cue }}",
        "{{ profile['name'][0] }}",
        "{{ profile['nmae'] }}",
        "{{ wants[0] }}",
        "{{ scenario['name']['x'] }}",
    ],
)
def test_a_template_that_loops_or_reaches_into_python_is_refused(folder, template):
    assert "environment.yaml" in refusal(with_prompt(folder, template))


@pytest.mark.parametrize(
    ("schema", "key"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "https://example.org/schema"}}}, "$ref"),
        ({"type": "object", "allOf": [{"$ref": "#"}]}, "$ref"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}, "pattern"),
        ({"type": "object", "patternProperties": {"(a+)+$": {}}}, "patternProperties"),
    ],
)
def test_a_schema_that_leads_elsewhere_or_never_ends_is_refused(folder, schema, key):
    data = read(folder)
    data["roles"]["agent"]["sees_tools"] = True
    data["tools"] = [{"name": "t", "description": "d", "parameters": schema, "outcomes": [{"result": "r"}]}]
    assert f"{key!r} is not allowed" in refusal(write(folder, data))


def test_a_parameter_may_be_called_pattern(folder):
    data = read(folder)
    data["roles"]["agent"]["sees_tools"] = True
    schema = {"type": "object", "properties": {"pattern": {"type": "string", "enum": ["$ref"]}}}
    data["tools"] = [{"name": "t", "description": "d", "parameters": schema, "outcomes": [{"result": "r"}]}]
    write(folder, data)
    assert load_environment(folder).spec.tools[0].name == "t"


def test_folders_that_lead_out_are_refused(folder, tmp_path):
    shutil.move(folder / "scenarios", tmp_path / "elsewhere")
    (folder / "scenarios").symlink_to(tmp_path / "elsewhere")
    assert "leads out of its environment's folder" in refusal(folder)


def test_a_main_file_that_leads_out_is_refused(folder, tmp_path):
    shutil.move(folder / "environment.yaml", tmp_path / "outside.yaml")
    (folder / "environment.yaml").symlink_to(tmp_path / "outside.yaml")
    assert "leads out of its environment's folder" in refusal(folder)


@pytest.mark.parametrize("made", ["pipe", "folder", "loop"])
def test_what_is_no_file_is_refused(folder, made):
    import os

    path = folder / "scenarios" / "odd.yaml"
    if made == "pipe":
        os.mkfifo(path)
    elif made == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    refusal(folder)


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "./a\x00b",
        "~nobody-here/x",
        "./" + "a" * 5000,
        "./no-such-folder",
        "no\x00name",
        "a" * 5000,
        "\u202etherapy",
        "./therapy/../..",
        "",
        " ",
        "/",
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(repository, name):
    from influence_cli.plugins.registry import make_registry
    from influence_cli.resolution import find_environments

    registry = make_registry()
    started = time.process_time()
    with pytest.raises(InfluenceError) as caught:
        find_environments(registry, [name], [])
    assert time.process_time() - started < 1.0
    assert "\n" not in str(caught.value)


# -- broken at random -------------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["", "{{", "{{ wants }}", "{{ profile }}", "{% if cue %}", "\x00", "\u202e", "ß-😀", "no", "1e999"]),
    st.just([]), st.just({}), st.lists(st.integers(), max_size=2), st.just({"terminal": True}), st.just([["a"]]),
)  # fmt: skip


@pytest.fixture(scope="module")
def shipped(repository):
    """By environment: its main file and one scenario with two people, as data."""
    found = {}
    for path in sorted((repository / "environments").glob("*/environment.yaml")):
        scenario = read_document(min(path.parent.glob("scenarios/*.yaml"))).data
        scenario["initial_states"] = scenario["initial_states"][:2]
        found[path.parent.name] = {
            "environment.yaml": read_document(path).data,
            f"scenarios/{scenario['name']}.yaml": scenario,
        }
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_shipped_environment_broken_at_random_loads_and_renders_or_is_refused(shipped, data):
    name = data.draw(st.sampled_from(sorted(shipped)))
    files = dict(shipped[name])
    for _ in range(data.draw(st.integers(1, 3))):
        file = data.draw(st.sampled_from(sorted(files)))
        files[file] = (
            broken(data.draw, files[file], ODD) if isinstance(files[file], dict) and files[file] else files[file]
        )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        (folder / "scenarios").mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content))  # JSON is YAML
        started = time.process_time()
        try:
            environment = load_environment(folder)
        except InfluenceError as error:
            assert str(error)
            return
        finally:
            assert time.process_time() - started < 2.0
        reference = environment.initial_states()[0]
        for population in [*environment.spec.populations, None]:
            if population is None and environment.spec.populations:
                continue
            episode = environment.episode(reference, sample=0, population=population, cue="implied", seed=1)
            rendered(episode)


def rendered(episode: Episode) -> None:
    opening = [message.said() for message in episode.opening()]
    for state in episode.spec.states:
        for role in ("agent", "user", "preference"):
            assert episode.prompt(role, state, opening)
        episode.entry(state, turn=1)
