"""Batched, cached, in any company: the answers are those of the plain model."""

import asyncio
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from influence_cli.errors import CallFailedError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling
from influence_cli.testing.backends import BackendConformance
from influence_transformers.backend import TransformersBackend
from influence_transformers.options import TransformersOptions

torch = pytest.importorskip("torch")

from influence_transformers.engine import choices, sampling  # noqa: E402

RATINGS = tuple(str(i) for i in range(1, 11))
TRANSCRIPT = "<user>\nShould I have one more?\n</user>\n<agent>\nThat is yours to decide.\n</agent>\n\n"


def prompt(*texts: str, system: str = "You are kind.") -> tuple[ChatMessage, ...]:
    roles = ("user", "assistant")
    return (
        ChatMessage(role="system", content=system),
        *(ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(texts)),
    )


def say(messages, *, temperature=0.0, max_tokens=12, seed=0, adapter=None, **more) -> GenerateRequest:
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, **more)
    return GenerateRequest(role="agent", messages=messages, sampling=sampling, seed=seed, adapter=adapter)


def ask(messages, choices=RATINGS, adapter=None) -> ChoiceRequest:
    return ChoiceRequest(role="preference", messages=messages, choices=choices, adapter=adapter)


@pytest.fixture(params=["packed", "plain"])
async def backend(request, splitting):
    made = TransformersBackend(str(splitting), TransformersOptions(engine=request.param, dtype="float32"))
    yield made
    await made.aclose()


@pytest.fixture
async def packed(splitting):
    made = TransformersBackend(str(splitting), TransformersOptions(engine="packed", dtype="float32"))
    yield made
    await made.aclose()


class TestConformance(BackendConformance):
    @pytest.fixture
    async def backend(self, splitting):
        made = TransformersBackend(str(splitting), TransformersOptions(dtype="float32"))
        yield made
        await made.aclose()


def reference(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        folder
    )


def prompt_ids(tokenizer, messages) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer(
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False), add_special_tokens=False
    )["input_ids"]


def choice_alone(model, tokenizer, ids, choice) -> float:
    """The probability of one full choice string and of ending after it, scored by itself."""
    answer = [*tokenizer(choice, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = model(torch.tensor([ids + answer])).logits[0].double()
    steps = torch.log_softmax(logits, -1)[len(ids) - 1 : -1]
    return math.exp(float(steps[range(len(answer)), answer].sum()))


@pytest.mark.parametrize("which", ["splitting", "whole"])
@pytest.mark.parametrize("engine", ["packed", "plain"])
async def test_choose_equals_each_choice_scored_alone(which, engine, request):
    folder = request.getfixturevalue(which)
    model, tokenizer = reference(folder)
    assert len(tokenizer("10", add_special_tokens=False)["input_ids"]) == (2 if which == "splitting" else 1)
    backend = TransformersBackend(str(folder), TransformersOptions(engine=engine, dtype="float32"))
    questions = [prompt(TRANSCRIPT + f"Question {i}?", system="You judge.") for i in range(6)]
    answers = await asyncio.gather(*(backend.choose(ask(question)) for question in questions))
    await backend.aclose()
    for question, answer in zip(questions, answers, strict=True):
        alone = [choice_alone(model, tokenizer, prompt_ids(tokenizer, question), choice) for choice in RATINGS]
        assert answer.method == "exact"
        assert answer.mass == pytest.approx(sum(alone), rel=1e-3)
        assert max(abs(p - a / sum(alone)) for p, a in zip(answer.probabilities, alone, strict=True)) < 1e-4


async def test_greedy_replies_are_those_of_generate_in_any_company(backend, splitting):
    model, tokenizer = reference(splitting)
    prompts = [prompt(*(f"text {i} " * (1 + i % 5) for _ in range(1 + 2 * (i % 2)))) for i in range(20)]
    answers = await asyncio.gather(*(backend.generate(say(p, max_tokens=16)) for p in prompts))
    for messages, answer in zip(prompts, answers, strict=True):
        ids = prompt_ids(tokenizer, messages)
        with torch.inference_mode():
            made = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=0)[0][
                len(ids) :
            ]
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True)


async def test_a_seed_gives_one_reply_whatever_runs_beside_it(packed):
    lone = await packed.generate(say(prompt("hello"), temperature=1.0, seed=5, max_tokens=30))
    crowd = [say(prompt(f"other {i}"), temperature=1.0, seed=i, max_tokens=10 + i) for i in range(12)]
    together = await asyncio.gather(
        packed.generate(say(prompt("hello"), temperature=1.0, seed=5, max_tokens=30)), *map(packed.generate, crowd)
    )
    assert together[0].text == lone.text
    other = await packed.generate(say(prompt("hello"), temperature=1.0, seed=6, max_tokens=30))
    assert other.text != lone.text


async def test_a_growing_chat_is_read_once(packed):
    first = prompt("a long opening message " * 10)
    one = await packed.generate(say(first))
    longer = (
        *first,
        ChatMessage(role="assistant", content=one.text or "x"),
        ChatMessage(role="user", content="and then?"),
    )
    two = await packed.generate(say(longer))
    assert two.usage.cached_tokens >= one.usage.prompt_tokens * 0.8
    assert two.usage.prompt_tokens > one.usage.prompt_tokens


async def test_judges_share_the_transcript(packed):
    await packed.choose(ask(prompt(TRANSCRIPT + "How kind was it?")))
    second = await packed.choose(ask(prompt(TRANSCRIPT + "Was it true?"), ("0", "1")))
    assert second.usage.cached_tokens >= 0.7 * second.usage.prompt_tokens


async def test_the_cache_changes_no_answer(splitting):
    small = TransformersBackend(str(splitting), TransformersOptions(dtype="float32", cache_mib=16))
    question = ask(prompt(TRANSCRIPT + "How kind was it?"))
    fresh = await small.choose(question)
    for i in range(40):
        await small.choose(ask(prompt(TRANSCRIPT + f"Another question {i}? " * 20)))
    again = await small.choose(question)
    await small.aclose()
    assert again.probabilities == pytest.approx(fresh.probabilities, abs=1e-5)


async def test_adapters_go_by_request(packed, adapters):
    question = prompt(TRANSCRIPT + "How kind was it?")
    base = await packed.choose(ask(question))
    first, second = await asyncio.gather(*(packed.choose(ask(question, adapter=str(folder))) for folder in adapters))
    again = await packed.choose(ask(question))
    assert again.probabilities == pytest.approx(base.probabilities, abs=1e-6)
    assert max(abs(a - b) for a, b in zip(first.probabilities, base.probabilities, strict=True)) > 1e-3
    assert max(abs(a - b) for a, b in zip(first.probabilities, second.probabilities, strict=True)) > 1e-3


async def test_an_adapter_answers_as_peft_does(packed, splitting, adapters):
    from peft import PeftModel

    model, tokenizer = reference(splitting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        tuned = PeftModel.from_pretrained(model, adapters[0]).eval()
    question = prompt(TRANSCRIPT + "How kind was it?")
    answer = await packed.choose(ask(question, adapter=str(adapters[0])))
    alone = [choice_alone(tuned, tokenizer, prompt_ids(tokenizer, question), choice) for choice in RATINGS]
    assert max(abs(p - a / sum(alone)) for p, a in zip(answer.probabilities, alone, strict=True)) < 1e-4


async def test_a_folder_that_is_no_adapter_fails_its_call_only(packed, tmp_path):
    with pytest.raises(CallFailedError, match="adapter"):
        await packed.generate(say(prompt("hi"), adapter=str(tmp_path)))
    assert await packed.generate(say(prompt("hi"), max_tokens=4, min_tokens=4))


async def test_an_adapter_that_changes_weights_is_refused(packed, splitting, tmp_path):
    """Packed weights cannot be had back; what it would compute from them would be nonsense."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        get_peft_model(AutoModelForCausalLM.from_pretrained(splitting), lora).save_pretrained(tmp_path)
    with pytest.raises(CallFailedError, match="uses DoRA.*Merge it"):
        await packed.generate(say(prompt("hi"), adapter=str(tmp_path)))


async def test_an_adapter_of_another_base_is_refused(whole, tmp_path_factory, adapters):
    from .conftest import make_model

    other = make_model(tmp_path_factory.mktemp("other"), hidden_size=64, whole_numbers=True)
    backend = TransformersBackend(str(other), TransformersOptions(dtype="float32"))
    with pytest.raises(CallFailedError, match="does not fit"):
        await backend.choose(ask(prompt("hi"), adapter=str(adapters[0])))
    await backend.aclose()


async def test_a_prompt_beyond_the_context_is_refused_not_cut(packed):
    with pytest.raises(CallFailedError) as caught:
        await packed.generate(say(prompt("x " * 3000)))
    assert caught.value.kind == "context_overflow"


async def test_lengths_are_obeyed(backend):
    forced = await backend.generate(say(prompt("hi"), temperature=1.0, min_tokens=9, max_tokens=9))
    assert forced.usage.completion_tokens == 9
    assert forced.finish_reason == "length"


async def test_stop_strings_end_a_reply_and_are_no_part_of_it(backend):
    whole = await backend.generate(say(prompt("hi"), temperature=1.0, seed=3, max_tokens=40))
    middle = next(c for c in whole.text[len(whole.text) // 2 :] if c.isascii())  # not half a character
    cut = await backend.generate(say(prompt("hi"), temperature=1.0, seed=3, max_tokens=40, stop=(middle,)))
    assert cut.text == whole.text.split(middle)[0]
    assert cut.finish_reason == "stop"


async def test_cancelled_requests_leave_the_rest_alone(packed):
    tasks = [
        asyncio.create_task(packed.generate(say(prompt(f"{i}"), temperature=1.0, max_tokens=200))) for i in range(6)
    ]
    await asyncio.sleep(0.05)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in done] == [True, False] * 3


async def test_roles_of_one_model_share_one_copy(splitting):
    first, second = (TransformersBackend(str(splitting), TransformersOptions(dtype="float32")) for _ in range(2))
    assert first._engine is second._engine
    await first.aclose()
    assert (await second.generate(say(prompt("hi"), min_tokens=2, max_tokens=2))).text is not None
    await second.aclose()
    with pytest.raises(CallFailedError, match="closed"):
        await second.generate(say(prompt("hi")))


TEAMS = """
import sys
import time
from pathlib import Path
from influence_transformers.engines import Registry, start_engine
from influence_transformers.loading import load_model
from influence_transformers.options import TransformersOptions

folder = Path(sys.argv[1])


def threads():  # once those that load have ended
    counts = [len(list(Path("/proc/self/task").iterdir())) for _ in range(20) if time.sleep(0.05) is None]
    return min(counts)


first, options = (TransformersOptions(dtype="float32", threads=3, cache_mib=mib) for mib in (16, 17))
Registry.shared.acquire(folder, first, "tiny")  # which also starts whatever libraries start once
before = threads()
Registry.shared.acquire(folder, options, "tiny")
print(threads() - before)
start_engine(load_model(folder, options, "tiny"), options, "tiny")
print(threads() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_loading_leaves_no_team_of_threads_beside_that_of_the_engine(splitting):
    command = [sys.executable, "-c", TEAMS, str(splitting)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [int(word) for word in told.split()] == [0, 2], "two more, where the caller's own thread loads"


@pytest.mark.parametrize("where", ["choices", "sampling"])
async def test_memory_that_runs_out_after_a_pass_changes_no_answer(splitting, monkeypatch, where):
    """The step is done again with half as much at once, from where it stood: no token twice, no draw lost."""

    async def answers():
        made = TransformersBackend(str(splitting), TransformersOptions(engine="packed", dtype="float32"))
        asked = [made.generate(say(prompt(f"Say {i}."), temperature=0.9, seed=i)) for i in range(4)]
        asked += [made.choose(ask(prompt(f"How good is {i}?"))) for i in range(4)]
        found = await asyncio.gather(*asked)
        await made.aclose()
        return [reply.text for reply in found[:4]], [p for reply in found[4:] for p in reply.probabilities]

    expected = await answers()
    failed = []
    module, name = (choices, "answer_log_probabilities") if where == "choices" else (sampling, "_invert")
    original = getattr(module, name)

    def once(*arguments):
        if not failed:
            failed.append(name)
            raise torch.OutOfMemoryError
        return original(*arguments)

    monkeypatch.setattr(module, name, once)
    found = await answers()
    assert failed
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
