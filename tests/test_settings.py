"""Settings come from defaults, files, flags and assignments, the later over the earlier."""

from pathlib import Path

import pytest

from influence_cli.documents import DocumentError
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.settings import merge, parse_assignment, resolve_settings


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def resolve(**sources) -> SimulationConfig:
    return resolve_settings(SimulationConfig, **sources)


def test_flags_override_files_and_assignments_override_flags(tmp_path):
    file = write(tmp_path / "a.yaml", "n: 8\nseed: 1\nturns: 2\n")
    config = resolve(files=[file], flags={"seed": 2, "turns": 3}, assignments=["turns=4"])
    assert (config.n, config.seed, config.turns) == (8, 2, 4)


def test_a_file_extends_another_relative_to_itself(tmp_path):
    write(tmp_path / "base.yaml", "n: 8\nroles: {agent: {model: 'scripted:demo'}}\n")
    file = write(tmp_path / "sub" / "a.yaml", "extends: ../base.yaml\nroles: {user: {model: 'x:y'}}\n")
    config = resolve(files=[file])
    assert config.n == 8
    assert {role: entry.model for role, entry in config.roles.items()} == {"agent": "scripted:demo", "user": "x:y"}


def test_populations_are_replaced_not_mixed(tmp_path):
    file = write(tmp_path / "a.yaml", "populations: {gameable: 0.5, resilient: 0.5}\n")
    config = resolve(files=[file], flags={"populations": {"gameable": 1.0}})
    assert config.populations == {"gameable": 1.0}


def test_a_circle_of_files_is_refused(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(InfluenceError, match="extends itself"):
        resolve(files=[tmp_path / "a.yaml"])


def test_a_missing_parent_names_its_child(tmp_path):
    file = write(tmp_path / "a.yaml", "extends: none.yaml\n")
    with pytest.raises(InfluenceError, match=r"none.yaml \(extended by .*a.yaml\)"):
        resolve(files=[file])


def test_a_mistake_in_a_file_has_its_line(tmp_path):
    file = write(tmp_path / "a.yaml", "n: 8\nsedd: 1\n")
    with pytest.raises(DocumentError, match=r"a.yaml:2:1: Unknown key 'sedd'. Did you mean 'seed'\?"):
        resolve(files=[file])


def test_a_mistake_on_the_command_line_names_its_flag():
    with pytest.raises(InfluenceError, match="--temperature: Input should be less than or equal to 10"):
        resolve(
            flags={"default.sampling.temperature": 11},
            flag_names={"default.sampling.temperature": "--temperature"},
        )


def test_an_unknown_setting_suggests_the_nearest():
    with pytest.raises(
        InfluenceError, match=r"there is no setting 'judges.minimum_mas'. Did you mean 'judges.minimum_mass'\?"
    ):
        resolve(assignments=["judges.minimum_mas=1"])


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_an_assignment_needs_key_and_value(text):
    with pytest.raises(InfluenceError, match="is not KEY=VALUE"):
        resolve(assignments=[text])


def test_fractions_that_do_not_sum_to_one_are_refused():
    with pytest.raises(InfluenceError, match=r"sum to one, not a=0.5 \+ b=0.4 = 0.9"):
        resolve(flags={"populations": {"a": 0.5, "b": 0.4}}, flag_names={"populations": "--population"})


def test_assignment_values_are_yaml():
    assert parse_assignment("a.b=[1, x]") == ("a.b", [1, "x"])
    assert parse_assignment("a=x=y") == ("a", "x=y")


def test_merging_keeps_what_is_not_named():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}) == {"a": {"b": 9, "c": 2}, "d": 3}


def test_a_file_that_is_a_list_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="keys and values"):
        resolve(files=[write(tmp_path / "a.yaml", "- a\n")])


def test_an_empty_file_changes_nothing(tmp_path):
    assert resolve(files=[write(tmp_path / "a.yaml", "")]) == SimulationConfig()
