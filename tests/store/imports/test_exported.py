"""Our own exports: what cannot be one of them is refused, a row at a time."""

import json

import pytest

from influence_cli.store.imports.conversation import Conversation, Refused
from influence_cli.store.imports.exported import exported_conversations, is_exported


@pytest.fixture
def row(repository):
    return json.loads((repository / "tests" / "store" / "trajectory.json").read_text())


def test_a_trajectory_is_told_from_other_rows(row):
    assert is_exported(row)
    assert not is_exported({"env_name": "x"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "running"}, "had not ended"),
        ({"cue": "shouted"}, "cue"),
        ({"messages": [{}]}, "tool_calls"),
        ({"messages": 3}, "TypeError"),
        ({"profile": "{"}, "JSONDecodeError"),
        ({"turns": -1}, "turns"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_and_the_others_stay(row, change, told):
    found = list(exported_conversations([{**row, **change}, row]))
    assert isinstance(found[0], Refused)
    assert told in found[0].reason
    assert isinstance(found[1], Conversation)
