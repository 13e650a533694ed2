"""A running server: the conformance suite of backends, and adapters over its API."""

import asyncio
import json
import subprocess
import sys

import pytest

from influence_cli.api import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest
from influence_cli.testing.backends import BackendConformance
from influence_vllm.adapters import identify

RATE = (ChatMessage(role="user", content="How kind was that? Answer only with a whole number from 1 to 10."),)
RATINGS = tuple(map(str, range(1, 11)))


def say(adapter=None, text="Hello there."):
    message = ChatMessage(role="user", content=text)
    return GenerateRequest(role="agent", messages=(message,), adapter=str(adapter) if adapter else None)


class TestServedVllmBackend(BackendConformance):
    @pytest.fixture
    def backend(self, make_served):
        return make_served()


async def test_an_adapter_is_loaded_once_under_the_name_of_its_weights(make_served, server, make_adapter):
    backend = make_served()
    folder = make_adapter()
    answers = await asyncio.gather(*(backend.generate(say(folder)) for _ in range(6)), backend.generate(say()))
    assert server.adapters()["loads"] == [identify(str(folder)).name]
    assert len({answer.text for answer in answers[:6]}) == 1
    assert answers[0].text != answers[6].text
    question = ChoiceRequest(role="preference", messages=RATE, choices=RATINGS, adapter=str(folder))
    assert (await backend.choose(question)).method == "logprobs"
    await backend.aclose()
    assert server.adapters()["unloads"] == [identify(str(folder)).name]


async def test_no_more_adapters_are_on_the_server_than_there_is_room_for(make_served, server, make_adapter):
    backend = make_served(max_loras=1)
    first, second = make_adapter("a", value=1.0), make_adapter("b", value=2.0)
    for folder in (first, second, first):
        await backend.generate(say(folder))
    names = [identify(str(folder)).name for folder in (first, second)]
    assert server.adapters() == {"loads": [*names, names[0]], "unloads": names, "asleep": False}


async def test_an_adapter_that_the_server_does_not_apply_is_an_error(make_served, server, make_adapter):
    server.configure(inert_adapters=True)
    backend = make_served()
    with pytest.raises(CallFailedError, match="changes no answer"):
        await backend.generate(say(make_adapter()))
    assert (await backend.generate(say(make_adapter("zeros", value=0.0)))).text


async def test_backends_of_one_model_share_its_adapters(make_served, server, make_adapter):
    one, other = make_served(), make_served()
    await one.generate(say(make_adapter()))
    await one.aclose()
    await other.generate(say(make_adapter()))
    assert len(server.adapters()["loads"]) == 1
    assert server.adapters()["unloads"] == []


async def test_what_the_server_says_of_itself_is_known(make_served, server):
    server.configure(context_length=900)
    capabilities = make_served().capabilities
    assert (capabilities.context_length, capabilities.adapters, capabilities.prefix_cache) == (900, True, True)


async def test_what_was_adapted_to_the_server_is_told_after_the_run(make_served, server):
    server.configure(refuses=("seed",))
    backend = make_served()
    assert (await backend.generate(say())).text
    await backend.aclose()
    assert [note for note in backend.notes if "'seed'" in note]


async def test_adapters_can_be_switched_off(make_served, server, make_adapter):
    backend = make_served(adapters=False)
    with pytest.raises(InfluenceError, match="switched off"):
        await backend.generate(say(make_adapter()))
    assert server.adapters()["loads"] == []


def test_a_model_that_is_not_served_is_said_with_those_that_are(make_served):
    with pytest.raises(InfluenceError, match=r"does not serve 'other'.*It serves test-model"):
        make_served("other")


def test_a_key_that_is_needed_is_named(make_served, server, monkeypatch):
    server.configure(api_key="right")
    monkeypatch.setenv("VLLM_API_KEY", "wrong")
    with pytest.raises(InfluenceError, match="VLLM_API_KEY"):
        make_served()


async def test_the_key_is_taken_from_its_variable(make_served, server, monkeypatch):
    server.configure(api_key="right")
    monkeypatch.setenv("VLLM_API_KEY", "right")
    assert (await make_served().generate(say())).text


def test_a_server_that_is_not_there_is_said(make_served, unused_tcp_port):
    with pytest.raises(InfluenceError, match=r"cannot be reached.*Is the server running"):
        make_served(server=f"http://127.0.0.1:{unused_tcp_port}")


async def test_between_uses_the_server_sleeps_and_wakes_without_adapters(make_served, server, make_adapter):
    folder = make_adapter()
    first = make_served(between="sleep")
    said = (await first.generate(say(folder))).text
    await first.aclose()
    assert server.adapters()["asleep"]
    assert len(server.adapters()["unloads"]) == 1
    again = make_served(between="sleep")
    assert not server.adapters()["asleep"]
    assert (await again.generate(say(folder))).text == said
    assert len(server.adapters()["loads"]) == 2
    await again.aclose()


def test_a_whole_run_is_had_with_a_server(server, tiny_folder, tmp_path):
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(tiny_folder), "--n", "2", "--turns", "1"]
    command += ["--model", "vllm:test-model", "-o", f"server={server.root}", "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    conversations = json.loads(done.stdout)["conversations"]
    assert (conversations["total"], conversations["failed"]) == (2, 0)
    assert server.stats()["requests"] > 0
