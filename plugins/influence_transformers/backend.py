"""The local backend: requests in, results out; the work is done on the engine's thread."""

from __future__ import annotations

import asyncio
import time

from influence_cli.api import (
    CallFailedError,
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Usage,
    exact_distribution,
    split_tool_calls,
)
from influence_transformers.engine.sequences import ChoiceResult, TextResult
from influence_transformers.engines import Engine, Registry, give_memory_back
from influence_transformers.options import TransformersOptions
from influence_transformers.resolution import resolve_model
from influence_transformers.structured import write_object


class TransformersBackend:
    """A local model; backends of the same model and options share one loaded copy."""

    def __init__(self, model: str, options: TransformersOptions) -> None:
        source = resolve_model(model, options.revision)
        self._engine: Engine | None = Registry.shared.acquire(source, options, model)

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do."""
        engine = self._running()
        return Capabilities(
            logprobs=True,
            seeds=True,
            adapters=True,
            prefix_cache=engine.packed,
            context_length=engine.loaded.context,
            cache_tokens=engine.cache_tokens,
            max_concurrency=None if engine.packed else 1,
            compute_bound=engine.loaded.model.device.type == "cpu",
        )

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply; raises CallFailedError, for one ``empty`` where it says nothing."""
        start = time.perf_counter()
        if request.json_schema is not None:
            answer = await write_object(self._running(), request)
            usage = answer.usage.model_copy(update={"latency": time.perf_counter() - start})
            return answer.model_copy(update={"usage": usage})
        result = await asyncio.wrap_future(self._running().generate(request))
        assert isinstance(result, TextResult)
        usage = Usage(
            prompt_tokens=result.prompt_tokens,
            cached_tokens=result.cached_tokens,
            completion_tokens=len(result.tokens),
            latency=time.perf_counter() - start,
        )
        names = {tool.name for tool in request.tools}
        text, calls = split_tool_calls(result.text, names) if names else (result.text, ())
        if not text.strip() and not calls:
            raise CallFailedError("empty", "The model answered nothing.")
        return Generation(
            text=text, finish_reason="tool_calls" if calls else result.finish_reason, tool_calls=calls, usage=usage
        )

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the exact probability of each choice: of all its tokens and of ending after them."""
        start = time.perf_counter()
        result = await asyncio.wrap_future(self._running().choose(request))
        assert isinstance(result, ChoiceResult)
        usage = Usage(
            prompt_tokens=result.prompt_tokens,
            cached_tokens=result.cached_tokens,
            latency=time.perf_counter() - start,
        )
        return exact_distribution(request.choices, result.log_probabilities, usage)

    async def aclose(self) -> None:
        """Give the model back; the last backend to do so frees it, and calls in flight fail."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(Registry.shared.release, engine)
            del engine
            give_memory_back()

    def _running(self) -> Engine:
        if self._engine is None:
            raise CallFailedError("internal", "The model has been closed.", attempts=0)
        return self._engine
