"""A deterministic OpenAI-compatible server for tests, which can also misbehave.

It listens on loopback only, runs in a process of its own (``python -m influence_cli.testing.server --port 0``; or
:func:`serve` from a test), and ends by itself after ``--max-seconds`` or with whoever started it.

    POST /v1/chat/completions    GET /v1/models    and those of fine-tuning: influence_cli.testing.finetuning
    GET /stats                   counters, and what is in flight now
    GET /bodies                  {SHA-256 of a request in canonical JSON: how often it was answered for money}
    /v1/files, /v1/batches       see :mod:`influence_cli.testing.batches`
    /health, adapters, sleep     as of vLLM: see :mod:`influence_cli.testing.vllm`
    POST /reset                  zero the counters, begin the script again
    POST /outage                 be away for so many seconds; the body is {"seconds": 1.5}
    POST /configure              change fields of ServerConfig; the body is a JSON object of them
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from influence_cli.seeding import unit_draw
from influence_cli.testing.batches import BatchDesk
from influence_cli.testing.completions import PrefixCache, complete
from influence_cli.testing.door import Door
from influence_cli.testing.finetuning import FineTuning
from influence_cli.testing.server_config import FAULTS, Fault, ServerConfig
from influence_cli.testing.serving import TestServer, serve
from influence_cli.testing.vllm import VllmDesk

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["ChatServer", "ServerConfig", "TestServer", "main", "serve"]

_MOST_BODY = 64 * 2**20
_STATUS: dict[Fault, tuple[int, str, str]] = {
    "rate_limit": (429, "Rate limit reached for requests.", "rate_limit_exceeded"),
    "server_error": (500, "The server had an error while processing your request.", "server_error"),
    "context_overflow": (400, "This model's maximum context length is 8 tokens.", "context_length_exceeded"),
    "auth": (401, "Incorrect API key provided: {key}.", "invalid_api_key"),
    "not_found": (404, "The model does not exist.", "model_not_found"),
    "quota": (429, "You exceeded your current quota.", "insufficient_quota"),
}


class Refusal(Exception):  # noqa: N818 - an answer like any other, to the test server
    """An HTTP answer other than 200."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class ChatServer:
    """The state of the server: its configuration and its counters."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.in_flight = 0
        self._slots: asyncio.Semaphore | None = None
        self._desk = BatchDesk(self, self._answer_batched)
        self._vllm = VllmDesk(self)
        self.tuning = FineTuning(self._desk, lambda: self.config, self._serve)
        self.reset()

    def reset(self) -> None:
        """Zero the counters and begin the script again."""
        self.arrivals = 0
        self.peak_in_flight = self.in_flight
        self.tokens = Counter[str]()
        self.statuses = Counter[int]()
        self.injected = Counter[str]()
        self.bodies = Counter[str]()
        self._cache = PrefixCache()
        self._desk.reset()
        self._vllm.reset()
        self._slots = asyncio.Semaphore(self.config.slots) if self.config.slots else None

    def configure(self, config: ServerConfig) -> None:
        """Behave by ``config`` from the next request on; a changed script begins anew."""
        if config.slots != self.config.slots:
            self._slots = asyncio.Semaphore(config.slots) if config.slots else None
        if config.script != self.config.script:
            self.arrivals = 0
        self.config = config

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=_MOST_BODY)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._desk.add_to(app)
        self._vllm.add_to(app)
        self.tuning.add_routes(app, self._checked)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/bodies", lambda _: _answer(dict(self.bodies)))
        app.router.add_post("/reset", self._reset)
        app.router.add_post("/configure", self._configure)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        refused = self.refused(request)
        if refused is not None:
            return refused
        card = {"object": "model", "created": 0, "owned_by": "test", "max_model_len": self.config.context_length}
        data = [{"id": name, **card} for name in self.config.models]
        return await _answer({"object": "list", "data": data})

    def _checked(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._check_key(request)
            except Refusal as refusal:
                return _refused(refusal)
            return await handler(request)

        return handle

    def _serve(self, model: str) -> None:
        self.config = self.config.model_copy(update={"models": (*self.config.models, model)})

    async def _stats(self, _: web.Request) -> web.Response:
        statuses = {str(status): count for status, count in self.statuses.items()}
        return await _answer(
            {
                "requests": self.arrivals,
                "in_flight": self.in_flight,
                "peak_in_flight": self.peak_in_flight,
                "statuses": statuses,
                "injected": self.injected,
                "files": len(self._desk.files),
                "batches": len(self._desk.batches),
                "repeated": sum(count - 1 for count in self.bodies.values()),
                **self.tokens,
            }
        )

    async def _reset(self, _: web.Request) -> web.Response:
        self.reset()
        return await _answer({})

    async def _configure(self, request: web.Request) -> web.Response:
        try:
            changes = orjson.loads(await request.read())
            self.configure(ServerConfig.model_validate(self.config.model_dump() | changes))
        except (orjson.JSONDecodeError, TypeError, ValidationError) as error:
            return _refused(Refusal(400, str(error), "invalid_configuration"))
        return await _answer({})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        number = self.arrivals
        self.arrivals += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            raw = await request.read()
            response = await self._respond(request, raw, self._fault(number))
        except Refusal as refusal:
            response = _refused(refusal, self.config.retry_after)
        finally:
            self.in_flight -= 1
        self.statuses[response.status] += 1
        return response

    async def _answer_batched(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body of the answer to one request of a batch."""
        number = self.arrivals
        self.arrivals += 1
        fault = self._fault(number)
        try:
            if fault in _STATUS:
                self.injected[fault] += 1
                status, message, code = _STATUS[fault]
                raise Refusal(status, message, code)
            self._check_body(orjson.dumps(body))
            self.bodies[sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()] += 1
            return 200, self._complete(body)
        except Refusal as refusal:
            return refusal.status, orjson.loads(_refused(refusal).body)  # type: ignore[arg-type]

    def _fault(self, number: int) -> Fault | None:
        if number < len(self.config.script):
            scripted = self.config.script[number]
            return None if scripted == "ok" else scripted
        point = unit_draw(self.config.seed, "fault", number)
        for fault in FAULTS:
            share = self.config.faults.get(fault, 0.0)
            if point < share:
                return fault
            point -= share
        return None

    async def _respond(self, request: web.Request, raw: bytes, fault: Fault | None) -> web.StreamResponse:
        if fault:
            self.injected[fault] += 1
        if fault in _STATUS:
            status, message, code = _STATUS[fault]
            raise Refusal(status, message.format(key=_bearer(request)), code)
        if fault == "drop" and request.transport is not None:
            request.transport.abort()
            return web.Response(status=499)
        self._check_key(request)
        body = self._check_body(raw)
        self.bodies[sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()] += 1
        answer = self._complete(body)
        await self._wait(raw, answer["usage"]["completion_tokens"], fault)
        if fault == "malformed":
            return web.Response(body=orjson.dumps(answer)[:-20], content_type="application/json")
        if fault == "wrong_shape":
            return await _answer({"id": "x", "choices": [{"index": 0}]})
        if fault == "long":
            return web.Response(body=b'{"x":"' + b"x" * self.config.long_bytes + b'"}', content_type="application/json")
        for choice in answer["choices"] if fault in ("empty", "filtered") else ():
            choice["message"] = {"role": "assistant", "content": ""}
            choice["finish_reason"] = "content_filter" if fault == "filtered" else "stop"
            if choice["logprobs"]:
                choice["logprobs"] = {"content": []}
        if not self.config.reports_usage:
            del answer["usage"]
        return await _answer(answer)

    def refused(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without the key that is required; None for one with it."""
        try:
            self._check_key(request)
        except Refusal as refusal:
            return _refused(refusal)
        return None

    def _check_key(self, request: web.Request) -> None:
        if self.config.api_key is not None and _bearer(request) != self.config.api_key:
            status, message, code = _STATUS["auth"]
            raise Refusal(status, message.format(key=_bearer(request)), code)

    def _check_body(self, raw: bytes) -> dict[str, Any]:
        """Return the request; Refusal if the server does not take it."""
        try:
            body: Any = orjson.loads(raw)
            messages = body["messages"]
            words = sum(len(str(message["content"]).split()) for message in messages)
            model = body["model"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            raise Refusal(400, "The request is no chat completion.", "invalid_request_error") from None
        config = self.config
        if model not in config.models:
            raise Refusal(404, f"The model `{model}` does not exist.", "model_not_found", "model")
        for name in config.refuses:
            if name in body:
                raise Refusal(400, f"Unsupported parameter: '{name}' is not supported.", "unsupported_parameter", name)
        top = body.get("top_logprobs") or 0
        if top > config.max_top_logprobs:
            said = f"Invalid value for 'top_logprobs': must be less than or equal to {config.max_top_logprobs}."
            raise Refusal(400, said, "integer_above_max_value", "top_logprobs")
        if config.context_length is not None and words > config.context_length:
            said = f"This model's maximum context length is {config.context_length} tokens; the prompt has {words}."
            raise Refusal(400, said, "context_length_exceeded", "messages")
        assert isinstance(body, dict)
        return body

    async def _wait(self, raw: bytes, tokens: int, fault: Fault | None) -> None:
        config = self.config
        seconds = config.latency + config.token_latency * tokens
        seconds *= 1.0 + config.spread * (2.0 * unit_draw(config.seed, sha256(raw).hexdigest()) - 1.0)
        if fault == "slow":
            seconds += config.slow_seconds
        if self._slots is not None:
            async with self._slots:
                await asyncio.sleep(seconds)
        elif seconds > 0.0:
            await asyncio.sleep(seconds)

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer's body, and count its tokens."""
        answer = complete(self.config, body, self._cache)
        usage = answer["usage"]
        self.tokens.update(
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        )
        return answer


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


async def _answer(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")


def _refused(refusal: Refusal, retry_after: float | None = None) -> web.Response:
    error = {"message": str(refusal), "type": "error", "param": refusal.param, "code": refusal.code}
    headers = {"Retry-After": f"{retry_after:g}"} if refusal.status == 429 and retry_after is not None else {}
    body = orjson.dumps({"error": error})
    return web.Response(status=refusal.status, body=body, content_type="application/json", headers=headers)


async def _run(port: int, config: ServerConfig, max_seconds: float, *, with_stdin: bool) -> None:
    door = Door(ChatServer(config).app(), port)
    await door.open()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if with_stdin:
        threading.Thread(target=_until_closed, args=(loop, done), daemon=True).start()
    sys.stdout.write(orjson.dumps({"port": door.port}).decode() + "\n")
    sys.stdout.flush()
    try:
        await asyncio.wait_for(done.wait(), max_seconds)
    except TimeoutError:
        pass
    finally:
        await door.close()


def _until_closed(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    loop.call_soon_threadsafe(done.set)


def main() -> None:
    """Run the server until it is told to stop; the first line of output is ``{"port": ...}``."""
    parser = argparse.ArgumentParser(description="A deterministic OpenAI-compatible server for tests; loopback only.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--config", default="{}", help="JSON object with fields of ServerConfig")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop by itself after this long")
    parser.add_argument("--with-stdin", action="store_true", help="stop when standard input closes")
    arguments = parser.parse_args()
    config = ServerConfig.model_validate_json(arguments.config)
    asyncio.run(_run(arguments.port, config, arguments.max_seconds, with_stdin=arguments.with_stdin))


if __name__ == "__main__":
    main()
