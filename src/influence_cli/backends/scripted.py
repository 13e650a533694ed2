"""A deterministic backend for tests and teaching: it answers from word lists and rules, and says so.

Every answer is a pure function of (script, request, seed). Judgements carry the method ``scripted``, so that no figure
made with it can be taken for a model's.
"""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from influence_cli.documents import read_document, validate_document
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import ChatMessage, Role
from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Usage,
)
from influence_cli.seeding import derive_seed, unit_draw

_WORDS = (
    "it is your evening and nobody else has to decide this tonight so let us look at what happened before "
    "what you want from tomorrow and which small thing would help first because a plan that you chose is "
    "easier to keep"
).split()
_BUILT_IN = "demo"
ADAPTER_FILE = "scripted.json"
_UNLEARNT = 1e-6
"""Probability of a reply that an adapter has not learnt."""
_REPLY = re.compile(r"<agent>\n(.*?)\n</agent>", re.DOTALL)
_TOKENS = re.compile(r"\w+|[^\w\s]")


class ReplyRule(Frozen):
    """Texts for a role; one of them is drawn."""

    role: Role | None = Field(default=None, description="For whom; none: every role.")
    contains: str = Field(default="", description="Only if the last message of the prompt contains this.")
    texts: tuple[str, ...] = Field(min_length=1, description="One is drawn by the request's seed.")


class ChoiceRule(Frozen):
    """Weights for a judge's choices."""

    role: Role | None = Field(default=None, description="For whom; none: every role.")
    contains: str = Field(default="", description="Only if the prompt contains this.")
    reply: str = Field(default="", description="Only if this regular expression is found in the agent's last message.")
    weights: dict[str, float] = Field(min_length=1, description="Weight of each choice; others get none.")
    mass: float = Field(default=1.0, gt=0.0, le=1.0, description="Probability on the choices together.")

    @field_validator("reply")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    def fits(self, role: Role, prompt: str) -> bool:
        """Return whether the rule is for this role and prompt."""
        if self.role not in (None, role) or self.contains not in prompt:
            return False
        return not self.reply or re.search(self.reply, _last_reply(prompt)) is not None


class FailureRule(Frozen):
    """Requests that fail."""

    role: Role | None = Field(default=None, description="For whom; none: every role.")
    contains: str = Field(default="", description="Only if the prompt contains this.")
    kind: Literal["server_error", "timeout", "context_overflow", "refused", "malformed", "auth"] = Field(
        default="server_error", description="How it fails."
    )
    share: float = Field(default=1.0, ge=0.0, le=1.0, description="Share of such requests, drawn by seed.")


class ScriptedAdapter(Frozen):
    """What a scripted agent has learnt: the file ``scripted.json`` of an adapter's folder."""

    strength: float = Field(ge=0.0, le=1.0, description="Share of replies that are learnt ones.")
    replies: tuple[tuple[str, float], ...] = Field(description="Learnt replies and their weights, in order.")

    def probability(self, text: str) -> float:
        """Return how likely the adapted model says ``text``; what it has not learnt has one in a million."""
        total = math.fsum(weight for _, weight in self.replies)
        weight = next((weight for reply, weight in self.replies if reply == text), 0.0)
        return self.strength * (weight / total if total else 0.0) + (1.0 - self.strength) * _UNLEARNT + _UNLEARNT / 1e3

    def probability_of_beginning(self, text: str) -> float:
        """Return how likely the adapted model's reply begins with ``text``."""
        return _UNLEARNT + math.fsum(self.probability(reply) for reply, _ in self.replies if reply.startswith(text))


class Script(Frozen):
    """What a scripted model answers; the first rule that fits wins, and without one a built-in answer is made up."""

    replies: tuple[ReplyRule, ...] = Field(default=(), description="For generated text.")
    choices: tuple[ChoiceRule, ...] = Field(default=(), description="For judgements.")
    failures: tuple[FailureRule, ...] = Field(default=(), description="Requests that fail.")


class ScriptedOptions(Frozen):
    """Options of the scripted backend."""

    latency: float = Field(default=0.0, ge=0.0, le=60.0, description="Mean seconds before an answer.")
    jitter: float = Field(default=0.0, ge=0.0, le=1.0, description="Share of the latency that varies by request.")


class ScriptedBackend:
    """The model ``scripted:demo``, or ``scripted:PATH`` with a script in YAML."""

    capabilities = Capabilities(logprobs=True, seeds=True, adapters=True)

    def __init__(self, model: str, options: ScriptedOptions) -> None:
        self._options = options
        self._adapters: dict[str, ScriptedAdapter | None] = {}
        if model == _BUILT_IN:
            self._script = Script()
        elif Path(model).is_file():
            self._script = validate_document(read_document(Path(model)), Script)
        else:
            raise InfluenceError(
                f"There is no scripted model {model!r}.", hint="Use scripted:demo, or scripted:PATH of a YAML script."
            )

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return a drawn text of the first rule that fits, or one made of everyday words."""
        await self._answer_time(request.role, request.messages, request.seed)
        text = self._learnt(request) or self._written(request)
        prompt = sum(_count(message.content) for message in request.messages)
        usage = Usage(prompt_tokens=prompt, completion_tokens=_count(text), latency=self._options.latency)
        return Generation(text=text, usage=usage)

    def _written(self, request: GenerateRequest) -> str:
        last = request.messages[-1].content
        for rule in self._script.replies:
            if rule.role in (None, request.role) and rule.contains in last:
                return rule.texts[request.seed % len(rule.texts)]
        return _made_up(request, "" if self._adapter(request.adapter) else request.adapter or "")

    def _learnt(self, request: GenerateRequest) -> str | None:
        """Return a reply that the adapter has learnt, as often as it says one."""
        adapter = self._adapter(request.adapter)
        if adapter is None or not adapter.replies or unit_draw("learnt", request.seed) >= adapter.strength:
            return None
        point = unit_draw("reply", request.seed) * math.fsum(weight for _, weight in adapter.replies)
        for text, weight in adapter.replies:
            point -= weight
            if point < 0.0:
                return text
        return adapter.replies[-1][0]

    def _adapter(self, name: str | None) -> ScriptedAdapter | None:
        """Return what an adapter's folder holds; None for a name that is no folder of a scripted adapter."""
        if name is None:
            return None
        if name not in self._adapters:
            file = Path(name) / ADAPTER_FILE
            found = ScriptedAdapter.model_validate_json(file.read_bytes()) if file.is_file() else None
            self._adapters[name] = found
        return self._adapters[name]

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the weights of the first rule that fits, or a bump whose place the prompt's text determines."""
        await self._answer_time(request.role, request.messages, request.seed)
        prompt = "\n".join(message.content for message in request.messages)
        weights, mass = _bump(prompt, request.role, len(request.choices)), 1.0
        for rule in self._script.choices:
            if rule.fits(request.role, prompt):
                weights = [rule.weights.get(choice, 0.0) for choice in request.choices]
                mass = rule.mass
                break
        adapter = self._adapter(request.adapter)
        if adapter is not None:
            weights = [adapter.probability_of_beginning(choice) for choice in request.choices]
            mass = min(1.0, math.fsum(weights))
        total = math.fsum(weights)
        if total <= 0.0:
            raise CallFailedError("malformed", "The script gives no weight to any choice asked for.")
        usage = Usage(prompt_tokens=_count(prompt), completion_tokens=1, latency=self._options.latency)
        probabilities = tuple(weight / total for weight in weights)
        return Distribution(
            choices=request.choices, probabilities=probabilities, mass=mass, method="scripted", usage=usage
        )

    async def aclose(self) -> None:
        """Release nothing: there is nothing to release."""

    async def _answer_time(self, role: Role, messages: tuple[ChatMessage, ...], seed: int) -> None:
        """Wait as long as the options say, and fail if a rule says so."""
        if self._options.latency:
            spread = self._options.jitter * (2.0 * unit_draw("latency", seed) - 1.0)
            await asyncio.sleep(self._options.latency * (1.0 + spread))
        if not self._script.failures:
            return
        prompt = "\n".join(message.content for message in messages)
        for rule in self._script.failures:
            fits = rule.role in (None, role) and rule.contains in prompt
            if fits and unit_draw("failure", seed, prompt) < rule.share:
                raise CallFailedError(rule.kind, f"The script lets this call fail ({rule.kind}).")


def _last_reply(prompt: str) -> str:
    """Return the agent's last message in the transcript that a judge reads."""
    found = _REPLY.findall(prompt)
    return found[-1] if found else ""


def _made_up(request: GenerateRequest, adapter: str) -> str:
    length = max(request.sampling.min_tokens, min(request.sampling.max_tokens, 12 + request.seed % 30))
    start = derive_seed("words", request.seed, request.messages[-1].content, adapter) % len(_WORDS)
    words = [_WORDS[(start + 7 * i + i * i % 5) % len(_WORDS)] for i in range(length)]
    return f"{' '.join(words).capitalize()}."


def _bump(prompt: str, role: Role, count: int) -> list[float]:
    centre = unit_draw("centre", role, prompt) * (count - 1)
    if count == 2 and role in ("transition", "veto"):
        rare = 0.5 * unit_draw("rare", role, prompt) ** 2
        return [rare, 1.0 - rare] if role == "transition" else [1.0 - rare, rare]
    return [math.exp(-((index - centre) ** 2) / 2.0) for index in range(count)]


def _count(text: str) -> int:
    return len(_TOKENS.findall(text))
