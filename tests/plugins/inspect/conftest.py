"""Inspect's mock provider, answering as a test says."""

import math

import pytest
from typer.testing import CliRunner

from influence_cli.cli import output
from influence_cli.cli.app import build_app
from influence_cli.store.conversation import read_conversation
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run


@pytest.fixture
def answer():
    """Make an output of the mock: ``logprobs`` are (drawn token, {token: probability}) by position.

    Its usage is given: the mock would count tokens with a table that it fetches.
    """

    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput, ModelUsage
    from inspect_ai.model._model_output import Logprob, Logprobs, TopLogprob

    def make(text, *, logprobs=(), stop="stop", calls=None):
        content = [
            Logprob(
                token=token,
                logprob=math.log(top.get(token, 1e-9)),
                top_logprobs=[TopLogprob(token=t, logprob=math.log(p)) for t, p in top.items()],
            )
            for token, top in logprobs
        ]
        message = ChatMessageAssistant(content=text, tool_calls=calls, source="generate", model="mockllm/model")
        shown = Logprobs(content=content) if content else None
        return ModelOutput(
            model="mockllm/model",
            choices=[ChatCompletionChoice(message=message, stop_reason=stop, logprobs=shown)],
            usage=ModelUsage(input_tokens=20, output_tokens=2, total_tokens=25, input_tokens_cache_read=3),
        )

    return make


@pytest.fixture
def make_backend():
    """Make a backend over the mock; ``reply`` takes (messages, tools, tool choice, config)."""

    from influence_inspect.backend import InspectBackend
    from influence_inspect.options import InspectOptions

    def make(reply, **options):
        return InspectBackend("mockllm/model", InspectOptions(model_args={"custom_outputs": reply}, **options))

    return make


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def influence(place, monkeypatch):
    """Run the command line in this process; a bug is raised."""

    def run(*arguments):
        monkeypatch.setattr(output, "_quiet", False)
        result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def contents():
    """Read a run: its trajectories, scores and calls, whatever their order."""

    def read(path):
        with RunReader(open_run(path)) as run:
            ids = run.column("SELECT id FROM episode")
            kept = [read_conversation(run, episode_id) for episode_id in ids]
            trajectories = list(run.trajectories())
        return (
            sorted(trajectories, key=lambda t: (t["environment"], t["scenario"], t["initial_state"], t["sample"])),
            {each.title: (each.scores, each.calls, each.judgements) for each in kept},
        )

    return read
