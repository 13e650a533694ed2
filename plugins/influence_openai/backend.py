"""A model behind an OpenAI-compatible server.

Every request of a call passes the limiter, is repeated by the retry policy, and is sent in the dialect that the server
was found to speak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import orjson

from influence_cli.api import (
    BatchAnswer,
    BatchProgress,
    CallFailedError,
    Capabilities,
    ChoiceRequest,
    Clock,
    Distribution,
    GenerateRequest,
    Generation,
    InfluenceError,
    Limiter,
    Retrier,
    RetryBudget,
    RetryPolicy,
    derive_seed,
)
from influence_openai.batching import Batches
from influence_openai.choosing import Chooser
from influence_openai.client import ChatClient
from influence_openai.dialect import Dialect
from influence_openai.failures import RequestRefusedError
from influence_openai.options import OpenAIOptions
from influence_openai.wire import Payload, Spent, estimated_tokens, generate_payload, read_generation

T = TypeVar("T")

_MOST_ADAPTATIONS = 8
_ESTIMATED = "The server reports no token counts: they are estimated from the lengths of prompts and replies."
_SAME_AGAIN = frozenset({"empty", "malformed"})
"""After these the seed is changed: a server that honours it would only say the same again."""


class OpenAIBackend:
    """One model of one server. ``notes`` say where the server made us ask differently."""

    def __init__(self, model: str, options: OpenAIOptions, *, clock: Clock | None = None) -> None:
        self.model = model
        self.options = options
        self._client = ChatClient(options)
        self._dialect = Dialect(options)
        self.limiter = Limiter(
            initial=options.initial_concurrency,
            maximum=options.max_concurrency,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            slow_after=options.timeout / 2,
            max_pause=options.max_pause,
            clock=clock,
        )
        policy = RetryPolicy(
            options.max_attempts, options.retry_delay, options.max_retry_delay, options.max_pause, options.outage
        )
        self._retrier = Retrier(policy, RetryBudget(reserve=100.0 + options.max_concurrency), clock)
        self._chooser = Chooser(self, self._dialect)
        self._batches = Batches(options, self._chooser)

    def __repr__(self) -> str:
        """Return the model and the address."""
        return f"OpenAIBackend({self.model!r}, {self.options.base_url!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do, as far as it is known."""
        return Capabilities(
            logprobs=self._dialect.takes("logprobs"),
            seeds=self.options.seeds and self._dialect.takes("seed"),
            adapters=self.options.adapters,
            context_length=self.options.context_length,
            max_concurrency=self.options.max_concurrency,
        )

    @property
    def notes(self) -> list[str]:
        """What was adapted to this server, one sentence each."""
        return list(self._dialect.notes)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply to ``request``."""
        self._check_adapter(request.adapter)
        spent = Spent()
        try:
            generation = await self.ask(
                lambda seed: generate_payload(self.model, request, self._dialect, seed),
                lambda answer: read_generation(answer, request),
                spent=spent,
                seed=request.seed,
                expected=request.sampling.max_tokens,
            )
        except CallFailedError as error:
            error.usage = spent.usage()
            raise
        # the answer was checked when it was read; copying it validates nothing again
        return generation.model_copy(update={"usage": spent.usage()})

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the probability of each choice, by log-probabilities or, where there are none, by samples."""
        self._check_adapter(request.adapter)
        return await self._chooser.choose(request)

    def batch_line(self, key: str, request: ChoiceRequest) -> bytes:
        """Return ``request`` as one line of a batch's file."""
        self._check_adapter(request.adapter)
        return self._batches.line(key, request)

    async def upload_batch(self, token: str, lines: Sequence[bytes]) -> str:
        """Return the file of ``lines``, uploaded unless it was under ``token``."""
        return await self._batches.upload(token, lines)

    async def start_batch(self, token: str, file: str) -> str:
        """Return the batch over ``file``, begun unless it was under ``token``."""
        return await self._batches.start(token, file)

    async def look_at_batch(self, batch: str) -> BatchProgress:
        """Return how far a batch is."""
        return await self._batches.look(batch)

    async def collect_batch(self, batch: str, choices: Mapping[str, Sequence[str]]) -> dict[str, BatchAnswer]:
        """Return the answers of a batch that is done, by key."""
        return await self._batches.collect(batch, choices)

    async def aclose(self) -> None:
        """Close the connections; calls in flight fail. Closing twice does nothing."""
        self.limiter.close()
        await self._client.aclose()

    async def ask(
        self,
        build: Callable[[int], Payload],
        read: Callable[[Payload], T],
        *,
        spent: Spent,
        seed: int,
        expected: int,
    ) -> T:
        """Return what ``read`` makes of the answer to ``build(seed)``, asked again as the retry policy says.

        ``expected`` is the number of tokens that the answer may have. Requests, tokens and seconds go to ``spent``.
        """
        again = 0

        async def attempt() -> T:
            nonlocal again
            before = spent.requests
            try:
                return await self._send(
                    build, read, spent, derive_seed(seed, "again", again) if again else seed, expected
                )
            except CallFailedError as error:
                again += error.kind in _SAME_AGAIN
                error.attempts = spent.requests - before
                raise

        return await self._retrier.call(attempt, seed)

    async def _send(
        self, build: Callable[[int], Payload], read: Callable[[Payload], T], spent: Spent, seed: int, expected: int
    ) -> T:
        """Return the answer to one request, or to the first one in a dialect that the server takes."""
        for _ in range(_MOST_ADAPTATIONS):
            payload = build(seed)
            try:
                return read(await self._post(payload, spent, expected))
            except RequestRefusedError as error:
                if not self._dialect.adapt(error.error, payload):
                    raise
        raise CallFailedError("invalid_request", "The server refuses every form of the request.", attempts=0)

    async def _post(self, payload: Payload, spent: Spent, expected: int) -> Payload:
        if self.options.extra_body:
            payload.update(self.options.extra_body)
        body = orjson.dumps(payload)
        limiter = self.limiter
        tokens = estimated_tokens(len(body)) + expected
        admitted = await limiter.acquire(tokens)
        started = time.perf_counter()
        spent.requests += 1
        used = spent.prompt + spent.completion
        try:
            answer = await self._client.post(body)
        except CallFailedError as error:
            spent.requests -= error.away
            if error.kind == "timeout" or (isinstance(error, RequestRefusedError) and error.overloaded):
                limiter.refused(admitted, error.retry_after)
            raise
        else:
            limiter.answered(admitted)
            spent.add(answer, len(body))
            if spent.estimated:
                self._dialect.note(_ESTIMATED)
            limiter.settle(tokens, spent.prompt + spent.completion - used)
            return answer
        finally:
            limiter.release()
            spent.latency += time.perf_counter() - started

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter is not None and not self.options.adapters:
            hint = "If the server has it under that name (as vLLM has), set -o adapters=true."
            raise InfluenceError(f"{self.options.base_url} is not known to apply adapters ({adapter}).", hint=hint)
