"""A server of vLLM: one that we start and stop, or one that runs already.

Concept: answers come from the backend ``openai``, which has the lean client, its retries and limits; this adds what a
server of vLLM can beyond that: adapters loaded over its API, restarts, sleep. An adapter is served under a name made of
its weights' digest, so that the weights that answer are those that were asked for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from influence_cli.api import (
    Backend,
    CallFailedError,
    ChoiceRequest,
    GenerateRequest,
    InfluenceError,
    open_backend,
)
from influence_vllm.adapters import Adapters
from influence_vllm.administration import Administration
from influence_vllm.arguments import engine_arguments, model_source, serve_command, serve_environment, serves_processor
from influence_vllm.options import START, VllmOptions
from influence_vllm.supervision import Server, free_port

Request = TypeVar("Request", GenerateRequest, ChoiceRequest)
Answer = TypeVar("Answer")

_PORTS = 3
"""Free ports that are tried: another program may take one before the server does."""
_TAKEN = b"address already in use"
_ATTEMPTS = 3
"""Requests for one answer of a server of our own: it has no limits to wait for, and its death is our business."""
_OUR_KEY = "INFLUENCE_VLLM_KEY"
_INTERRUPTED = frozenset({"connection", "timeout", "not_found", "server_error"})
"""What a call may end with while the server is started again."""
_NEUTRAL = {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1}
"""A server may have the model's own sampling defaults; ours are said with every request."""


class ServedModel:
    """A model on a server, shared by all who ask it; ``server`` is None where it is not ours to stop."""

    def __init__(self, model: str, options: VllmOptions) -> None:
        self.options = options
        self.server: Server | None = None
        key: str | None
        if options.address is None:
            self.server, key = start_server(model, options)
            address = f"{self.server.address}/v1"
        else:
            address, key = options.address, os.environ.get(options.api_key_env)
        self.administration = Administration(address, model, key)
        self._generation = self.server.generation if self.server else 0
        try:
            self.context = self._context_length(model)
            self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def sleeps(self) -> bool:
        """Whether it sleeps when nobody uses it."""
        return self.options.between == "sleep"

    def sleep(self) -> None:
        """Have the server sleep."""
        self._tell(self.administration.sleep)

    def wake(self) -> None:
        """Have the server wake; it has no adapters of ours then."""
        self._tell(self.administration.wake)
        self._begin()

    def close(self) -> None:
        """Stop a server that we started; another goes on."""
        if self.server is not None:
            self.server.stop()

    async def leave(self) -> None:
        """Put out the adapters that we loaded and close the connections."""
        if self.options.address is not None or self.sleeps:
            await self.adapters.unload_all()
        await self.client.aclose()

    async def ask(self, request: Request, put: Callable[[Request], Awaitable[Answer]]) -> Answer:
        """Return the server's answer; a call that a restart interrupted is made again afterwards."""
        if request.adapter is not None and not self.options.adapters:
            raise InfluenceError("Adapters are switched off.", hint="Leave out -o adapters=false.")
        while True:
            generation = await self._ready()
            try:
                async with self.adapters.use(request.adapter) as identity:
                    name = identity.name if identity is not None else None
                    return await put(request.model_copy(update={"adapter": name}))
            except CallFailedError as error:
                if error.kind not in _INTERRUPTED or not await self._is_another(generation):
                    raise

    async def _ready(self) -> int:
        if self.server is None:
            return 0
        generation = await self.server.ready()
        if generation != self._generation:
            self._generation = generation
            self.adapters = self._no_adapters()
        return generation

    async def _is_another(self, generation: int) -> bool:
        """Return whether the server of ``generation`` is gone; one that hangs is made to go."""
        if self.server is None:
            return False
        if self.server.generation == generation and self.server.state == "ready":
            if await asyncio.to_thread(self.server.is_well):
                return False
            self.server.kill()
            await asyncio.to_thread(self.server.wait_for_end, generation)
        return True

    def _no_adapters(self) -> Adapters:
        rank = self.options.max_lora_rank if self.server is not None else None
        return Adapters(self.administration, self.options.max_loras, rank)

    def _begin(self) -> None:
        """Have a client with no connections yet, and no adapters."""
        self.adapters = self._no_adapters()
        with _key_in_environment(self.administration.key):
            self.client = self._client()

    def _client(self) -> Backend:
        options = {
            "base_url": self.administration.address,
            "api_key_env": _OUR_KEY,
            "adapters": self.options.adapters,
            "seeds": True,
            "context_length": self.context,
            "max_concurrency": self.options.max_concurrency,
            "timeout": self.options.timeout,
            "extra_body": _NEUTRAL,
        }
        if self.server is not None:
            options["max_attempts"] = _ATTEMPTS
        return open_backend("openai", self.administration.model, options)

    def _context_length(self, model: str) -> int | None:
        """Return the server's context length; InfluenceError where it does not answer or serve the model."""
        try:
            listed = self.administration.models()
        except CallFailedError as error:
            hint = f"Is the server running, the address right, and {self.options.api_key_env} its key?"
            raise InfluenceError(str(error), hint=hint) from None
        if model not in listed:
            raise InfluenceError(
                f"{self.administration.address} does not serve {model!r}.",
                hint=f"It serves {', '.join(sorted(listed))}.",
            )
        length = listed[model].get("max_model_len")
        return length if isinstance(length, int) else self.options.context_length

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except CallFailedError as error:
            hint = "It must be started with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1, on a GPU."
            raise InfluenceError(f"The server does not sleep or wake: {error}", hint=hint) from None


def start_server(model: str, options: VllmOptions) -> tuple[Server, str]:
    """Return a server of ``model`` that answers, and its key; InfluenceError if it does not start."""
    assert options.server == START
    key = secrets.token_urlsafe(32)
    log = Path(options.log or Path(tempfile.mkdtemp(prefix="influence-vllm-")) / "server.log").expanduser()
    for left in range(_PORTS, 0, -1):
        begins = log.stat().st_size if log.is_file() else 0
        server = _server(model, options, options.port or free_port(), key, log)
        try:
            server.start()
        except InfluenceError:
            if options.port or left == 1 or not log.is_file() or _TAKEN not in log.read_bytes()[begins:].lower():
                raise
        else:
            return server, key
    raise AssertionError("the last port raises")


def _server(model: str, options: VllmOptions, port: int, key: str, log: Path) -> Server:
    on_processor = serves_processor(options.python or sys.executable)
    return Server(
        serve_command(model, engine_arguments(model_source(model), options, on_processor=on_processor), options, port),
        port,
        log,
        environment=serve_environment(options, key),
        start_seconds=options.start_seconds,
        max_restarts=options.max_restarts,
    )


@contextmanager
def _key_in_environment(key: str | None) -> Iterator[None]:
    """Have the key where the client reads it, only while it does."""
    if key:
        os.environ[_OUR_KEY] = key
    try:
        yield
    finally:
        os.environ.pop(_OUR_KEY, None)
