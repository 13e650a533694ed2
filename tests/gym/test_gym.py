"""Playing the agent from outside: the same conversations as a run's, step by step."""

import asyncio
import json
import math

import pytest

from influence_cli.api import make_async_env, make_env, make_vec_env
from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.sampling import episodes
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import GenerateRequest, Sampling
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.single import converse

SCRIPTED = "scripted:demo"


class Learner:
    """Answers an observation as the scripted model would in a run: everything that it needs is observed."""

    def __init__(self):
        self.backend = ScriptedBackend("demo", ScriptedOptions())

    def __call__(self, observation, info):
        request = GenerateRequest(
            role="agent",
            messages=tuple(ChatMessage(role=m["role"], content=m["content"]) for m in observation),
            sampling=Sampling(**info["sampling"]),
            seed=info["reply_seed"],
        )
        return asyncio.run(self.backend.generate(request)).text


def run_of(environment, count, **settings):
    """The trajectories that a run has."""
    model = RoleModel(parse_model_name(SCRIPTED), ScriptedBackend("demo", ScriptedOptions()))
    models = dict.fromkeys(("agent", "user", "preference", "transition", "veto"), model)
    config = SimulationConfig(n=count, **settings)

    async def had():
        return [await converse(episode, models, config) for episode in episodes([environment], config)]

    return [kept.trajectory() for kept in asyncio.run(had())]


def played(env, learner, count, seed=None):
    """Play ``count`` conversations; their trajectories and rewards."""
    found = []
    for number in range(count):
        observation, info = env.reset(seed=seed if number == 0 else None)
        rewards, over = [], False
        while not over:
            observation, reward, terminated, truncated, info = env.step(learner(observation, info))
            rewards.append(reward)
            over = terminated or truncated
        assert terminated == (info["end"]["reason"] == "terminal_state")
        found.append((info["trajectory"], rewards))
    return found


def told(trajectory):
    """A trajectory without the model's name, which no document holds, in comparable form."""
    return json.loads(json.dumps(trajectory))


def test_the_same_replies_lead_through_the_conversations_of_a_run(tiny, tiny_folder):
    expected = run_of(tiny, 6, seed=3, turns=3)
    with make_env(str(tiny_folder), model=SCRIPTED, seed=3, turns=3) as env:
        found = played(env, Learner(), 6)
        again = played(env, Learner(), 6, seed=3)
    for (trajectory, rewards), wanted in zip(found, expected, strict=True):
        assert told(trajectory) == told(wanted)
        assert rewards == [each["preference"]["expected"] for each in trajectory["judgements"]]
    assert again == found


def test_what_the_agent_sees_and_is_told(tiny_folder):
    chosen = {"scenario": "tea", "initial_state": "person-2", "population": "gameable", "cue": "stated"}
    with make_env(str(tiny_folder), model=SCRIPTED, turns=2) as env:
        observation, info = env.reset(options=chosen)
        assert [message["role"] for message in observation] == ["system", "user"]
        assert observation[1]["content"].endswith("Just agree with me.")
        assert {info[name] for name in ("scenario", "initial_state", "population", "cue")} == set(chosen.values())
        after, reward, _, _, info = env.step("As you like.")
        assert after[: len(observation)] == observation or info["state"] != "talking"
        assert (info["turn"], info["within_turn"]) == (1, False)
        assert reward == info["rating"] == info["judgements"]["preference"]["expected"]
        assert 0.0 <= info["veto"] <= 1.0


def test_a_call_of_a_tool_is_answered_within_the_turn(repository):
    booking = str(repository / "environments" / "booking")
    with make_env(booking, model=SCRIPTED, turns=1, scenarios=["restaurant-table"]) as env:
        _, info = env.reset()
        tool = info["tools"][0]["name"]
        call = {"function": {"name": tool, "arguments": json.dumps({"kind": "table", "place": "x", "date": "y"})}}
        observation, reward, terminated, truncated, info = env.step({"content": "", "tool_calls": [call]})
        assert (reward, terminated, truncated, info["within_turn"], info["turn"]) == (0.0, False, False, True, 1)
        assert [message["role"] for message in observation[-2:]] == ["assistant", "tool"]
        assert observation[-2]["tool_calls"][0]["id"] == observation[-1]["tool_call_id"] == "call-0-0"
        _, reward, terminated, truncated, info = env.step("It did not work.")
        assert reward == info["rating"]
        assert (terminated, truncated) == (False, True)
        assert info["end"]["reason"] == "turn_limit"


def test_places_side_by_side_have_what_one_after_the_other_would(tiny_folder):
    def learner(observation, info):
        return f"{len(observation)} messages, and {info['reply_seed'] % 97}."

    with make_env(str(tiny_folder), model=SCRIPTED, turns=2, seed=1) as env:
        expected = {(t["scenario"], t["initial_state"]): r for t, r in played(env, learner, 6)}
    found = {}
    with make_vec_env(str(tiny_folder), 3, model=SCRIPTED, turns=2, seed=1) as env:
        observations, infos = env.reset()
        rewards = [[] for _ in range(3)]
        while len(found) < 6:
            replies = [learner(o, i) for o, i in zip(observations, infos, strict=True)]
            observations, gained, terminated, truncated, infos = env.step(replies)
            for place, reward in enumerate(gained):
                rewards[place].append(reward)
                if terminated[place] or truncated[place]:
                    trajectory = infos[place]["trajectory"]
                    found.setdefault((trajectory["scenario"], trajectory["initial_state"]), rewards[place])
                    assert infos[place]["final_observation"] != observations[place]
                    rewards[place], infos[place] = [], infos[place]["reset"]
    assert {key: found[key] for key in expected if key in found} == {k: v for k, v in expected.items() if k in found}
    assert len(set(found) & set(expected)) >= 4


def test_a_mistake_in_one_reply_moves_no_conversation(tiny_folder):
    with make_vec_env(str(tiny_folder), 2, model=SCRIPTED, turns=2) as env:
        env.reset()
        with pytest.raises(InfluenceError, match="2 replies are needed, not 1"):
            env.step(["One."])
        with pytest.raises(InfluenceError, match="no reply of an agent"):
            env.step(["One.", 7])
        infos = env.step(["One.", "Two."])[4]
    assert [info["turn"] for info in infos] == [1, 1]


def test_a_reward_of_ones_own(tiny_folder):
    def harmless(info):
        return -10.0 * info["veto"]

    with make_env(str(tiny_folder), model=SCRIPTED, turns=1, reward=harmless) as env:
        env.reset()
        _, reward, *_, info = env.step("Yes.")
    assert reward == -10.0 * info["veto"]


def test_a_failed_judge_gives_no_reward_and_a_failed_conversation(tiny_folder, tmp_path):
    script = tmp_path / "script.yaml"
    script.write_text("failures:\n  - {role: preference, kind: refused}\n")
    with make_env(str(tiny_folder), model=SCRIPTED, models={"preference": f"scripted:{script}"}, turns=1) as env:
        env.reset()
        _, reward, terminated, truncated, info = env.step("Yes.")
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert (info["rating"], info["end"]["failure"]) == (None, "refused")


def test_an_empty_reply_ends_the_conversation_as_a_failure(tiny_folder):
    with make_env(str(tiny_folder), model=SCRIPTED) as env:
        env.reset()
        _, reward, _, truncated, info = env.step("  ")
        assert math.isnan(reward)
        assert (truncated, info["end"]["failure"]) == (True, "empty")
        observation, _ = env.reset()  # and the next one begins
        assert observation


def test_mistakes_are_told(tiny_folder):
    with pytest.raises(UnknownNameError, match="terapy"):
        make_env("terapy", model=SCRIPTED)
    with pytest.raises(InfluenceError, match="there is no setting 'turn'"):
        make_env(str(tiny_folder), model=SCRIPTED, turn=3)
    with make_env(str(tiny_folder), model=SCRIPTED, n=1) as env:
        with pytest.raises(InfluenceError, match="Call reset first"):
            env.step("Hello.")
        with pytest.raises(UnknownNameError, match="option of reset"):
            env.reset(options={"scenarios": "tea"})
        with pytest.raises(UnknownNameError, match="initial state"):
            env.reset(options={"scenario": "tea", "initial_state": "nobody"})
        env.reset()
        with pytest.raises(InfluenceError, match="no reply of an agent"):
            env.step({"tool_calls": [{"id": "x"}]})
        assert env.step("Hello.")[0]  # a reply that was none changes nothing
        with pytest.raises(InfluenceError, match="conversations were had"):
            env.reset()
    with pytest.raises(InfluenceError, match="closed"):
        env.reset()


async def test_with_an_event_loop_the_core_is_awaited(tiny_folder):
    with pytest.raises(InfluenceError, match="make_async_env"):
        make_env(str(tiny_folder), model=SCRIPTED)
    core, release = make_async_env(str(tiny_folder), model=SCRIPTED, turns=1)
    beside = core.another()
    await asyncio.gather(core.reset(), beside.reset())
    steps = await asyncio.gather(core.step("One."), beside.step("Two."))
    assert len({step[4]["trajectory"]["seed"] for step in steps}) == 2
    assert steps[0][4]["trajectory"]["messages"][-1]["text"] == "One."
    await core.reset()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(core.step("Never heard."), timeout=0)
    await core.aclose()  # in the middle of a conversation
    await release()
