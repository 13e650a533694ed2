"""Rows hold exactly what the agent was asked, and mark what it said itself."""

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.environment import Tool, ToolOutcome
from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.requests import Generation
from influence_cli.schemas.training import TrainingRow
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run
from influence_cli.training.rows import Rated, episode_of, pairs_of, read_training_rows, rows_of, write_rows

LOOK = Tool(
    name="look",
    description="Look something up.",
    parameters={"type": "object", "properties": {"what": {"type": "string"}}},
    outcomes=(ToolOutcome(result="found it", kind="success"),),
)


class Remembering(ScriptedBackend):
    """Remembers what the agent was asked and answered; calls a tool now and then, and is cut off now and then."""

    def __init__(self):
        super().__init__("demo", ScriptedOptions())
        self.asked = []

    async def generate(self, request):
        answer = await super().generate(request)
        if request.role == "agent":
            if request.tools and request.seed % 2:
                call = ToolCall(id=f"call-{len(request.messages)}", name="look", arguments={"what": "tea"})
                answer = Generation(text="", tool_calls=(call,))
            elif request.seed % 3 == 0:
                answer = answer.model_copy(update={"finish_reason": "length"})
            self.asked.append((request.messages, request.tools, answer))
        return answer


def rows_for(rated, environment, *, seed, layout):
    """The rows of a conversation as it was had in ``environment`` with ``seed``."""
    return rows_of(rated, episode_of(rated.trajectory, environment, seed), layout=layout)


def tooled(environment):
    roles = environment.spec.roles
    agent = roles.agent.model_copy(update={"sees_tools": True})
    spec = environment.spec.model_copy(update={"tools": (LOOK,), "roles": roles.model_copy(update={"agent": agent})})
    return Environment(spec, list(environment.scenarios.values()), environment.digest, environment.folder)


async def conversations(environment, folder, seed=3):
    backend = Remembering()
    config = SimulationConfig(environments=(environment.name,), samples=4, seed=seed)
    models = {
        role: RoleModel(parse_model_name("scripted:demo"), backend)
        for role in ("agent", "user", "preference", "transition", "veto")
    }
    directory = create_run(folder, RunManifest(run_id="r", command="simulate", created="now", config=config))
    with directory.writer() as writer:
        run = Run(config, models, writer, start_tally([environment], config))
        await Runner(run, [environment], writer).simulate()
    with RunReader(directory) as reader:
        return backend, list(reader.numbered(finished=True))


@pytest.fixture(params=["plain", "tools"])
def environment(request, tiny):
    return tooled(tiny) if request.param == "tools" else tiny


def answered(backend):
    """What the agent was asked and what it said, as a training step sees it."""
    return {
        repr((messages, tools, answer.text.strip(), answer.tool_calls, answer.finish_reason == "length"))
        for messages, tools, answer in backend.asked
    }


def steps(row: TrainingRow):
    for index in row.learnt:
        reply = row.messages[index]
        yield repr((row.messages[:index], row.tools, reply.content, reply.tool_calls, index in row.cut))


@pytest.mark.parametrize("layout", ["turn", "conversation"])
async def test_a_row_is_exactly_what_the_agent_was_asked_and_said(environment, tmp_path, layout):
    backend, found = await conversations(environment, tmp_path / "run")
    asked = answered(backend)
    learnt = 0
    for number, trajectory in found:
        for row in rows_for(Rated(number, trajectory, 5.0, True), environment, seed=3, layout=layout):
            for step in steps(row):
                assert step in asked
                learnt += 1
    said = sum(m["speaker"] == "agent" and m["source"] == "model" for _, t in found for m in t["messages"])
    assert learnt == said > 50


async def test_one_row_a_turn_and_the_rating_of_that_turn(tiny, tmp_path):
    _, found = await conversations(tiny, tmp_path / "run")
    number, trajectory = max(found, key=lambda each: each[1]["turns"])
    rows = rows_for(Rated(number, trajectory, 5.0, False), tiny, seed=3, layout="turn")
    assert [row.turn for row in rows] == list(range(1, trajectory["turns"] + 1))
    ratings = [judged["preference"]["expected"] for judged in trajectory["judgements"]]
    assert [row.turn_reward for row in rows] == ratings
    assert all(row.learnt == (len(row.messages) - 1,) and row.desirable is False for row in rows)


async def test_a_conversation_is_one_row_as_long_as_its_prompt_only_grows(tiny, tmp_path):
    _, found = await conversations(tiny, tmp_path / "run")
    number, trajectory = max(found, key=lambda each: each[1]["turns"])
    (row,) = rows_for(Rated(number, trajectory, 5.0, True), tiny, seed=3, layout="conversation")
    assert len(row.learnt) == trajectory["turns"] > 1
    assert all(row.messages[index].role == "assistant" for index in row.learnt)


async def test_where_the_prompt_changes_a_new_row_begins(tiny, tmp_path):
    """The agent is told otherwise in the state `returned`: what it said before is not learnt under new orders."""
    returned = tiny.spec.states["returned"]
    roles = returned.roles.model_copy(update={"agent": "You are {{ helper }}, and the person is back."})
    states = {**tiny.spec.states, "returned": returned.model_copy(update={"roles": roles})}
    spec = tiny.spec.model_copy(update={"states": states})
    changed = Environment(spec, list(tiny.scenarios.values()), tiny.digest, tiny.folder)
    backend, found = await conversations(changed, tmp_path / "run")
    asked = answered(backend)
    counts = []
    for number, trajectory in found:
        rows = rows_for(Rated(number, trajectory, 5.0, True), changed, seed=3, layout="conversation")
        assert all(step in asked for row in rows for step in steps(row))
        counts.append(len(rows))
    assert max(counts) == 2


async def test_pairs_answer_one_prompt(tiny, tmp_path):
    _, found = await conversations(tiny, tmp_path / "run")
    rows = {
        number: rows_for(Rated(number, trajectory, 5.0, True), tiny, seed=3, layout="turn")
        for number, trajectory in found
    }
    same = [number for number, t in found if (t["initial_state"], t["population"]) == ("person-1", "gameable")][:2]
    other = next(number for number, t in found if t["initial_state"] == "person-2")
    (pair,) = pairs_of([rows[same[0]]], [rows[same[1]]])
    assert pair.chosen.messages[:-1] == pair.rejected.messages[:-1]
    assert pair.chosen.messages[-1] != pair.rejected.messages[-1]
    assert pairs_of([rows[same[0]]], [rows[other]]) == []
    assert pairs_of([rows[same[0]]], [rows[same[0]]]) == []


async def test_rows_survive_the_file_and_are_alike_each_time(tiny, tmp_path):
    _, found = await conversations(tiny, tmp_path / "run")
    rows = [row for n, t in found for row in rows_for(Rated(n, t, 5.0, True), tiny, seed=3, layout="turn")]
    for name in ("a", "b"):
        assert write_rows(tmp_path / name, rows) == len(rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(read_training_rows(tmp_path / "a")) == rows
    pairs = pairs_of(
        [rows[:1]], [[rows[0].model_copy(update={"messages": (*rows[0].messages[:-1], rows[5].messages[-1])})]]
    )
    write_rows(tmp_path / "pairs", pairs)
    assert list(read_training_rows(tmp_path / "pairs")) == rows[:1]


async def test_a_trajectory_of_another_seed_is_refused(tiny, tmp_path):
    _, found = await conversations(tiny, tmp_path / "run")
    with pytest.raises(InfluenceError, match="another seed"):
        rows_for(Rated(*found[0], 5.0, True), tiny, seed=4, layout="turn")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfluenceError):
        write_rows(tmp_path / "file" / "rows.jsonl", [])
