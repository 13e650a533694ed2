"""Environments as tasks of Inspect: the simulation's own conversations, its judges, and the way back into a run."""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install 'influence-cli[inspect]'")

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import get_model
from inspect_ai.solver import generate

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.sampling import episodes
from influence_cli.errors import UnknownNameError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.requests import Generation
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.single import converse
from influence_inspect.scorers import rubrics
from influence_inspect.tasks import environment_task

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore:Exception ignored in. .function MemoryObject:pytest.PytestUnraisableExceptionWarning",
)
SCRIPTED = "scripted:demo"
OTHERS = dict.fromkeys(("user_model", "preference_model", "transition_model", "veto_model"), SCRIPTED)


@pytest.fixture(autouse=True)
def tidy():
    """Leave logging as it was, and have what Inspect leaves open closed here, where the warning is passed over."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    gc.collect()


@pytest.fixture
def run(place):
    """Run a task in this process, silently; the log, read from its file."""

    def go(task, model, **more):
        (log,) = evaluate(task, model=model, display="none", log_dir="logs", **more)
        return read_eval_log(log.location)

    return go


@pytest.fixture
def parrot(answer):
    """An agent that says the same each time."""
    return get_model("mockllm/model", custom_outputs=lambda *given: answer("It is your decision."))


class Parrot(ScriptedBackend):
    async def generate(self, request):
        said = await super().generate(request)
        return Generation(text="It is your decision.", usage=said.usage) if request.role == "agent" else said


async def simulated(environment, config):
    """The same conversations as a run has them."""
    model = RoleModel(parse_model_name(SCRIPTED), Parrot("demo", ScriptedOptions()))
    models = dict.fromkeys(("agent", "user", "preference", "transition", "veto"), model)
    return [await converse(episode, models, config) for episode in episodes([environment], config)]


def test_a_task_has_the_conversations_of_a_run(run, parrot, tiny_folder, tiny):
    log = run(environment_task(str(tiny_folder), seed=5, turns=3, **OTHERS), parrot)
    assert log.status == "success"
    config = SimulationConfig(seed=5, turns=3)
    expected = {
        f"{k.record.key.scenario}/{k.record.key.initial_state}": k for k in asyncio.run(simulated(tiny, config))
    }
    assert len(expected) == len(log.samples) > 4
    for sample in log.samples:
        kept = expected[sample.id]
        assert [m.text for m in sample.messages] == [m.text for m in kept.messages]
        assert sample.store["influence"]["end"] == kept.end.model_dump(mode="json")
        assert sample.scores["preference"].value == pytest.approx(kept.end.mean_rating)
        assert sample.scores["veto"].value == pytest.approx(kept.end.mean_veto)
        assert sample.metadata["population"] == kept.record.population
        assert [m.text for m in sample.input] == [m.text for m in kept.messages if m.turn == 0]
    by_name = {score.name: score.metrics for score in log.results.scores}
    assert {"mean", "stderr", "mean_gameable", "mean_resilient"} <= set(by_name["preference"])


def figures(log, name):
    """Inspect's own figures of a score, or ours."""
    score = next(score for score in log.results.scores if score.name == name)
    return {name: metric.value for name, metric in score.metrics.items()}


def test_epochs_are_further_conversations_and_the_log_becomes_a_run(
    run, influence, contents, place, tiny_folder, answer
):
    seen = []

    def talk(messages, tools, choice, config):
        seen.append(config)
        return answer(f"Reply {len(seen)}.")

    model = get_model("mockllm/model", custom_outputs=talk)
    task = environment_task(
        str(tiny_folder), scenario="tea", turns=2, judge_model=SCRIPTED, rubrics="sycophancy", **OTHERS
    )
    log = run(task, model, epochs=2, temperature=0.25)
    assert {config.temperature for config in seen} == {0.25}  # what the evaluation sets comes before the environment
    assert {config.max_tokens for config in seen} == {40}  # what it leaves open is the environment's
    states = {sample.id for sample in log.samples}
    assert len(log.samples) == 2 * len(states)
    assert all(sample.metadata["sample"] == sample.epoch - 1 for sample in log.samples)
    assert influence("import", log.location, "--out", "runs/back").exit_code == 0
    trajectories, kept = contents(place / "runs" / "back")
    assert {(t["scenario"], t["sample"]) for t in trajectories} == {("tea", 0), ("tea", 1)}
    assert {t["cue"] for t in trajectories} == {"implied"}
    assert all(t["judgements"][0]["preference"]["method"] == "scripted" for t in trajectories)
    assert {score.rubric for scores, _, _ in kept.values() for score in scores} == {"sycophancy"}
    agents = {call.model for _, calls, _ in kept.values() for call in calls if call.role == "agent"}
    assert agents == {"inspect:mockllm/model"}
    influence("export", "runs/back", "--to", "inspect", "--out", place / "again.eval")
    again = read_eval_log(str(place / "again.eval"))
    told = {(s.id, s.epoch): ([m.text for m in s.messages], s.scores["preference"].value) for s in log.samples}
    assert {
        (s.id, s.epoch): ([m.text for m in s.messages], s.scores["preference"].value) for s in again.samples
    } == told


def test_roles_without_a_model_of_ours_are_inspects_model_roles_or_the_evaluated_model(run, tiny_folder, answer):
    def judge(messages, tools, choice, config):
        return answer("9" if "rate" in messages[-1].text else "0")

    def anyone(messages, tools, choice, config):
        return answer("leave" if "go on, come back" in messages[-1].text else "I am here.")

    log = run(
        environment_task(
            str(tiny_folder), scenario="tea", initial_state="person-1", turns=2, preference_model=None, veto=False
        ),
        get_model("mockllm/model", custom_outputs=anyone),
        model_roles={"preference": get_model("mockllm/judge", custom_outputs=judge)},
    )
    (sample,) = log.samples
    store = sample.store["influence"]
    assert {c["role"]: c["model"] for c in store["calls"]}["preference"] == "inspect:mockllm/judge"
    assert {c["role"]: c["model"] for c in store["calls"]}["transition"] == "inspect:mockllm/model"
    assert sample.scores["preference"].value == 9.0
    assert store["end"]["reason"] == "terminal_state"
    assert "veto" not in sample.scores


def test_an_agent_that_fails_is_an_error_of_its_sample_and_a_failed_conversation(
    run, influence, contents, place, tiny_folder, answer
):
    def talk(messages, tools, choice, config):
        return answer("", stop="content_filter") if "coffee" in messages[0].text else answer("Well.")

    log = run(
        environment_task(str(tiny_folder), turns=1, **OTHERS),
        get_model("mockllm/model", custom_outputs=talk),
        fail_on_error=False,
    )
    failed = [sample for sample in log.samples if sample.error]
    assert 0 < len(failed) < len(log.samples)
    assert all("refused" in sample.error.message for sample in failed)
    influence("import", log.location, "--out", "runs/back")
    trajectories, _ = contents(place / "runs" / "back")
    assert {t["failure"] for t in trajectories if t["status"] == "failed"} == {"refused"}
    assert len(trajectories) == len(log.samples)


def test_a_limit_of_inspects_ends_the_sample_as_a_limit(run, parrot, tiny_folder):
    log = run(
        environment_task(str(tiny_folder), scenario="tea", initial_state="person-1", **OTHERS), parrot, token_limit=30
    )
    (sample,) = log.samples
    assert sample.limit.type == "token"
    assert sample.error is None


def test_rubrics_judge_the_conversations_of_any_task(run, parrot):
    task = Task(
        dataset=[Sample(input="Am I right?", id="one")],
        solver=generate(),
        scorer=rubrics("sycophancy", judge_model=SCRIPTED),
    )
    (sample,) = run(task, parrot).samples
    (score,) = sample.scores.values()
    assert 1.0 <= score.value["sycophancy"] <= 10.0


def test_judges_without_a_usable_answer_give_no_score(run, tiny_folder, answer):
    model = get_model("mockllm/model", custom_outputs=lambda *given: answer("I could not say."))
    log = run(
        environment_task(
            str(tiny_folder), scenario="tea", initial_state="person-1", turns=1, **OTHERS | {"preference_model": None}
        ),
        model,
    )
    (sample,) = log.samples
    assert sample.error is not None
    assert "unusable" in sample.error.message


def test_mistakes_are_told_when_the_task_is_made(tiny_folder):
    with pytest.raises(UnknownNameError, match="therapy"):
        environment_task("terapy")
    with pytest.raises(UnknownNameError):
        environment_task(str(tiny_folder), scenario="tee")
    with pytest.raises(UnknownNameError, match="rubric"):
        environment_task(str(tiny_folder), rubrics="no-such-rubric")


@pytest.mark.slow
def test_every_environment_can_be_evaluated_from_inspects_command_line(place, repository):
    shipped = {folder.parent.name for folder in (repository / "environments").glob("*/environment.yaml")}
    code = "import json; from inspect_ai._util.registry import registry_find, registry_info, ensure_entry_points;"
    code += "ensure_entry_points(); found = registry_find(lambda i: i.type == 'task');"
    code += "print(json.dumps([registry_info(t).name for t in found]))"
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=place).stdout
    assert {f"influence_inspect/{name}" for name in (*shipped, "environment")} <= set(json.loads(listed))
    roles = [part for role in OTHERS for part in ("-T", f"{role}={SCRIPTED}")]
    env = {**os.environ, "INSPECT_DISPLAY": "plain"}

    def run(task, *more):
        command = [Path(sys.executable).with_name("inspect"), "eval", task, "--model", f"influence/{SCRIPTED}"]
        command += ["--limit", "3", "--log-dir", str(place / "logs"), *roles, *more]
        subprocess.run(command, check=True, capture_output=True, cwd=place, env=env)

    run("influence_inspect/booking", "-T", "turns=2", "-T", "population=gameable")
    tiny = repository / "tests" / "fixtures" / "environments" / "tiny"
    run("influence_inspect/environment", "-T", f"environment={tiny}")
    logs = {log.eval.task: log for log in map(read_eval_log, map(str, (place / "logs").iterdir()))}
    assert set(logs) == {"booking", "tiny"}
    assert all(log.status == "success" and len(log.samples) == 3 for log in logs.values())
    assert {s.metadata["population"] for s in logs["booking"].samples} == {"gameable"}
    assert any(message.role == "tool" for s in logs["booking"].samples for message in s.messages)
    log = logs["tiny"].location
    command = [Path(sys.executable).with_name("inspect"), "score", log, "--scorer", "influence_inspect/rubrics"]
    command += ["-S", "names=sycophancy", "-S", f"judge_model={SCRIPTED}", "--action", "append", "--overwrite"]
    subprocess.run(command, check=True, capture_output=True, cwd=place, env=env)
    scored = read_eval_log(log)
    assert all(1.0 <= s.scores["rubrics"].value["sycophancy"] <= 10.0 for s in scored.samples)
    assert all(s.scores["preference"].value is not None for s in scored.samples)
