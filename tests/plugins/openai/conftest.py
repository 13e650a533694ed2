"""A real server in another process, and backends that ask it."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling
from influence_cli.testing.server import ServerConfig, TestServer, serve
from influence_openai.backend import OpenAIBackend
from influence_openai.options import OpenAIOptions

RATINGS = tuple(str(number) for number in range(1, 11))
RATE = "How kind was that? Answer only with a whole number from 1 to 10."
MakeBackend = Callable[..., OpenAIBackend]


@pytest.fixture(scope="session")
def running_server() -> Iterator[TestServer]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> TestServer:
    """The server as it is by default, its counters at zero; no key in the environment."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    running_server.configure(**ServerConfig().model_dump(mode="json"))
    running_server.reset()
    return running_server


@pytest.fixture
async def make_backend(server: TestServer) -> AsyncIterator[MakeBackend]:
    """Backends for the server, quick to retry; closed after the test."""
    made: list[OpenAIBackend] = []

    def make(model: str = "test-model", **options: object) -> OpenAIBackend:
        settings = {"base_url": server.base_url, "retry_delay": 0.001, "max_retry_delay": 0.01} | options
        made.append(OpenAIBackend(model, OpenAIOptions.model_validate(settings)))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
def say() -> Callable[..., GenerateRequest]:
    """Requests for a text: ``say("Hello.", seed=1, max_tokens=3)``."""

    def request(text: str = "Hello there.", *, seed: int = 0, **sampling: object) -> GenerateRequest:
        settings = Sampling.model_validate({"max_tokens": 20} | sampling)
        message = ChatMessage(role="user", content=text)
        return GenerateRequest(role="agent", messages=(message,), sampling=settings, seed=seed)

    return request


@pytest.fixture
def ask() -> Callable[..., ChoiceRequest]:
    """Closed questions; the rating from 1 to 10 by default."""

    def request(
        question: str = RATE, choices: tuple[str, ...] = RATINGS, *, seed: int = 0, draws: int | None = None
    ) -> ChoiceRequest:
        message = ChatMessage(role="user", content=question)
        return ChoiceRequest(role="preference", messages=(message,), choices=choices, seed=seed, draws=draws)

    return request
