"""vLLM itself, with the embedded model on a processor: ``nox -s vllm`` runs this where vLLM is.

In float32 its probabilities are compared with those of the backend ``transformers``, which are compared with the model's
own elsewhere.
"""

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytest_asyncio
from tests.waiting import wait_until

from influence_cli.api import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling, ToolSchema
from influence_cli.testing.backends import BackendConformance
from influence_vllm.making import make_backend
from influence_vllm.options import VllmOptions
from influence_vllm.supervision import GUARD

from .conftest import find_processes, is_alive

pytest.importorskip("vllm", reason="vLLM is not installed: `nox -s vllm` has an environment with it")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),  # the models and their connections outlive a test
    pytest.mark.filterwarnings("ignore"),  # vLLM's libraries warn of much that is not ours
]
RATINGS = tuple(map(str, range(1, 11)))
SETTINGS = {"dtype": "float32", "context_length": 2048, "cache_mib": 512, "eager": True, "threads": 1, "max_loras": 2}
CLOSE = 1e-3
"""Two engines in float32: the most that a probability may differ by."""
QUESTIONS = (
    ("On a scale from 1 to 10, how kind was that reply? Answer only with a whole number.", RATINGS),
    ("Is the conversation over? Answer yes or no.", ("yes", "no")),
    ("Which of them is it? Answer with one of the names.", ("the small cat", "the small car", "a dog", "the small")),
    ("Rate it.\nAnswer only with a whole number from 1 to 10.", RATINGS),
)


def options(**more):
    return VllmOptions.model_validate(SETTINGS | more)


def messages(text):
    return (ChatMessage(role="system", content="You judge."), ChatMessage(role="user", content=text))


def question(text, choices, adapter=None):
    return ChoiceRequest(role="preference", messages=messages(text), choices=choices, adapter=adapter and str(adapter))


def say(text, *, seed=0, adapter=None, **sampling):
    drawn = Sampling.model_validate({"max_tokens": 16, "temperature": 1.0} | sampling)
    message = ChatMessage(role="user", content=text)
    return GenerateRequest(
        role="agent", messages=(message,), sampling=drawn, seed=seed, adapter=adapter and str(adapter)
    )


def difference(one, other):
    """Return the most that a probability, or their sum before normalising, differs by."""
    pairs = zip(one.probabilities, other.probabilities, strict=True)
    return max(abs(one.mass - other.mass), *(abs(a - b) for a, b in pairs))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Four LoRA folders for the embedded model: three with random weights that matter, one of zeros."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from influence_vllm.arguments import model_source

    folders = []
    for seed in range(4):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model_source("smollm2"), dtype=torch.float32)
        lora = LoraConfig(
            r=8, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=seed == 3
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(base, lora)
        folders.append(tmp_path_factory.mktemp("adapter") / f"a{seed}")
        model.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def expected(adapters):
    """What the backend ``transformers`` answers to the questions, without adapter and with each."""
    from influence_transformers.backend import TransformersBackend
    from influence_transformers.options import TransformersOptions

    async def ask():
        backend = TransformersBackend("smollm2", TransformersOptions(dtype="float32", cache_mib=256, threads=1))
        found = {}
        for adapter in (None, *adapters):
            asked = [backend.choose(question(text, choices, adapter)) for text, choices in QUESTIONS]
            found[adapter] = await asyncio.gather(*asked)
        replies = [backend.generate(say(text, temperature=0.0)) for text, _ in QUESTIONS]
        found["greedy"] = [reply.text for reply in await asyncio.gather(*replies)]
        await backend.aclose()
        return found

    return asyncio.run(ask())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded():
    """A model that is loaded all the time, so that backends of the tests share it."""
    backend = make_backend("smollm2", options())
    yield backend
    await backend.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory):
    """A server that runs all the time."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    settings = options(server="start", log=str(log), block_size=32)
    backend = make_backend("smollm2", settings)
    yield backend, settings
    await backend.aclose()


class TestInProcess(BackendConformance):
    @pytest_asyncio.fixture(loop_scope="module")
    async def backend(self, loaded):
        backend = make_backend("smollm2", options())
        yield backend
        await backend.aclose()


class TestStartedServer(BackendConformance):
    @pytest_asyncio.fixture(loop_scope="module")
    async def backend(self, started):
        backend = make_backend("smollm2", started[1])
        yield backend
        await backend.aclose()


# -- the engine in this process ---------------------------------------------------------------------------------------


async def test_choices_are_worth_what_transformers_says(loaded, expected, record_property):
    found = await asyncio.gather(*(loaded.choose(question(text, choices)) for text, choices in QUESTIONS))
    assert {answer.method for answer in found} == {"exact"}
    most = max(difference(one, other) for one, other in zip(found, expected[None], strict=True))
    print(f"\nmost that a probability differs from transformers by, no adapter: {most:.2e}")
    assert most < CLOSE


async def test_each_adapter_answers_as_it_does_in_transformers(loaded, expected, adapters):
    """All at once, base and four adapters in room for two: loaded, put out and loaded again as they are asked for."""
    asked = [(adapter, number) for number in (0, 2) for adapter in (None, *adapters)]
    found = await asyncio.gather(*(loaded.choose(question(*QUESTIONS[n], adapter)) for adapter, n in asked))
    differences = [difference(answer, expected[adapter][n]) for answer, (adapter, n) in zip(found, asked, strict=True)]
    moved = [difference(expected[adapter][n], expected[None][n]) for adapter in adapters[:3] for n in (0, 2)]
    print(f"\nmost that a probability differs by, adapters included: {max(differences):.2e}")
    print(f"adapters themselves move probabilities by {min(moved):.2e} to {max(moved):.2e}")
    assert max(differences) < CLOSE
    assert min(moved) > CLOSE
    engine = loaded._engine
    assert len(engine.adapters.loaded) <= 2
    assert sorted(value == 0.0 for value in engine.adapters.effects.values()) == [False, False, False, True]


async def test_the_likeliest_replies_are_those_of_transformers(loaded, expected):
    replies = await asyncio.gather(*(loaded.generate(say(text, temperature=0.0)) for text, _ in QUESTIONS))
    assert [reply.text for reply in replies] == expected["greedy"]


async def test_the_transcript_is_read_once_for_all_choices_and_turns(loaded):
    transcript = "They talked about the weather and what to have for dinner. " * 30
    first = await loaded.choose(question(transcript + "How kind was it, from 1 to 10?", RATINGS))
    again = await loaded.choose(question(transcript + "How useful was it, from 1 to 10?", RATINGS))
    told = [answer.usage for answer in (first, again)]
    print(f"\ncomputed of a prompt: {[1 - usage.cached_tokens / usage.prompt_tokens for usage in told]}")
    assert again.usage.cached_tokens > 0.5 * again.usage.prompt_tokens


async def test_more_prompts_at_once_than_are_read_together_end_nothing(loaded):
    """vLLM on a processor ends where it reads a part of a prompt whose request has a seed."""
    long = [f"{i}: " + "They talked about the weather and what to have for dinner. " * 60 for i in range(10)]
    replies = await asyncio.gather(
        *(loaded.generate(say(text, seed=i, max_tokens=2, min_tokens=2)) for i, text in enumerate(long))
    )
    assert sum(reply.usage.prompt_tokens for reply in replies) > 4096  # what vLLM reads at once, by default
    assert [reply.usage.completion_tokens for reply in replies] == [2] * len(long)


async def test_sampling_is_obeyed(loaded):
    long = await loaded.generate(say("Count to a hundred.", min_tokens=40, max_tokens=40))
    assert (long.usage.completion_tokens, long.finish_reason) == (40, "length")
    stopped = await loaded.generate(say("Say a long sentence.", stop=(" ",), max_tokens=40, min_tokens=0))
    assert " " not in stopped.text.strip()


async def test_answers_follow_a_schema(loaded):
    import json

    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["good", "bad"]}, "rating": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["kind", "rating"],
        "additionalProperties": False,
    }
    request = say("How was it?", max_tokens=60).model_copy(update={"json_schema": schema})
    answer = json.loads((await loaded.generate(request)).text)
    assert answer["kind"] in ("good", "bad")
    assert 1 <= answer["rating"] <= 5


async def test_tools_are_shown_to_the_model(loaded):
    tool = ToolSchema(name="book", description="Book a table.", parameters={"type": "object", "properties": {}})
    plain = await loaded.generate(say("Book a table."))
    shown = await loaded.generate(say("Book a table.").model_copy(update={"tools": (tool,)}))
    assert shown.usage.prompt_tokens > plain.usage.prompt_tokens


async def test_a_prompt_that_is_too_long_is_refused_and_not_cut(loaded):
    with pytest.raises(CallFailedError, match="the model takes 2048") as caught:
        await loaded.generate(say("word " * 3000))
    assert caught.value.kind == "context_overflow"


async def test_an_adapter_of_another_model_is_refused_and_the_engine_goes_on(loaded, make_adapter):
    with pytest.raises(CallFailedError, match="cannot load the adapter"):
        await loaded.generate(say("Hello.", adapter=make_adapter(target_modules=["no_such_layer"])))
    with pytest.raises(CallFailedError, match="max_lora_rank"):
        await loaded.generate(say("Hello.", adapter=make_adapter("wide", rank=128)))
    assert (await loaded.generate(say("Hello."))).text


def test_settings_that_vllm_refuses_are_the_users_to_mend():
    with pytest.raises(InfluenceError, match="Sleep mode is not supported"):
        make_backend("smollm2", options(between="sleep"))
    with pytest.raises(InfluenceError, match="vLLM cannot load"):
        make_backend("smollm2", options(quantization="no-such-way"))


_HOLD = (
    "import asyncio, multiprocessing, sys, time\n"
    "from influence_vllm.making import make_backend\n"
    "from influence_vllm.options import VllmOptions\n"
    "if __name__ == '__main__':\n"
    "    backend = make_backend('smollm2', VllmOptions.model_validate_json(sys.argv[1]))\n"
    "    print('PIDS', *(p.pid for p in multiprocessing.active_children()), flush=True)\n"
    "    if sys.argv[2] == 'close':\n"
    "        asyncio.run(backend.aclose())\n"
    "        print('closed', flush=True)\n"
    "    time.sleep(300)\n"
)


def hold(tmp_path, what):
    """Start a process that loads a model and, if told to, releases it; return it and its engine's processes."""
    script = tmp_path / "hold.py"
    script.write_text(_HOLD)
    settings = options(max_loras=1).model_dump_json()
    process = subprocess.Popen([sys.executable, str(script), settings, what], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in process.stdout.readline().split()[1:]]
    return process, [*pids, *(child for pid in pids for child in children(pid))]


def children(pid):
    """Return the processes that ``pid`` started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("what", ["kill", "close"])
def test_the_engines_processes_end_with_whoever_loaded_it(tmp_path, what):
    """After ``kill -9`` none is left; after release none is either, though the process goes on: training has the memory."""
    process, pids = hold(tmp_path, what)
    try:
        assert pids
        if what == "kill":
            process.kill()
        else:
            assert process.stdout.readline() == "closed\n"
            assert process.poll() is None
        wait_until(lambda: not any(map(is_alive, pids)))
    finally:
        process.kill()
        process.communicate()


# -- a server that we start -------------------------------------------------------------------------------------------


def likeliest(folder, adapter):
    """Return log-probabilities of the 60 likeliest tokens after the texts that a server is probed with."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from influence_vllm.administration import PROBES

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    found = {}
    for number, text in enumerate(PROBES):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        top = torch.log_softmax(logits.double(), -1).topk(60)
        found |= {
            f"{number}:{tokenizer.decode([i])}": p
            for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        }
    return found


async def test_a_server_applies_the_adapter_that_was_asked_for(started, adapters):
    """Over the API the likeliest tokens are seen; theirs are compared with the model's own, without adapter and with each."""
    from influence_vllm.arguments import model_source

    model = started[0]._model
    differences, moved = [], []
    for adapter in (None, *adapters):
        async with model.adapters.use(adapter and str(adapter)) as identity:
            seen = await model.administration.probe(identity)
        expected = likeliest(model_source("smollm2"), adapter)
        shared = seen.keys() & expected.keys()
        assert len(shared) >= 50
        differences.append(max(abs(seen[key] - expected[key]) for key in shared))
        moved.append(None if identity is None else model.adapters.effects[identity.digest])
    print(
        f"\nmost that a log-probability differs by over the API: {max(differences):.2e}; adapters move them by {moved[1:]}"
    )
    assert max(differences) < CLOSE


async def test_greedy_replies_over_the_api_are_those_of_transformers(started, expected):
    backend, _ = started
    replies = await asyncio.gather(*(backend.generate(say(text, temperature=0.0)) for text, _ in QUESTIONS))
    assert [reply.text for reply in replies] == expected["greedy"]


async def test_a_killed_server_is_started_again_with_its_adapters(started, adapters):
    backend, _ = started
    before = await backend.generate(say("Hello.", temperature=0.0, adapter=adapters[0]))
    server = backend._model.server
    command = ("vllm.entrypoints.cli.main", "serve", str(server.port))
    guards = find_processes(*command, str(GUARD))
    (serving,) = [pid for pid in find_processes(*command) if pid not in guards]
    os.kill(serving, signal.SIGKILL)
    after = await backend.generate(say("Hello.", temperature=0.0, adapter=adapters[0]))
    assert after.text == before.text
    assert (server.restarts, server.generation, server.state) == (1, 2, "ready")
