"""Closed questions over an API: log-probabilities, a second look where choices share a beginning, samples.

The first look asks for the likeliest first tokens. A token that may still become several choices ("1" of 1 and 10) is
decided by the next position of the same answer, else by asking what follows it, else all choices are counted from
samples; the distribution says which.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from influence_cli.api import (
    CallFailedError,
    ChoiceReading,
    ChoiceRequest,
    Distribution,
    Position,
    chat_payload,
    count_answers,
    derive_seed,
    together,
)
from influence_openai.dialect import Dialect
from influence_openai.wire import (
    Payload,
    Spent,
    base_payload,
    read_choices,
    read_positions,
    read_text,
)

if TYPE_CHECKING:
    from influence_openai.backend import OpenAIBackend

_FIRST_LOOK = 4
"""Tokens of the first answers, until it is known whether one is enough."""
_MOST_LOOKS = 6
_END_LOOKS = 20
_FEWER_END_LOOKS = 8
_FEWER_TOKENS = "The server shows fewer of the likeliest tokens than asked for: choices beyond them count as 0."
_ALL_SHOWN = 0.99
_FEWER_SAMPLES = "The server gives fewer samples than asked for"
_AMBIGUOUS_ABOVE = 0.02
"""More undecided probability than this is not accepted: samples are drawn instead."""
_MOST_AT_ONCE = 128
_MOST_REMEMBERED = 1000


class NoLogprobsError(Exception):
    """The server answered without log-probabilities."""


class Chooser:
    """Asks one backend's closed questions, and remembers what its tokenizer and server turned out to do."""

    def __init__(self, backend: OpenAIBackend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect
        # OpenAI's tokenizers keep up to three digits together
        self._whole = {str(number) for number in range(1000)} if backend.options.is_openai else set[str]()
        self._look_tokens: dict[tuple[str, ...], int] = {}

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the distribution and how it was got."""
        spent = Spent()
        try:
            if self._dialect.takes("logprobs"):
                distribution = await self._by_logprobs(request, spent)
                if distribution is not None:
                    return distribution
            return await self._by_samples(request, spent)
        except CallFailedError as error:
            error.attempts = spent.requests
            error.usage = spent.usage()
            raise

    def first_payload(self, request: ChoiceRequest) -> Payload:
        """Return the request of the first look, for a batch."""
        messages = [chat_payload(message) for message in request.messages]
        payload = self._payload(request, messages, self._first_look_tokens(request.choices), request.seed)
        return payload | {"logprobs": True, "top_logprobs": self._dialect.top_logprobs}

    def read_first(self, choices: tuple[str, ...], answer: Payload) -> Distribution:
        """Return the distribution that a first look alone gives; CallFailedError ``unusable`` where it decides too little."""
        spent = Spent()
        spent.requests = 1
        spent.add(answer, 0)
        positions = read_positions(read_choices(answer)[0])
        if not positions:
            raise CallFailedError("unusable", "The answer shows no log-probabilities.")
        reading = ChoiceReading(choices, whole=self._whole)
        reading.look(positions)
        self._whole |= reading.whole
        if reading.ambiguous > _AMBIGUOUS_ABOVE:
            said = "Answers that begin alike cannot be told apart without a second look; ask this one without --batch."
            raise CallFailedError("unusable", said)
        return reading.distribution(spent.usage())

    async def _by_logprobs(self, request: ChoiceRequest, spent: Spent) -> Distribution | None:
        """Return the distribution; None where log-probabilities are missing or leave too much open."""
        reading = ChoiceReading(request.choices, whole=self._whole)
        tokens = self._look_tokens.get(request.choices) or self._first_look_tokens(request.choices)
        try:
            (positions,) = await self._look(request, spent, tokens, "")
            prompt_tokens = spent.prompt
            self._note_what_is_hidden(positions[0])
            reading.look(positions)
            self._remember(request.choices, reading, tokens)
            await self._look_further(request, spent, reading, prompt_tokens)
        except NoLogprobsError:
            self._dialect.leave_out("logprobs", "The server gives no log-probabilities")
            return None
        if reading.ambiguous > _AMBIGUOUS_ABOVE:
            return None
        return reading.distribution(spent.usage())

    def _note_what_is_hidden(self, first: Position) -> None:
        """Say so where a server shows fewer tokens than asked for, and not all of the probability."""
        if len(first.top) < self._dialect.top_logprobs and sum(math.exp(p) for _, p in first.top) < _ALL_SHOWN:
            self._dialect.note(_FEWER_TOKENS)

    async def _look_further(
        self, request: ChoiceRequest, spent: Spent, reading: ChoiceReading, prompt_tokens: int
    ) -> None:
        """Decide beginnings by asking what follows them, where the server can continue an answer."""
        asked: set[str] = set()
        while self._dialect.prefix != "no" and len(asked) < _MOST_LOOKS:
            prefix = next((text for text in reading.undecided() if text not in asked), None)
            if prefix is None:
                return
            asked.add(prefix)
            before = spent.prompt
            try:
                (positions,) = await self._look(request, spent, 1, prefix)
            except CallFailedError as error:
                if error.kind != "invalid_request":
                    raise
                self._dialect.leave_out("continue_final_message", "The server does not continue a begun answer")
                return
            continued = 0 if spent.estimated else spent.prompt - before
            if self._dialect.prefix == "unproven" and not self._proved(prefix, prompt_tokens, continued):
                return
            if not positions:
                positions = await self._look_past_the_end(request, spent, prefix)
            if positions:
                reading.look(positions, prefix)
            else:
                reading.ends(prefix)

    async def _look_past_the_end(self, request: ChoiceRequest, spent: Spent, prefix: str) -> list[Position]:
        """Return what may follow ``prefix`` where a look met the end of the answer, of which some servers show nothing.

        Asks several times over: one draw that goes on shows all probabilities. If all end, hardly anything follows.
        """
        looks: list[list[Position]] = []
        if self._dialect.takes("n"):
            looks = await self._look(request, spent, 1, prefix, count=_END_LOOKS)
            if len(looks) < _END_LOOKS:
                self._dialect.leave_out("n", _FEWER_SAMPLES)
        if len(looks) < _END_LOOKS:
            parts = [Spent() for _ in range(_FEWER_END_LOOKS)]
            seeds = [derive_seed(request.seed, "end", number) for number in range(_FEWER_END_LOOKS)]
            asked = [
                self._look(request.model_copy(update={"seed": seed}), part, 1, prefix)
                for seed, part in zip(seeds, parts, strict=True)
            ]
            try:
                looks += [positions for found in await together(asked) for positions in found]
            finally:
                spent.add_parallel(parts)
        return next((positions for positions in looks if positions), [])

    def _proved(self, prefix: str, plain: int, continued: int) -> bool:
        """Return whether the server really continued ``prefix``, and remember it.

        A server that ignores the wish closes the begun message and opens another, which makes the prompt longer by more
        than the tokens of ``prefix``.
        """
        if not plain or not continued:
            why = "The server reports no prompt tokens, so that continuing a begun answer cannot be checked"
        elif continued - plain <= max(1, len(prefix.strip()) // 2):
            self._dialect.prefix = "yes"
            return True
        else:
            why = "The server begins a new message instead of continuing the begun one"
        self._dialect.leave_out("continue_final_message", why)
        return False

    async def _look(
        self, request: ChoiceRequest, spent: Spent, tokens: int, prefix: str, count: int = 1
    ) -> list[list[Position]]:
        """Return the positions of up to ``count`` answers of at most ``tokens`` tokens that continue ``prefix``."""

        def build(seed: int) -> Payload:
            dialect = self._dialect
            messages = [chat_payload(message) for message in request.messages]
            if prefix:
                messages.append({"role": "assistant", "content": prefix})
            payload = self._payload(request, messages, tokens, seed)
            if dialect.takes("logprobs"):
                payload["logprobs"] = True
                payload["top_logprobs"] = dialect.top_logprobs
            if count > 1 and dialect.takes("n"):
                payload["n"] = count
            if prefix and dialect.takes("continue_final_message"):
                payload["continue_final_message"] = True
                payload["add_generation_prompt"] = False
            return payload

        def read(answer: Payload) -> list[list[Position]]:
            choices = read_choices(answer)[:count]
            return [read_one(choice) for choice in choices]

        def read_one(choice: Payload) -> list[Position]:
            text = read_text(choice)
            positions = read_positions(choice)
            if positions is None:
                raise NoLogprobsError
            if not positions and not prefix:
                if choice.get("finish_reason") == "content_filter":
                    raise CallFailedError("refused", "The server's content filter withheld the answer.")
                raise CallFailedError("empty", f"The model answered with nothing to read ({text[:20]!r}).")
            return positions

        return await self._backend.ask(build, read, spent=spent, seed=request.seed, expected=tokens * count)

    def _payload(self, request: ChoiceRequest, messages: list[Payload], tokens: int, seed: int) -> Payload:
        # at temperature 1 the probabilities are the model's own, whether a server shows them before or after scaling
        model = request.adapter or self._backend.model
        return base_payload(model, messages, self._dialect, max_tokens=tokens, temperature=1.0, seed=seed)

    def _first_look_tokens(self, choices: tuple[str, ...]) -> int:
        beginnings = {choice[:1].casefold() for choice in choices}
        return 1 if len(beginnings) == len(choices) else _FIRST_LOOK

    def _remember(self, choices: tuple[str, ...], reading: ChoiceReading, tokens: int) -> None:
        self._whole |= reading.whole
        if len(self._look_tokens) < _MOST_REMEMBERED:
            self._look_tokens[choices] = _FIRST_LOOK if reading.needed_more else min(tokens, 1)

    async def _by_samples(self, request: ChoiceRequest, spent: Spent) -> Distribution:
        draws = request.draws or self._backend.options.draws
        answers: list[str] = []
        while (count := min(draws - len(answers), _MOST_AT_ONCE)) > 1 and self._dialect.takes("n"):
            drawn = await self._draw(request, spent, len(answers), count)
            answers += drawn[:count]
            if len(drawn) < count:
                self._dialect.leave_out("n", _FEWER_SAMPLES)
        if len(answers) < draws:
            parts = [Spent() for _ in range(len(answers), draws)]
            singles = [self._draw(request, part, len(answers) + i, 1) for i, part in enumerate(parts)]
            try:
                more = await together(singles)
            finally:
                spent.add_parallel(parts)
            answers += [answer for drawn in more for answer in drawn[:1]]
        return count_answers(request.choices, answers, spent.usage())

    async def _draw(self, request: ChoiceRequest, spent: Spent, number: int, count: int) -> list[str]:
        """Return ``count`` answers, or fewer where the server gives fewer; the draws begin with ``number``."""
        longest = max(len(choice) for choice in request.choices)
        messages = [chat_payload(message) for message in request.messages]

        def build(seed: int) -> Payload:
            payload = self._payload(request, messages, max(8, longest), seed)
            if count > 1 and self._dialect.takes("n"):
                payload["n"] = count
            return payload

        seed = derive_seed(request.seed, "draw", number)
        return await self._backend.ask(
            build,
            lambda answer: [read_text(choice) for choice in read_choices(answer)],
            spent=spent,
            seed=seed,
            expected=count * max(8, longest),
        )
