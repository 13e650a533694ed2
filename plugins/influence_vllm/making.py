"""The backend ``vllm``: one class for the engine in this process, one for a server; the options say which."""

from __future__ import annotations

import asyncio
import time

from influence_cli.api import (
    Backend,
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
from influence_vllm.engine import Engine
from influence_vllm.options import IN_PROCESS, VllmOptions
from influence_vllm.serving import ServedModel
from influence_vllm.sharing import Shared

_engines: Shared[Engine] = Shared()
_served: Shared[ServedModel] = Shared()


def make_backend(model: str, options: VllmOptions) -> Backend:
    """Return the backend for ``model``; InfluenceError where vLLM is missing, or cannot load it or start."""
    if options.server == IN_PROCESS:
        return VllmBackend(model, options)
    return ServedVllmBackend(model, options)


class VllmBackend:
    """A model loaded by vLLM in this process; backends of the same model and options share one."""

    def __init__(self, model: str, options: VllmOptions) -> None:
        self._key = (model, options.model_dump_json())
        self._engine: Engine | None = _engines.acquire(self._key, lambda: Engine(model, options))

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do."""
        engine = self._running()
        return Capabilities(
            logprobs=True,
            seeds=True,
            adapters=engine.adapters is not None,
            prefix_cache=True,
            context_length=engine.context,
            cache_tokens=engine.cache_tokens,
            compute_bound=engine.on_processor,
        )

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply; raises CallFailedError, for one ``empty`` where it says nothing."""
        start = time.perf_counter()
        engine = self._running()
        result = await asyncio.wrap_future(engine.submit(engine.generate(request)))
        usage = Usage(
            prompt_tokens=result.prompt_tokens,
            cached_tokens=min(result.cached_tokens, result.prompt_tokens),
            completion_tokens=result.tokens,
            latency=time.perf_counter() - start,
        )
        names = {tool.name for tool in request.tools}
        text, calls = split_tool_calls(result.text, names) if names else (result.text, ())
        if not text.strip() and not calls:
            error = CallFailedError("empty", "The model answered nothing.")
            error.usage = usage
            raise error
        finish = "tool_calls" if calls else "length" if result.finish_reason == "length" else "stop"
        return Generation(text=text, finish_reason=finish, tool_calls=calls, usage=usage)

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the exact probability of each choice: of all its tokens and of ending after them."""
        start = time.perf_counter()
        engine = self._running()
        result = await asyncio.wrap_future(engine.submit(engine.choose(request)))
        usage = Usage(
            prompt_tokens=result.prompt_tokens,
            cached_tokens=result.cached_tokens,
            latency=time.perf_counter() - start,
        )
        return exact_distribution(request.choices, result.log_probabilities, usage)

    async def aclose(self) -> None:
        """Give the model back; after the last backend it is released or sleeps, and calls in flight fail."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(_engines.release, self._key)

    def _running(self) -> Engine:
        if self._engine is None:
            raise CallFailedError("internal", "The model has been closed.", attempts=0)
        return self._engine


class ServedVllmBackend:
    """A model on a server of vLLM; backends of the same model and options share it."""

    def __init__(self, model: str, options: VllmOptions) -> None:
        self._key = (model, options.model_dump_json())
        self._notes: list[str] = []
        self._model: ServedModel | None = _served.acquire(self._key, lambda: ServedModel(model, options))

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do."""
        found = self._running().client.capabilities
        return found.model_copy(update={"prefix_cache": True})

    @property
    def notes(self) -> list[str]:
        """What was adapted to this server, one sentence each; also once the server has been given back."""
        if self._model is not None:
            self._notes = list(getattr(self._model.client, "notes", ()))
        return self._notes

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply to ``request``."""
        model = self._running()
        return await model.ask(request, model.client.generate)

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the probability of each choice, by the log-probabilities that the server shows."""
        model = self._running()
        return await model.ask(request, model.client.choose)

    async def aclose(self) -> None:
        """Give the server back; after the last backend one of ours stops or sleeps, and calls in flight fail."""
        if self._model is None:
            return
        self._notes = self.notes
        model, self._model = self._model, None
        try:
            if _served.users(self._key) == 1:
                await model.leave()
        finally:
            await asyncio.to_thread(_served.release, self._key)

    def _running(self) -> ServedModel:
        if self._model is None:
            raise CallFailedError("internal", "The server has been given back.", attempts=0)
        return self._model
