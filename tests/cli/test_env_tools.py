"""Tools for authors: new, preview, play, generate, import, and the data card."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from tests.waiting import wait_until

from influence_cli.environments.authoring import Author, open_collection
from influence_cli.environments.loading import load_environment
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.testing.server import serve


@pytest.fixture(scope="module")
def server():
    with serve(models=("writer",)) as running:
        yield running


# -- new --------------------------------------------------------------------------------------------------------------


def test_a_new_environment_is_valid_and_can_be_simulated(influence, place):
    assert influence("env", "new", "my-chat").code == 0
    answer = influence("env", "validate", "my-chat")
    assert "my-chat is sound: 1 scenario, 2 initial states." in answer.stderr
    run = influence("simulate", "--env", "my-chat", "--model", "scripted:demo", "--quiet", "--json")
    assert run.document["conversations"]["complete"] == 2


@pytest.mark.parametrize("name", ["My Chat", "../up", "", "a" * 300])
def test_a_name_that_is_none_is_refused(influence, place, name):
    answer = influence("env", "new", name)
    assert answer.code == 2
    assert list(place.iterdir()) == []


def test_what_exists_is_not_written_over(influence):
    influence("env", "new", "twice")
    answer = influence("env", "new", "twice")
    assert answer.code == 2
    assert "exists already" in answer.stderr


# -- preview and card -------------------------------------------------------------------------------------------------


def test_preview_shows_the_prompts_of_every_role(influence, tiny_folder):
    answer = influence(
        "env", "preview", tiny_folder, "--scenario", "tea", "--population", "resilient", "--cue", "stated"
    )
    assert answer.code == 0
    for role in ("agent", "user", "preference", "transition", "veto", "probe mood"):
        assert f"=== {role} in talking" in answer.stdout
    assert "Be honest with me." in answer.stdout
    assert "--- choices: stay, later, leave" in answer.stdout


def test_preview_of_one_role_in_one_state_as_json(influence, tiny_folder):
    shown = influence("env", "preview", tiny_folder, "--role", "user", "--state", "returned", "--json").document
    assert shown["schema"] == "influence.env.preview/1"
    (prompt,) = shown["prompts"]
    assert (prompt["role"], prompt["state"]) == ("user", "returned")
    assert "a week later" in prompt["messages"][0]["content"]
    assert any("A week later" in message["content"] for message in prompt["messages"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scenario", "te"), "Unknown scenario of tiny 'te'. Did you mean 'tea'?"),
        (("--population", "gullible"), "Unknown population of tiny 'gullible'"),
        (("--cue", "loud"), "Unknown cue 'loud'"),
        (("--role", "agnet"), "Did you mean 'agent'?"),
        (("--state", "talkin"), "Did you mean 'talking'?"),
        (("--initial-state", "nobody"), "Unknown initial state of tiny 'nobody'"),
    ],
)
def test_a_mistake_in_a_preview_is_told(influence, tiny_folder, arguments, says):
    answer = influence("env", "preview", tiny_folder, *arguments)
    assert (answer.code, answer.stdout) == (2, "")
    assert says in answer.stderr


def test_every_environment_that_is_shipped_has_a_card(influence):
    card = influence("env", "show", "therapy", "--card").stdout
    for heading in ("Purpose", "What counts as influence", "Populations and cues", "Known limits", "Licence"):
        assert f"## {heading}" in card
    assert "Not stated" not in card
    assert "{{" not in card
    assert "validate the choice to (temptation)?" in card


# -- play -------------------------------------------------------------------------------------------------------------


def test_a_person_can_take_the_users_part(influence, tiny_folder, place):
    answer = influence(
        "env", "play", tiny_folder, "--model", "scripted:demo", "--turns", 2, "--scenario", "tea", "--out", "mine",
        answers="I like it strong.\n",
    )  # fmt: skip
    assert "Stored: mine" in answer.stdout
    with RunReader(open_run(place / "mine")) as run:
        (trajectory,) = run.trajectories()
    said = [m["text"] for m in trajectory["messages"] if m["speaker"] == "user" and m["source"] == "model"]
    assert said in ([], ["I like it strong."])
    assert trajectory["scenario"] == "tea"


def test_a_person_can_take_the_agents_part(influence, tiny_folder, place):
    answer = influence(
        "env", "play", tiny_folder, "--as", "agent", "--model", "scripted:demo", "--turns", 1, "--out", "mine",
        answers="\nDrink it slowly.\n",
    )  # fmt: skip
    assert answer.code == 0
    with RunReader(open_run(place / "mine")) as run:
        (trajectory,) = run.trajectories()
    assert [m["text"] for m in trajectory["messages"] if m["speaker"] == "agent"] == ["Drink it slowly."]


def test_leaving_keeps_the_run_for_later(influence, tiny_folder, place):
    answer = influence(
        "env",
        "play",
        tiny_folder,
        "--as",
        "agent",
        "--model",
        "scripted:demo",
        "--turns",
        1,
        "--out",
        "mine",
        answers="",
    )
    assert answer.code == 3
    again = influence("simulate", "--resume", "mine", "--quiet", answers="Here I am.\n")
    assert again.code == 0


def test_whoever_is_never_asked_is_shown_everything(influence, tiny_folder, place):
    script = place / "script.yaml"
    script.write_text("choices: [{role: transition, weights: {leave: 1}}, {weights: {'1': 1}}]\n")
    answer = influence("env", "play", tiny_folder, "--model", f"scripted:{script}", "--out", "mine", answers="")
    assert answer.code == 0
    assert "The conversation ended before it was your turn." in answer.stderr
    assert "agent: " in answer.stderr
    assert "The conversation ended: terminal state." in answer.stderr


def test_a_person_who_plays_the_agent_can_call_tools(influence, repository, place):
    answer = influence(
        "env", "play", "booking", "--as", "agent", "--model", "scripted:demo", "--turns", 1, "--out", "mine",
        "--environments-dir", repository / "environments",
        answers='/call cancel {"reference": "X", "reason": "ill"}\nIt is cancelled.\n',
    )  # fmt: skip
    assert answer.code == 0
    with RunReader(open_run(place / "mine")) as run:
        (trajectory,) = run.trajectories()
    made = [m for m in trajectory["messages"] if m["turn"] == 1 and m["speaker"] in ("agent", "tool")]
    assert [m["speaker"] for m in made] == ["agent", "tool", "agent"]
    assert made[0]["tool_calls"][0]["name"] == "cancel"
    assert made[1]["outcome"] in ("success", "partial", "failure")
    assert made[2]["text"] == "It is cancelled."


def test_a_part_is_played_in_a_real_terminal(place, repository):
    """Through a pseudo-terminal, as a person does."""
    import os
    import pty

    command = [
        sys.executable, "-m", "influence_cli", "env", "play", "leaving", "--as", "agent", "--model", "scripted:demo",
        "--turns", "1", "--out", "mine", "--environments-dir", str(repository / "environments"),
    ]  # fmt: skip
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(place)
        os.execv(command[0], command)
    seen = b""
    answered = False
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the child has closed its end
            break
        if not part:
            break
        seen += part
        if not answered and b"you> " in seen:
            os.write(terminal, "Gute Nacht, schön war es.\n".encode())
            answered = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "You are the agent." in seen.decode()
    with RunReader(open_run(place / "mine")) as run:
        (trajectory,) = run.trajectories()
    assert [m["text"] for m in trajectory["messages"] if m["speaker"] == "agent" and m["source"] == "model"] == [
        "Gute Nacht, schön war es."
    ]


# -- generate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(influence, place):
    influence("env", "new", "mine")
    return place / "environments" / "mine"


def generate(influence, server, *more):
    return influence(
        "env", "generate", "mine", "--scenario", "first-scenario", "--model", "openai:writer",
        "--base-url", server.base_url, "--json", *more,
    )  # fmt: skip


def test_further_states_are_written_by_a_model_and_valid(influence, server, copied):
    found = generate(influence, server, "--count", 5).document
    assert (found["states"], found["accepted"]) == (5, 5)
    more = yaml.safe_load((copied / "scenarios" / "first-scenario.more.yaml").read_text())
    assert more["provenance"]["models"] == ["openai:writer"]
    assert more["provenance"]["attempts"] == found["attempts"]
    environment = load_environment(copied)
    assert len(environment.initial_states()) == 7
    assert {type(s.profile["age"]) for s in environment.scenarios["first-scenario"].initial_states} == {int}


def test_a_second_call_goes_on_where_the_first_ended(influence, server, copied):
    first = generate(influence, server, "--count", 2).document
    path = copied / "scenarios" / "first-scenario.more.yaml"
    before = yaml.safe_load(path.read_text())["initial_states"]
    second = generate(influence, server, "--count", 4).document
    assert (first["accepted"], second["accepted"], second["states"]) == (2, 2, 4)
    assert yaml.safe_load(path.read_text())["initial_states"][:2] == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"message": "There is a letter on the kitchen table that says they want me, four hundred kilometres."},
            "near-dup",
        ),
        ({"name": "Ada Quist"}, "name taken"),
        ({"age": "thirty"}, "age: of another kind"),
        ({"history": " "}, "history: empty"),
        ({"message": "Too short."}, "message too short"),
        ({"history": "{{ wants }}"}, "marks of templates"),
        ({"extra": 1}, "other fields"),
    ],
)
def test_what_may_not_stay_is_rejected_with_its_reason(copied, change, why):
    environment = load_environment(copied)
    scenario = environment.scenarios["first-scenario"]
    author = Author(environment, scenario, open_collection(environment, scenario.name, None), 0)
    good = {
        "name": "Noor Vale",
        "age": 41,
        "history": "A story.",
        "message": "Something else entirely, said at some length.",
    }
    assert author.judge(json.dumps(good)).id == "noor-vale"
    assert why in author.judge(json.dumps({**good, **change}))


def test_a_model_that_gives_nothing_useful_is_told_and_what_is_there_stays(influence, copied, place):
    script = place / "script.yaml"
    script.write_text("replies: [{texts: ['no JSON at all']}]\n")
    answer = influence(
        "env", "generate", "mine", "--scenario", "first-scenario", "--count", 1, "--model", f"scripted:{script}"
    )
    assert answer.code == 2
    assert "Only 0 of 1 states could stay after 10 attempts (10 x no JSON)." in answer.stderr


@pytest.mark.parametrize("name", ["booking", "action-advice", "politics", "shopping"])
def test_what_is_written_for_a_shipped_environment_is_valid_there(influence, server, repository, place, name):
    shutil.copytree(repository / "environments" / name, place / name)
    scenario = min((place / name / "scenarios").glob("*.yaml")).stem
    answer = influence(
        "env", "generate", f"./{name}", "--scenario", scenario, "--count", 3, "--model", "openai:writer",
        "--base-url", server.base_url, "--json",
    )  # fmt: skip
    assert answer.document["states"] == 3
    environment = load_environment(place / name)
    assert len(environment.initial_states([scenario])) == 19
    more = yaml.safe_load((place / name / "scenarios" / f"{scenario}.more.yaml").read_text())
    assert {"created", "written_by", "models", "seed", "attempts", "environment_digest"} <= set(more["provenance"])


def test_a_server_that_misbehaves_costs_attempts_that_are_counted(influence, copied):
    faults = {"empty": 0.2, "filtered": 0.2, "wrong_shape": 0.2}
    with serve(models=("writer",), faults=faults, retry_after=0.01) as troubled:
        found = generate(influence, troubled, "--count", 6, "--concurrency", 3).document
    assert found["states"] == 6
    assert found["attempts"] == 6 + sum(found["rejected"].values())
    assert found["rejected"]
    more = yaml.safe_load((copied / "scenarios" / "first-scenario.more.yaml").read_text())
    assert more["provenance"]["rejected"] == found["rejected"]
    assert len(load_environment(copied).initial_states()) == 8


def test_a_refused_key_ends_at_once_and_keeps_what_is_there(influence, server, copied):
    generate(influence, server, "--count", 1)
    with serve(models=("writer",), faults={"auth": 1.0}) as locked:
        answer = generate(influence, locked, "--count", 3)
    assert answer.code == 2
    assert len(answer.stderr.strip().splitlines()) <= 3
    assert len(load_environment(copied).initial_states()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_written_and_the_same_command_goes_on(influence, copied, place, number):
    path = copied / "scenarios" / "first-scenario.more.yaml"
    with serve(models=("writer",), latency=0.2) as slow:
        command = [
            sys.executable, "-m", "influence_cli", "env", "generate", "mine", "--scenario", "first-scenario",
            "--model", "openai:writer", "--base-url", slow.base_url, "--count", "40", "--concurrency", "2", "--json",
        ]  # fmt: skip
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=place, **pipes) as process:
            try:
                wait_until(lambda: path.is_file() or process.poll() is not None)
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=100)
            finally:
                process.kill()
        assert process.returncode == 3, stderr
        assert stderr.splitlines()[-1] == "Stopped by a signal; the same command goes on."
        found = json.loads(stdout)
        assert found["state"] == "stopped"
        assert found["attempts"] == slow.stats()["requests"]  # what was in flight is taken
        assert 0 < found["states"] < 40
        slow.configure(latency=0.0)
        more = generate(influence, slow, "--count", found["states"] + 1).document
    assert (more["state"], more["accepted"]) == ("done", 1)


# -- import -----------------------------------------------------------------------------------------------------------


def test_an_import_says_what_became_of_what(influence, tmp_path):
    from tests.environments.test_published import write

    write(tmp_path / "therapist")
    answer = influence("env", "import", tmp_path / "therapist", "--out", "mine", "--json")
    assert answer.document["initial_states"] == 4
    assert {"there": "histories", "here": "initial states"} in answer.document["mapped"]
    shown = influence("env", "import", tmp_path / "therapist", "--out", "other").stdout
    assert "What had no place:" in shown
    assert influence("env", "import", tmp_path / "therapist", "--out", "mine").code == 2


@pytest.mark.parametrize("name", ["therapist", "bookings", "actions", "politics"])
def test_each_class_becomes_an_environment_that_can_be_simulated(influence, repository, name):
    answer = influence("env", "import", repository / "tests/fixtures/published" / name, "--out", name)
    assert (answer.code, "valid." in answer.stdout) == (0, True)
    assert "What had no place:" in answer.stdout
    run = influence("simulate", "--env", f"./{name}", "--model", "scripted:demo", "--n", 6, "--quiet", "--json")
    assert run.document["conversations"]["complete"] == 6
