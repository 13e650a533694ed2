"""The embedded default, for real."""

import asyncio
import os
import random
import shutil
import subprocess
import sys

import pytest

from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling
from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_transformers.backend import TransformersBackend
from influence_transformers.options import TransformersOptions

from .test_transformers_engine import RATINGS, TRANSCRIPT, choice_alone, prompt_ids, reference

torch = pytest.importorskip("torch")
WORDS = "river stone quiet morning letter never always garden window bread winter promise answer little brother".split()


def random_prompt(draw: random.Random) -> tuple[ChatMessage, ...]:
    def words():
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 40)))

    roles = ("user", "assistant", "user")[: draw.choice((1, 3))]
    return (ChatMessage(role="system", content=words()), *(ChatMessage(role=role, content=words()) for role in roles))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_greedy_replies_to_fifty_random_prompts_are_those_of_generate(smollm2):
    model, tokenizer = reference(smollm2)
    draw = random.Random(11)
    prompts = [random_prompt(draw) for _ in range(50)]
    backend = TransformersBackend("smollm2", TransformersOptions(dtype="float32"))
    sampling = Sampling(temperature=0.0, max_tokens=12)
    answers = await asyncio.gather(
        *(backend.generate(GenerateRequest(role="agent", messages=p, sampling=sampling)) for p in prompts)
    )
    await backend.aclose()
    for messages, answer in zip(prompts, answers, strict=True):
        ids = prompt_ids(tokenizer, messages)
        with torch.inference_mode():
            made = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0][
                len(ids) :
            ]
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ratings_are_exact_though_ten_is_two_tokens(smollm2):
    model, tokenizer = reference(smollm2)
    assert len(tokenizer("10", add_special_tokens=False)["input_ids"]) == 2
    backend = TransformersBackend("smollm2", TransformersOptions(dtype="float32"))
    for text in ("How kind was it, from 1 to 10?", "Rate the reply from 1 to 10. Answer only with a whole number."):
        messages = (
            ChatMessage(role="system", content="You judge."),
            ChatMessage(role="user", content=TRANSCRIPT + text),
        )
        answer = await backend.choose(ChoiceRequest(role="preference", messages=messages, choices=RATINGS))
        alone = [choice_alone(model, tokenizer, prompt_ids(tokenizer, messages), choice) for choice in RATINGS]
        assert max(abs(p - a / sum(alone)) for p, a in zip(answer.probabilities, alone, strict=True)) < 1e-4
        assert answer.mass == pytest.approx(sum(alone), rel=1e-3)
    await backend.aclose()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_job_on_a_machine_that_has_nothing(tmp_path):
    """The README's first command, with the model fetched and converted on the way."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFLUENCE", "OPENAI", "HF_"))}
    env |= {"INFLUENCE_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", "therapy", "--n", "8", "--turns", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Converting" in done.stderr
    assert "it/s" not in done.stderr
    run = open_run(next((tmp_path / "runs").iterdir()))
    assert check_run(run) == []
    with RunReader(run) as reader:
        trajectories = list(reader.trajectories())
    assert [t["status"] for t in trajectories] == ["complete"] * 8
    for trajectory in trajectories:
        replies = [m["text"] for m in trajectory["messages"] if m["speaker"] == "agent"]
        assert len(replies) == trajectory["turns"] >= 1
        assert all(replies)
        ratings = [j["preference"] for j in trajectory["judgements"]]
        assert {rating["method"] for rating in ratings} == {"exact"}
        assert all(1.0 <= rating["expected"] <= 10.0 for rating in ratings)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("cc") is None, reason="without kernels of our own, company changes last digits")
def test_a_run_is_the_same_to_the_last_digit_alone_and_in_company(tmp_path, smollm2):
    """One conversation at a time with short passes and a small cache, or all at once: texts and ratings are equal."""
    found = []
    for name, options in (
        ("alone", ["--concurrency", "1", "-o", "max_rows=40", "-o", "cache_mib=64"]),
        ("together", []),
    ):
        command = [sys.executable, "-m", "influence_cli", "simulate", "--env", "therapy", "--n", "4", "--turns", "2"]
        command += [*options, "--model", f"transformers:{smollm2}", "--out", str(tmp_path / name)]
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        with RunReader(open_run(tmp_path / name)) as reader:
            made = {(t["scenario"], t["initial_state"], t["sample"]): t for t in reader.trajectories()}
        found.append({key: (t["messages"], t["judgements"]) for key, t in made.items()})
    assert len(found[0]) == 4
    assert found[0] == found[1]
