"""``influence.compare/1``: like with like, and what changed most."""

import sqlite3

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.report.comparison import Side, comparison_document
from influence_cli.report.markdown import comparison_markdown

from .conftest import add


@pytest.fixture
def twins(make_run):
    """Two runs over the same initial states, the second 0.5 higher and one state by 4."""
    runs = [make_run("first"), make_run("second")]
    for number, run in enumerate(runs):
        with run.writer() as writer:
            for scenario in range(6):
                for state in range(5):
                    lift = number * (4.0 if (scenario, state) == (2, 3) else 0.5 + 0.05 * state)
                    for population in ("gameable", "resilient"):
                        add(writer, state, population, "none", scenario + 0.2 * state + lift, scenario=f"s{scenario}",
                            text=f"reply of run {number}")  # fmt: skip
    return runs


def rows(document, **wanted):
    return [row for row in document["differences"] if all(row[name] == value for name, value in wanted.items())]


def test_shared_initial_states_are_paired(twins, catalogue):
    document = comparison_document(Side(twins[0]), Side(twins[1]), catalogue)
    assert (document["paired"], document["shared_initial_states"]) == (True, 60)
    (reward,) = rows(document, measure="reward", population="all")
    mean = (29 * 0.6 + 0.05 * (0 - 3 * 1) + 4.0) / 30
    assert reward["value"] == pytest.approx(reward["means"][1] - reward["means"][0])
    assert reward["value"] == pytest.approx(mean, abs=0.02)
    assert (reward["pairs"], reward["n"]) == (60, [60, 60])
    assert reward["low"] > 0.0
    assert reward["effect_of_pairs"] > reward["effect"], "pairing takes out what initial states differ by"
    assert {row["population"] for row in rows(document, measure="reward")} == {"all", "gameable", "resilient"}


def test_figures_of_pairs_are_of_what_is_paired(make_run, catalogue):
    runs = [make_run("few"), make_run("many")]
    for run, states in zip(runs, (3, 6), strict=True):
        with run.writer() as writer:
            for state in range(states):
                add(writer, state, "gameable", "none", 2.0 + state, scenario=f"s{state}")
    (reward,) = rows(comparison_document(Side(runs[0]), Side(runs[1]), catalogue), measure="reward", population="all")
    assert (reward["pairs"], reward["n"], reward["value"], reward["effect"]) == (3, [3, 3], 0.0, 0.0)


def test_a_reply_that_is_shown_was_made_to_that_kind_of_user(make_run, catalogue):
    runs = [make_run("first"), make_run("second")]
    for number, run in enumerate(runs):
        with run.writer() as writer:
            for sample, population in enumerate(("gameable", "resilient")):
                for state in range(3):
                    add(writer, state, population, "none", 5.0 + number * (sample + 1), sample=sample,
                        text=f"to a {population} user")  # fmt: skip
        with sqlite3.connect(run.database) as connection:
            connection.execute("UPDATE episode SET initial_state = replace(initial_state, population, 'any')")
    changed = comparison_document(Side(runs[0]), Side(runs[1]), catalogue)["most_changed"]
    assert {row["population"] for row in changed} == {"gameable", "resilient"}
    for row in changed:
        assert row["last_replies"] == [f"to a {row['population']} user"] * 2


def test_what_changed_most_comes_first_with_both_replies(twins, catalogue):
    document = comparison_document(Side(twins[0]), Side(twins[1]), catalogue, most=3)
    changed = [row for row in document["most_changed"] if row["measure"] == "reward"]
    assert len(changed) == 3
    assert (changed[0]["scenario"], changed[0]["difference"]) == ("s2", pytest.approx(4.0))
    assert changed[0]["last_replies"] == ["reply of run 0", "reply of run 1"]
    assert "## Conversations that changed most" in comparison_markdown(document)


def test_without_shared_states_all_conversations_are_compared_and_it_is_said(trained, make_run, catalogue):
    other = make_run("other")
    with other.writer() as writer:
        for state in range(200, 220):
            add(writer, state, "gameable", "none", 3.0 + 0.01 * state, scenario=f"s{state % 6}")
    document = comparison_document(Side(trained), Side(other), catalogue)
    assert (document["paired"], document["most_changed"]) == (False, [])
    (reward,) = rows(document, measure="reward", population="all")
    assert reward["n"] == [96, 20]
    assert reward["value"] == pytest.approx(reward["means"][1] - reward["means"][0])
    assert "Unpaired" in comparison_markdown(document)


def test_two_iterations_of_one_run(trained, catalogue):
    document = comparison_document(Side(trained, 0), Side(trained, 1), catalogue)
    assert [side["iteration"] for side in document["sides"]] == [0, 1]
    (gameable,) = rows(document, measure="reward", population="gameable")
    assert gameable["value"] == pytest.approx(3.0, abs=0.5)
    families = {row["by"]: row["family"] for row in document["differences"]}
    assert set(families) == {"all", "population"}
    with pytest.raises(InfluenceError, match="no iteration 7"):
        comparison_document(Side(trained, 7), Side(trained), catalogue)


def test_a_run_beside_itself_differs_in_nothing(trained, catalogue):
    document = comparison_document(Side(trained), Side(trained), catalogue)
    for row in document["differences"]:
        assert (row["value"], row["p_corrected"]) == (0.0, 1.0)
