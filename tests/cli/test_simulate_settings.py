"""``influence simulate``: what its flags and files set, and what a dry run says of it."""

import shlex

import pytest

from influence_cli import resolution
from influence_cli.cli.simulate import FLAGS
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.settings import setting_names
from influence_cli.simulation.models import EMBEDDED_NOTE


def dry(simulate, *arguments):
    answer = simulate(*arguments, "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    return answer.document


def test_a_dry_run_shows_an_estimate_and_does_nothing(simulate, place):
    answer = simulate("--n", "8", "--dry-run")
    assert answer.code == 0
    assert answer.stdout.startswith("role ")
    assert "At most 8 conversations, 112 calls, " in answer.stdout
    assert " ".join(answer.stdout.split()).endswith("With --json: all settings. Nothing was done.")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("command", [("simulate",), ("train", "--algo", "scripted")])
def test_an_estimate_says_that_calls_of_tools_come_on_top(influence, command):
    arguments = ("--n", "16", "-m", "scripted:demo", "--dry-run")
    told = "Calls of tools come on top (booking): up to 4 more of the agent in each turn."
    assert told in influence(*command, "--env", "booking", *arguments).stderr
    assert "come on top" not in influence(*command, "--env", "therapy", *arguments).stderr


def test_a_dry_run_as_json(simulate, place):
    document = dry(simulate, "--n", "8")
    assert document["schema"] == "influence.simulate.dry-run/1"
    assert (document["conversations"], document["calls"]) == (8, 112)
    assert document["models"]["agent"] == "scripted:demo"
    assert sum(role["calls"] for role in document["roles"].values()) == 112
    assert list(place.iterdir()) == []


GIVEN = {
    "--scenario": ("tea", ["tea"]),
    "--initial-state": ("person-1", ["person-1"]),
    "--n": ("3", 3),
    "--samples": ("2", 2),
    "--turns": ("1", 1),
    "--split": ("train", "train"),
    "--population": ("gameable=0.25,resilient=0.75", {"gameable": 0.25, "resilient": 0.75}),
    "--cue": ("stated", "stated"),
    "--seed": ("11", 11),
    "--concurrency": ("5", 5),
    "--model": ("scripted:demo", "scripted:demo"),
    "--agent": ("scripted:demo@tuned", "scripted:demo@tuned"),
    "--user": ("scripted:demo@a", "scripted:demo@a"),
    "--preference": ("scripted:demo@b", "scripted:demo@b"),
    "--transition": ("scripted:demo@c", "scripted:demo@c"),
    "--veto": ("scripted:demo@d", "scripted:demo@d"),
    "-o": ("latency=0.5", {"latency": 0.5}),
    "--temperature": ("0.5", 0.5),
    "--max-reply-tokens": ("17", 17),
    "--no-veto": (None, False),
    "--no-speculate": (None, False),
    "--max-tokens": ("1000", 1000),
    "--cache": ("answers", "answers"),
}
NEEDS_MORE = {"--env", "--base-url", "--max-cost"}
"""Flags with a test of their own."""


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("key", [key for key, flag in FLAGS.items() if flag not in NEEDS_MORE])
def test_every_flag_reaches_its_setting(simulate, key):
    text, value = GIVEN[FLAGS[key]]
    config = dry(simulate, FLAGS[key], *([] if text is None else [text]))["config"]
    assert value_of(config, key) == value


def test_every_flag_sets_a_setting_that_there_is():
    known = set(setting_names(SimulationConfig))
    for key in FLAGS:
        assert key in known or key.split(".")[0] in known, key


def test_the_budget_of_dollars_reaches_its_setting(simulate):
    prices = 'prices={"scripted:demo": {prompt: 1, completion: 2}}'
    assert dry(simulate, "--max-cost", "0.5", "--set", prices)["config"]["budget"]["cost"] == 0.5


def test_the_address_of_a_server_reaches_its_setting(influence, tiny_folder):
    answer = influence(
        "simulate", "--env", tiny_folder, "-m", "openai:x", "--base-url", "http://127.0.0.1:9/v1", "--dry-run", "--json"
    )
    assert answer.document["config"]["default"]["options"]["base_url"] == "http://127.0.0.1:9/v1"


def test_a_price_is_asked_for_only_where_a_model_may_cost_money(influence, tiny_folder, made_run):
    words, paid = "If it costs money", ("--judge", "openai:gpt-4o-mini")
    learning = ("--algo", "scripted", "--samples", "2", "--iterations", "1")
    for command, *more in (
        ("simulate", "-e", tiny_folder, "-m", "scripted:demo"),
        ("simulate", "-e", tiny_folder, "-m", "transformers:some/model"),
        ("train", "-e", tiny_folder, "-m", "scripted:demo", *learning),
        ("sweep", "-e", tiny_folder, "-m", "scripted:demo", "--search", "seed=[1,2]"),
        ("score", made_run, "--with", "harm", "--judge", "scripted:demo"),
    ):
        answer = influence(command, *more, "--dry-run", "--max-cost", "1")
        assert (answer.code, words in answer.stderr) == (0, False), answer.stderr
        assert "no price known" not in answer.stdout
        assert influence(command, *more, "--dry-run", "--json").document["cost"] == 0.0
    for command, *more in (
        ("simulate", "-e", tiny_folder, "-m", "scripted:demo", "--veto", "openai:gpt-4o-mini"),
        ("train", "-e", tiny_folder, "-m", "scripted:demo", *learning, "--preference", "openai:gpt-4o-mini"),
        ("sweep", "-e", tiny_folder, "-m", "openai:gpt-4o-mini", "--search", "seed=[1,2]"),
        ("score", made_run, "--with", "harm", *paid),
    ):
        answer = influence(command, *more, "--dry-run")
        assert f'{words}, give its price for a million tokens: --set \'prices={{"openai:gpt-4o-mini"' in answer.stderr


def test_a_dry_run_needs_no_key_and_says_how_to_give_a_price(influence, tiny_folder):
    arguments = ("simulate", "--env", tiny_folder, "-m", "openai:gpt-4o-mini", "--dry-run")
    answer = influence(*arguments)
    assert answer.code == 0, answer.stderr
    assert "no price known" in answer.stdout
    price = shlex.split(answer.stderr.partition("for a million tokens: ")[2])
    assert price[0] == "--set"
    priced = influence(*arguments, *price)
    assert (priced.code, priced.stderr) == (0, "")
    assert "no price known" not in priced.stdout
    assert influence(*arguments, *price, "--json").document["cost"] > 0


@pytest.mark.parametrize(
    ("arguments", "judges"),
    [
        ([], "preference, transition, veto: "),
        (["--agent", "scripted:demo", "--user", "scripted:demo", "--no-veto"], "preference, transition: "),
        (["--preference", "scripted:demo", "--veto", "scripted:demo"], "transition: "),
        (["--set", "judges.minimum_mass=0.5"], None),
        (["-m", "scripted:demo"], None),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "train"])
def test_judges_that_are_the_embedded_model_by_default_are_told_beforehand(
    influence, tiny_folder, command, arguments, judges
):
    answer = influence(command, "--env", tiny_folder, *arguments, "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    told = [line for line in answer.stderr.splitlines() if EMBEDDED_NOTE in line]
    assert told == ([] if judges is None else [judges + EMBEDDED_NOTE])


def test_a_run_tells_who_judges_before_it_begins(simulate, monkeypatch):
    # scripted, but taken for the embedded model
    monkeypatch.setattr(resolution, "EMBEDDED_MODEL", "transformers:demo")
    answer = simulate("--n", "1", "--turns", "1")
    assert answer.code == 0, answer.stderr
    said = answer.stderr.splitlines()
    assert said[0] == f"preference, transition, veto: {EMBEDDED_NOTE}"
    assert said[-1] == EMBEDDED_NOTE
    stopped = simulate("--n", "1", "--max-tokens", "1", "--concurrency", "1", "--no-speculate")
    assert stopped.code == 3
    assert "1 turns" not in stopped.stdout
    assert EMBEDDED_NOTE not in stopped.stderr.splitlines()  # nothing was judged


def test_flags_override_a_file_that_extends_another(influence, place, tiny_folder):
    (place / "base.yaml").write_text("n: 2\nseed: 1\nturns: 1\ndefault: {model: 'scripted:demo'}\n")
    (place / "mine.yaml").write_text(f"extends: base.yaml\nseed: 2\nenvironments: ['{tiny_folder}']\n")
    answer = influence("simulate", "-c", "mine.yaml", "--turns", "3", "--set", "samples=4", "--dry-run", "--json")
    config = answer.document["config"]
    assert [config[key] for key in ("n", "seed", "turns", "samples")] == [2, 2, 3, 4]


def test_a_mistake_in_a_file_is_told_with_line_and_column(influence, place):
    (place / "mine.yaml").write_text("n: 2\ncoffee: 1\n")
    answer = influence("simulate", "-c", "mine.yaml")
    assert answer.code == 2
    assert "mine.yaml:2:1" in answer.stderr


def test_each_environment_is_used_once_however_often_it_is_named(simulate, tiny_folder):
    document = dry(simulate, "--env", tiny_folder)
    assert document["config"]["environments"] == [str(tiny_folder)]
    assert document["conversations"] == 8


def test_an_environment_is_found_in_a_folder_that_is_named(influence, tiny_folder):
    answer = influence(
        "simulate", "--env", "tiny", "--environments-dir", tiny_folder.parent, "-m", "scripted:demo", "--n", "1", "-q"
    )
    assert answer.code == 0, answer.stderr


def test_the_model_of_an_environment_variable_is_used_and_named(influence, tiny_folder, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    answer = influence("simulate", "--env", tiny_folder, "--n", "1")
    assert answer.code == 0
    assert "Model: scripted:demo, from INFLUENCE_MODEL." in answer.stderr
