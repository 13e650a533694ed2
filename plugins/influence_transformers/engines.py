"""Loaded models, shared.

Concept: backends that name the same model with the same settings get the same engine; the last one to close it frees it.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from influence_cli.api import CallFailedError, ChoiceRequest, GenerateRequest, InfluenceError, Prompts
from influence_transformers.adapters import Adapters
from influence_transformers.engine.forward import Layout
from influence_transformers.engine.plain import PlainEngine
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.scheduler import Scheduler
from influence_transformers.engine.segments import Pool
from influence_transformers.engine.sequences import ChoiceTask, Sequence, TextTask
from influence_transformers.engine.worker import Result, Worker
from influence_transformers.loading import LoadedModel, load_model
from influence_transformers.native.passes import NativeRunner
from influence_transformers.options import MIB, TransformersOptions
from influence_transformers.trial import PassRunner, try_packed

_CPU_CACHE_MIB, _CPU_CACHE_BESIDE_FLOAT32_MIB = 1536, 1088
"""Room for keys and values on a processor: the weights of a small model beside it, kept as bfloat16 or as float32, and all
else stay below 2.5 GB."""
_GPU_SHARE = 0.7


@dataclass
class Engine:
    """One loaded model with its thread; ``runner`` is what batches, if it can be batched."""

    loaded: LoadedModel
    prompts: Prompts
    adapters: Adapters
    steps: Scheduler | PlainEngine
    worker: Worker
    runner: PassRunner | None = None
    users: int = 0

    @property
    def packed(self) -> bool:
        """Whether requests are batched and prefixes shared."""
        return isinstance(self.steps, Scheduler)

    @property
    def cache_tokens(self) -> int | None:
        """How many positions the prefix cache can hold; None without one."""
        if not isinstance(self.steps, Scheduler):
            return None
        pool = self.steps.pool
        return pool.budget // pool.shape.token_bytes

    def generate(self, request: GenerateRequest, begun: str = "") -> Future[Result]:
        """Return the future of a reply, or of the rest of one that has ``begun``."""
        return self.worker.submit(lambda future: self._text_sequence(request, begun, future))

    def choose(self, request: ChoiceRequest) -> Future[Result]:
        """Return the future of the choices' probabilities."""
        return self.worker.submit(lambda future: self._choice_sequence(request, future))

    def continue_choice(self, request: GenerateRequest, begun: str, choices: tuple[str, ...]) -> Future[Result]:
        """Return the future of the probabilities with which a reply that has ``begun`` goes on with each choice."""
        return self.worker.submit(lambda future: self._continuation(request, begun, choices, future))

    def _continuation(
        self, request: GenerateRequest, begun: str, choices: tuple[str, ...], future: Future[Result]
    ) -> Sequence:
        adapter = self.adapters.load(request.adapter)
        ids = self.prompts.encode(request.messages, begun=begun)
        task = ChoiceTask(self.prompts.encode_choices(ids, choices), ending=False)
        self._room(ids, max(task.trie.depths) + 1)
        return Sequence(np.asarray(ids, np.int32), task, adapter, future)

    def _text_sequence(self, request: GenerateRequest, begun: str, future: Future[Result]) -> Sequence:
        adapter = self.adapters.load(request.adapter)
        ids = self.prompts.encode(request.messages, request.tools, begun=begun)
        sampling = request.sampling
        room = self._room(ids, 1)
        limit = sampling.max_tokens if room is None else min(sampling.max_tokens, room)
        draws = Draws(sampling.temperature, sampling.top_p, request.seed)
        task = TextTask(draws, limit, min(sampling.min_tokens, limit), sampling.stop)
        return Sequence(np.asarray(ids, np.int32), task, adapter, future)

    def _choice_sequence(self, request: ChoiceRequest, future: Future[Result]) -> Sequence:
        adapter = self.adapters.load(request.adapter)
        ids = self.prompts.encode(request.messages)
        task = ChoiceTask(self.prompts.encode_choices(ids, request.choices))
        self._room(ids, max(task.trie.depths) + 1)
        return Sequence(np.asarray(ids, np.int32), task, adapter, future)

    def _room(self, ids: list[int], least: int) -> int | None:
        """Return how many tokens may follow the prompt; CallFailedError if fewer than ``least``."""
        context = self.loaded.context
        if context is None:
            return None
        if len(ids) + least > context:
            raise CallFailedError(
                "context_overflow", f"The prompt has {len(ids)} tokens; the model takes {context}.", attempts=0
            )
        return context - len(ids)


@dataclass
class Registry:
    """Engines by model folder and settings; one a process."""

    engines: dict[tuple[Path, str], Engine] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    shared: ClassVar[Registry]

    def acquire(self, source: Path, options: TransformersOptions, name: str) -> Engine:
        """Return the engine for a model, loaded if need be; every call needs one :meth:`release`."""
        key = (source, options.model_dump_json())
        with self.lock:
            engine = self.engines.get(key)
            if engine is None:
                made = _on_passing_thread(lambda: start_engine(load_model(source, options, name), options, name))
                engine = self.engines[key] = made
            engine.users += 1
            return engine

    def release(self, engine: Engine) -> None:
        """Give an engine back; the last user closes it."""
        with self.lock:
            engine.users -= 1
            if engine.users > 0:
                return
            self.engines = {k: e for k, e in self.engines.items() if e is not engine}
        engine.worker.close()


Registry.shared = Registry()


def _on_passing_thread(make: Callable[[], Engine]) -> Engine:
    """Return what ``make`` does, called on a thread that has ended by then.

    OpenMP keeps a team of threads for every thread that has computed something. Beside a team of the thread that loaded a
    model, that of the thread which computes would make more threads than processors, and OpenMP then puts them to sleep
    between any two operators instead of letting them look out for the next: decoding took 1.6 times as long.
    """
    future: Future[Engine] = Future()

    def run() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    thread = threading.Thread(target=run, name="influence-load", daemon=True)
    thread.start()
    engine = future.result()
    thread.join()
    return engine


def give_memory_back() -> None:
    """Return to the device what closed engines held, so that training can have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def start_engine(loaded: LoadedModel, options: TransformersOptions, name: str) -> Engine:
    """Return an engine over a loaded model: the packed one if it serves the model, else the plain one."""
    prompts = Prompts(loaded.tokenizer, loaded.end_ids, name)
    adapters = Adapters(loaded.model)
    packed = None
    if options.engine != "plain":
        packed = try_packed(loaded.model, loaded.context, record=options.record, native=options.native)
    if packed is None and options.engine == "packed":
        raise InfluenceError(
            f"The model {name!r} cannot be batched by the packed engine.", hint="Leave out -o engine=..."
        )
    if packed is None:
        steps: Scheduler | PlainEngine = PlainEngine(
            loaded.model, adapters.switch, prompts.decode, ending=prompts.ending
        )
    else:
        shape, runner = packed

        def compute(adapter: str | None, layout: Layout) -> torch.Tensor:
            adapters.switch(adapter)
            return runner.logits(layout, adapter)

        on_gpu = shape.device.type == "cuda"
        steps = Scheduler(
            compute,
            prompts.decode,
            Pool(shape, _budget(options, shape.device, native=isinstance(runner, NativeRunner))),
            release=runner.release,
            ending=prompts.ending,
            max_rows=options.max_rows or (8192 if on_gpu else 512),
            max_running=options.max_running or (256 if on_gpu else 64),
        )
    return Engine(loaded, prompts, adapters, steps, Worker(steps, name), packed and packed.runner)


def _budget(options: TransformersOptions, device: torch.device, *, native: bool) -> int:
    if options.cache_mib is not None:
        return options.cache_mib * MIB
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    return (_CPU_CACHE_MIB if native else _CPU_CACHE_BESIDE_FLOAT32_MIB) * MIB
