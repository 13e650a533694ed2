"""Our models as a provider of Inspect's."""

import json

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install 'influence-cli[inspect]'")

from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.tool import ToolInfo, ToolParams

from influence_cli.errors import InfluenceError
from influence_cli.schemas.requests import Generation, Usage
from influence_inspect.provider import InfluenceModel


async def test_a_model_of_ours_answers_in_inspect():
    async with get_model("influence/scripted:demo", memoize=False) as model:
        first = await model.generate("Hello.", config=GenerateConfig(seed=7, max_tokens=5))
        again = await model.generate("Hello.", config=GenerateConfig(seed=7, max_tokens=5))
        other = await model.generate("Hello.", config=GenerateConfig(max_tokens=50))
    assert first.completion == again.completion != other.completion
    assert len(first.completion.split()) <= 5
    assert first.usage.input_tokens > 0
    assert first.usage.output_tokens > 0
    assert first.stop_reason == "stop"


async def test_an_adapter_speaks(tmp_path):
    (tmp_path / "scripted.json").write_text(json.dumps({"strength": 1.0, "replies": [["What was learnt.", 1.0]]}))
    async with get_model(f"influence/scripted:demo@{tmp_path}", memoize=False) as model:
        assert (await model.generate("Hello.")).completion == "What was learnt."


async def test_options_and_mistakes_are_told(tmp_path):
    model = get_model("influence/scripted:demo", memoize=False, latency=-1)
    with pytest.raises((InfluenceError, RuntimeError), match="latency"):
        await model.generate("Hello.")


class Recorded:
    """A backend that remembers what it was asked."""

    def __init__(self):
        self.requests = []

    async def generate(self, request):
        self.requests.append(request)
        usage = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=2)
        return Generation(text="Yes.", finish_reason="length", usage=usage)

    async def aclose(self):
        pass


async def test_what_inspect_asks_is_what_a_backend_takes(monkeypatch):
    provider = InfluenceModel("scripted:demo")
    backend = Recorded()
    monkeypatch.setattr(provider, "_model", None)
    loaded = provider._loaded()
    monkeypatch.setattr(provider, "_model", type(loaded)(loaded.name, backend))
    parameters = ToolParams.model_validate({"properties": {"hotel": {"type": "string"}}, "required": ["hotel"]})
    tool = ToolInfo(name="book", description="Books.", parameters=parameters)
    config = GenerateConfig(temperature=0.5, stop_seqs=["END"])
    output = await provider.generate([ChatMessageUser(content="A room?")], [tool], "auto", config)
    await provider.generate([ChatMessageUser(content="A room?")], [tool], "none", config)
    first, second = backend.requests
    assert (first.sampling.temperature, first.sampling.stop, first.sampling.max_tokens) == (0.5, ("END",), 1024)
    assert [t.name for t in first.tools] == ["book"]
    assert first.tools[0].parameters["required"] == ["hotel"]
    assert second.tools == ()
    assert first.seed != second.seed
    assert output.stop_reason == "max_tokens"
    assert (output.usage.input_tokens, output.usage.input_tokens_cache_read, output.usage.output_tokens) == (5, 4, 2)
    await provider.aclose()
