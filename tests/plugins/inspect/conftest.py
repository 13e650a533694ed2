"""Inspect's mock provider, answering as a test says."""

import math

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install 'influence-cli[inspect]'")

from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput, ModelUsage, get_model
from inspect_ai.model._model_output import Logprob, Logprobs, TopLogprob

from influence_inspect.backend import InspectBackend
from influence_inspect.options import InspectOptions

DIGITS = tuple(str(number) for number in range(1, 11))


def answer(text, *, logprobs=None, stop="stop", calls=None):
    """Return an output of the mock: ``logprobs`` are (drawn token, {token: probability}) by position."""
    shown = None
    if logprobs is not None:
        shown = Logprobs(
            content=[
                Logprob(
                    token=token,
                    logprob=math.log(top.get(token, 1e-9)),
                    top_logprobs=[TopLogprob(token=t, logprob=math.log(p)) for t, p in top.items()],
                )
                for token, top in logprobs
            ]
        )
    message = ChatMessageAssistant(content=text, tool_calls=calls, source="generate", model="mockllm/model")
    return ModelOutput(
        model="mockllm/model",
        choices=[ChatCompletionChoice(message=message, stop_reason=stop, logprobs=shown)],
        usage=ModelUsage(input_tokens=20, output_tokens=2, total_tokens=25, input_tokens_cache_read=3),
        time=0.25,
    )


@pytest.fixture
def make_backend():
    """Make a backend over the mock; ``reply`` takes (messages, tools, tool choice, config)."""

    def make(reply, **options):
        given = InspectOptions(model_args={"custom_outputs": reply}, **options)
        return InspectBackend("mockllm/model", given)

    return make


__all__ = ["DIGITS", "answer", "get_model"]
