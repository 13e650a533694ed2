"""The conformance suite for backends: what every one promises, as tests.

Subclass it where your tests are, and give it your backend::

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        async def backend(self):
            backend = MyBackend("model", MyOptions())
            yield backend
            await backend.aclose()

It needs ``pytest-asyncio`` in auto mode. A promise that the backend's capabilities do not make is skipped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from influence_cli.backends.protocol import Backend
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, Distribution, GenerateRequest, Sampling

_CLOSE = 1e-3
"""Batching may change the last digits of a probability."""
_LONGEST_TOKEN = 40
NO_SUCH_ADAPTER = "no-such-adapter-anywhere"


class BackendConformance:
    """Tests of one backend; override ``backend``, and the prompts if your model needs others."""

    texts: Sequence[str] = ("Hello, who are you?", "I slept badly again.", "What should I do tonight?", "Thank you.")
    question = "How kind was that?\nAnswer only with a whole number from 1 to 10."
    choices = tuple(str(number) for number in range(1, 11))

    @pytest.fixture
    def backend(self) -> Backend:
        """Return the backend under test."""
        raise NotImplementedError

    def generate_request(
        self, text: str = "Hello, who are you?", *, seed: int = 0, temperature: float = 1.0, max_tokens: int = 12
    ) -> GenerateRequest:
        """Return a request for a short text."""
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        return GenerateRequest(
            role="agent", messages=(ChatMessage(role="user", content=text),), sampling=sampling, seed=seed
        )

    def choice_request(self, choices: Sequence[str] | None = None, *, adapter: str | None = None) -> ChoiceRequest:
        """Return a closed question."""
        return ChoiceRequest(
            role="preference",
            messages=(ChatMessage(role="user", content=self.question),),
            choices=tuple(choices or self.choices),
            seed=1,
            adapter=adapter,
            draws=10,
        )

    def test_it_is_a_backend(self, backend: Backend) -> None:
        """It has everything that the protocol names."""
        assert isinstance(backend, Backend)

    async def test_generate_answers_and_says_what_it_took(self, backend: Backend) -> None:
        """An answer has text, and its usage counts at least one request."""
        answer = await backend.generate(self.generate_request())
        assert answer.text
        assert answer.usage.requests >= 1 or answer.usage.cached

    async def test_generate_obeys_max_tokens(self, backend: Backend) -> None:
        """No more tokens are made than allowed."""
        answer = await backend.generate(self.generate_request(max_tokens=3))
        assert answer.usage.completion_tokens <= 3
        assert len(answer.text) <= 3 * _LONGEST_TOKEN

    async def test_generate_at_temperature_zero_repeats_itself(self, backend: Backend) -> None:
        """The likeliest text does not depend on the seed."""
        if not backend.capabilities.seeds:
            pytest.skip("the backend does not promise to repeat itself")
        answers = [await backend.generate(self.generate_request(temperature=0.0, seed=seed)) for seed in (1, 2)]
        assert answers[0].text == answers[1].text

    async def test_the_same_seed_gives_the_same_answer(self, backend: Backend) -> None:
        """A request that is repeated is answered alike."""
        if not backend.capabilities.seeds:
            pytest.skip("the backend does not honour seeds")
        answers = [await backend.generate(self.generate_request(seed=7)) for _ in range(2)]
        assert answers[0].text == answers[1].text

    async def test_different_seeds_differ(self, backend: Backend) -> None:
        """At temperature 1, eight seeds do not all say the same."""
        if not backend.capabilities.seeds:
            pytest.skip("the backend does not honour seeds")
        answers = [await backend.generate(self.generate_request(seed=seed)) for seed in range(8)]
        assert len({answer.text for answer in answers}) > 1

    async def test_concurrent_answers_equal_sequential_ones(self, backend: Backend) -> None:
        """What else is in flight does not change an answer."""
        if not backend.capabilities.seeds:
            pytest.skip("the backend does not honour seeds")
        requests = [self.generate_request(text, seed=number) for number, text in enumerate(self.texts)]
        one_by_one = [(await backend.generate(request)).text for request in requests]
        together = await asyncio.gather(*(backend.generate(request) for request in requests))
        assert [answer.text for answer in together] == one_by_one

    async def test_choose_is_normalised(self, backend: Backend) -> None:
        """Probabilities sum to one over the choices asked, and their mass is at most one."""
        found = await backend.choose(self.choice_request())
        assert found.choices == self.choices
        assert math.isclose(math.fsum(found.probabilities), 1.0, abs_tol=1e-6)
        assert 0.0 < found.mass <= 1.0

    async def test_choose_says_how(self, backend: Backend) -> None:
        """The method is recorded, with the number of draws exactly where it sampled."""
        found = await backend.choose(self.choice_request())
        assert (found.method == "sampled") == (found.draws is not None)
        assert (found.method != "sampled") or not backend.capabilities.logprobs

    async def test_the_order_of_choices_does_not_matter(self, backend: Backend) -> None:
        """Listing the choices otherwise changes no probability."""
        forwards = await backend.choose(self.choice_request())
        if forwards.method == "sampled" and not backend.capabilities.seeds:
            pytest.skip("samples of a backend without seeds differ each time")
        backwards = await backend.choose(self.choice_request(self.choices[::-1]))
        _assert_alike(forwards, backwards)

    async def test_choose_concurrently_equals_sequentially(self, backend: Backend) -> None:
        """What else is in flight does not change a distribution."""
        alone = await backend.choose(self.choice_request())
        if alone.method == "sampled" and not backend.capabilities.seeds:
            pytest.skip("samples of a backend without seeds differ each time")
        others = [backend.generate(self.generate_request(text)) for text in self.texts]
        asked = asyncio.ensure_future(backend.choose(self.choice_request()))
        await asyncio.gather(asked, *others)
        _assert_alike(alone, asked.result())

    async def test_an_unknown_adapter_is_refused(self, backend: Backend) -> None:
        """Weights that are not there are an error, never ignored."""
        request = self.generate_request().model_copy(update={"adapter": NO_SUCH_ADAPTER})
        with pytest.raises((InfluenceError, CallFailedError)):
            await backend.generate(request)
        with pytest.raises((InfluenceError, CallFailedError)):
            await backend.choose(self.choice_request(adapter=NO_SUCH_ADAPTER))

    async def test_cancelling_leaves_it_usable(self, backend: Backend) -> None:
        """Requests that are abandoned harm no later one."""
        requests = [self.generate_request(text, max_tokens=64) for text in self.texts]
        tasks = [asyncio.ensure_future(backend.generate(request)) for request in requests]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await backend.generate(self.generate_request())).text

    async def test_closing_twice_does_nothing(self, backend: Backend) -> None:
        """``aclose`` may be called again."""
        await backend.generate(self.generate_request())
        await backend.aclose()
        await backend.aclose()


def _assert_alike(one: Distribution, other: Distribution) -> None:
    assert abs(one.mass - other.mass) < _CLOSE
    for choice in one.choices:
        assert abs(one.probability(choice) - other.probability(choice)) < _CLOSE, choice
