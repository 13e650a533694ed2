"""The scripted backend answers by rule, and says that it does."""

import pytest

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.documents import DocumentError
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling


def backend(tmp_path, text: str) -> ScriptedBackend:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    return ScriptedBackend(str(path), ScriptedOptions())


def say(text: str, **more) -> GenerateRequest:
    return GenerateRequest(role="agent", messages=(ChatMessage(role="user", content=text),), **more)


def ask(text: str, *choices: str, **more) -> ChoiceRequest:
    return ChoiceRequest(role="preference", messages=(ChatMessage(role="user", content=text),), choices=choices, **more)


async def test_the_first_rule_that_fits_answers(tmp_path):
    model = backend(tmp_path, "replies: [{contains: tea, texts: [yes]}, {role: user, texts: [no]}, {texts: [maybe]}]")
    assert (await model.generate(say("some tea?"))).text == "yes"
    assert (await model.generate(say("coffee?"))).text == "maybe"


async def test_the_seed_draws_among_texts(tmp_path):
    model = backend(tmp_path, "replies: [{texts: [a, b]}]")
    assert {(await model.generate(say("x", seed=seed))).text for seed in range(4)} == {"a", "b"}


async def test_made_up_text_obeys_its_lengths():
    model = ScriptedBackend("demo", ScriptedOptions())
    reply = await model.generate(say("x", seed=5, sampling=Sampling(min_tokens=50, max_tokens=60)))
    assert len(reply.text.split()) == 50
    short = await model.generate(say("x", seed=5, sampling=Sampling(max_tokens=3)))
    assert len(short.text.split()) == 3


async def test_judgements_are_marked_as_scripted(tmp_path):
    model = backend(tmp_path, "choices: [{weights: {a: 3, b: 1}, mass: 0.5}]")
    answer = await model.choose(ask("x", "a", "b"))
    assert (answer.probabilities, answer.mass, answer.method) == ((0.75, 0.25), 0.5, "scripted")


async def test_without_a_rule_the_prompt_decides():
    model = ScriptedBackend("demo", ScriptedOptions())
    choices = [str(i) for i in range(1, 11)]
    values = {(await model.choose(ask(f"prompt {i}", *choices))).expected_value for i in range(5)}
    assert len(values) == 5


async def test_weights_for_other_choices_are_a_failure(tmp_path):
    model = backend(tmp_path, "choices: [{weights: {z: 1}}]")
    with pytest.raises(CallFailedError, match="no weight"):
        await model.choose(ask("x", "a", "b"))


async def test_failures_come_by_share(tmp_path):
    model = backend(tmp_path, "failures: [{kind: timeout, share: 0.3}]")
    failed = 0
    for seed in range(300):
        try:
            await model.generate(say("x", seed=seed))
        except CallFailedError as error:
            failed += 1
            assert error.kind == "timeout"
    assert 60 <= failed <= 120


def test_an_unknown_script_says_what_to_write():
    with pytest.raises(InfluenceError, match="scripted:demo, or scripted:PATH"):
        ScriptedBackend("none", ScriptedOptions())


def test_a_broken_script_has_its_line(tmp_path):
    with pytest.raises(DocumentError, match=r"script.yaml:1:1: Unknown key 'replys'. Did you mean 'replies'\?"):
        backend(tmp_path, "replys: []")
