"""Any model provider of Inspect AI as a backend.

Text goes through Inspect's own client with its retries and connection limits. Closed questions read log-probabilities where
the provider gives them and they decide; else the answers of samples are counted. What a provider can do is not known before
it was asked, so the capabilities say only what has been seen.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from inspect_ai.model import ChatCompletionChoice, GenerateConfig, Model, ModelOutput, ResponseSchema, get_model
from inspect_ai.model._generate_config import active_generate_config
from inspect_ai.tool import ToolInfo, ToolParams
from inspect_ai.util import JSONSchema, LimitExceededError

from influence_cli.api import (
    CallFailedError,
    Capabilities,
    ChoiceReading,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    InfluenceError,
    Position,
    Usage,
    count_answers,
    derive_seed,
)
from influence_inspect.failures import classified
from influence_inspect.messages import prompt_messages, tool_calls
from influence_inspect.options import InspectOptions

_TOP = 20
"""Likeliest tokens asked for at each position: what most providers show at most."""
_ANSWER_TOKENS = 16
"""Room for a choice; some providers refuse less."""
_SEEDS = 1 << 31
"""Seeds that every provider takes."""
_AMBIGUOUS_ABOVE = 0.02
"""More undecided probability than this is not accepted: samples are counted instead."""
_FINISHED = {"max_tokens": "length", "model_length": "length", "tool_calls": "tool_calls", "content_filter": "refused"}
_NO_LOGPROBS = "The provider gives no log-probabilities: closed questions are answered by counting samples."


class InspectBackend:
    """One of Inspect's models; ``limit`` is the limit of Inspect's that a call ran into, if one did."""

    def __init__(self, model: str | Model, options: InspectOptions) -> None:
        """Make ``model`` by its name; or take one that Inspect made and closes: its evaluation's settings come first."""
        self._owned = not isinstance(model, Model)
        self.model = model if isinstance(model, Model) else _made(model, options)
        self.options = options
        self.limit: LimitExceededError | None = None
        self.notes: list[str] = []
        self._logprobs: bool | None = None if options.logprobs == "auto" else False

    def __repr__(self) -> str:
        """Return the model's name."""
        return f"InspectBackend({str(self.model)!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What the provider has shown that it can do; whether it honours seeds cannot be seen."""
        return Capabilities(logprobs=self._logprobs is True, seeds=False, max_concurrency=self.options.max_connections)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply to ``request``."""
        sampling = request.sampling
        schema = request.json_schema
        config = GenerateConfig(
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.top_p < 1.0 else None,
            max_tokens=sampling.max_tokens,
            stop_seqs=list(sampling.stop) or None,
            seed=_seed(request.seed),
            response_schema=_schema(schema) if schema else None,
        )
        tools = [
            ToolInfo(name=t.name, description=t.description, parameters=ToolParams.model_validate(t.parameters))
            for t in request.tools
        ]
        output = await self._ask(request, self._deferring(config), tools)
        choice = _first(output)
        text, calls = choice.message.text, tool_calls(choice.message.tool_calls)
        if choice.stop_reason == "content_filter" and not text.strip() and not calls:
            raise _spent(CallFailedError("refused", "The provider withheld the answer."), output)
        finish: Any = "tool_calls" if calls else _FINISHED.get(choice.stop_reason, "stop")
        return Generation(text=text, finish_reason=finish, tool_calls=calls, usage=_usage(output))

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the probability of each choice, by log-probabilities or, where they decide too little, by samples."""
        first = await self._look(request) if self._logprobs is not False else None
        if first is None:
            return await self._by_samples(request, [])
        positions = _positions(_first(first))
        if positions:
            self._logprobs = True
            reading = ChoiceReading(request.choices)
            reading.look(positions)
            if reading.ambiguous <= _AMBIGUOUS_ABOVE:
                return reading.distribution(_usage(first))
        else:
            self._without_logprobs()
        return await self._by_samples(request, [first])

    async def _look(self, request: ChoiceRequest) -> ModelOutput | None:
        """Return an answer with log-probabilities asked for; None where the provider refuses to be asked."""
        try:
            return await self._draw(request, 0, logprobs=True)
        except CallFailedError as error:
            if error.kind != "invalid_request" or self._logprobs:
                raise
            self._without_logprobs()
            return None

    def _without_logprobs(self) -> None:
        if self._logprobs is None:
            self._logprobs = False
            self.notes.append(_NO_LOGPROBS)

    async def _by_samples(self, request: ChoiceRequest, first: Sequence[ModelOutput]) -> Distribution:
        """Return the shares of answers drawn at temperature 1; ``first`` was drawn already."""
        draws = request.draws or self.options.draws
        more = await asyncio.gather(*(self._draw(request, number) for number in range(len(first), draws)))
        outputs = [*first, *more]
        answers = [_first(output).message.text for output in outputs]
        return count_answers(request.choices, answers, _total(outputs))

    async def _draw(self, request: ChoiceRequest, number: int, *, logprobs: bool = False) -> ModelOutput:
        longest = max(len(choice) for choice in request.choices)
        config = GenerateConfig(
            temperature=1.0,
            max_tokens=max(_ANSWER_TOKENS, longest),
            seed=_seed(derive_seed(request.seed, "draw", number)),
            logprobs=True if logprobs else None,
            top_logprobs=_TOP if logprobs else None,
        )
        return await self._ask(request, config, [])

    async def _ask(
        self, request: GenerateRequest | ChoiceRequest, config: GenerateConfig, tools: Sequence[ToolInfo]
    ) -> ModelOutput:
        """Return Inspect's answer; whatever goes wrong becomes a classified failure, a limit also stays known."""
        if request.adapter is not None:
            raise CallFailedError("not_found", f"{self.model} knows no adapter {request.adapter}.", attempts=0)
        try:
            return await self.model.generate(prompt_messages(request.messages), list(tools), config=config)
        except LimitExceededError as error:
            self.limit = error
            raise CallFailedError("quota", str(error)) from error
        except (CallFailedError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise CallFailedError(*classified(error)) from error

    def _deferring(self, config: GenerateConfig) -> GenerateConfig:
        """Return ``config`` without what the evaluation itself sets."""
        if self._owned:
            return config
        theirs = self.model.config.merge(active_generate_config()).model_dump(exclude_none=True)
        return config.model_copy(update={name: None for name in theirs if name in type(config).model_fields})

    async def aclose(self) -> None:
        """Close the connections, where they are not Inspect's own. Closing twice does nothing."""
        if self._owned:
            await self.model.__aexit__(None, None, None)


def _made(model: str, options: InspectOptions) -> Model:
    config = GenerateConfig(max_connections=options.max_connections, max_retries=options.max_retries)
    try:
        return get_model(model, base_url=options.base_url, config=config, memoize=False, **dict(options.model_args))
    except Exception as error:
        said = " ".join(str(error).split())
        hint = "It is PROVIDER/MODEL as Inspect names them; its package and key must be there."
        raise InfluenceError(f"Inspect has no model {model!r}: {said}", hint=hint) from error


def _seed(seed: int) -> int:
    """Return a seed of those that every provider takes."""
    return seed % _SEEDS


def _schema(schema: Any) -> ResponseSchema:
    return ResponseSchema(name="answer", json_schema=JSONSchema.model_validate(schema), strict=True)


def _first(output: ModelOutput) -> ChatCompletionChoice:
    if output.empty:
        raise _spent(CallFailedError("empty", output.error or "The provider answered with nothing."), output)
    return output.choices[0]


def _spent(error: CallFailedError, output: ModelOutput) -> CallFailedError:
    error.usage = _usage(output)
    return error


def _usage(output: ModelOutput) -> Usage:
    return _total([output])


def _total(outputs: Sequence[ModelOutput]) -> Usage:
    """Return what several answers took together; those drawn side by side take as long as the longest."""
    used = [output.usage for output in outputs if output.usage is not None]
    cached = sum(usage.input_tokens_cache_read or 0 for usage in used)
    written = sum(usage.input_tokens_cache_write or 0 for usage in used)
    return Usage(
        prompt_tokens=sum(usage.input_tokens for usage in used) + cached + written,
        cached_tokens=cached,
        completion_tokens=sum(usage.output_tokens for usage in used),
        requests=len(outputs),
        latency=max((output.time or 0.0 for output in outputs), default=0.0),
    )


def _positions(choice: ChatCompletionChoice) -> list[Position]:
    """Return the positions that show their likeliest tokens; those of an answer that shows none are none."""
    found = []
    for each in choice.logprobs.content if choice.logprobs else ():
        top = [(top.token, top.logprob) for top in each.top_logprobs or () if not math.isnan(top.logprob)]
        if not top:
            break
        found.append(Position(each.token, tuple(top)))
    return found
