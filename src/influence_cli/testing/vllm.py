"""What the test server has beyond OpenAI's API when it stands for a server of vLLM: health, adapters, completions, sleep.

GET  /health
POST /v1/load_lora_adapter         {"lora_name": ..., "lora_path": a folder with adapter_config.json}
POST /v1/unload_lora_adapter       {"lora_name": ...}
POST /v1/completions               one token with its log-probabilities, another for each adapter
POST /sleep, /wake_up
POST /die                          ends the process at once, as a crash does
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Protocol

import orjson
from aiohttp import web

from influence_cli.seeding import derive_seed, unit_draw
from influence_cli.testing.server_config import ServerConfig

_TOKENS = 20
_EXIT_CODE = 70


class Owner(Protocol):
    """The server whose configuration this reads and changes."""

    config: ServerConfig

    def refused(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without the key that is required; None for one with it."""
        ...


class VllmDesk:
    """The adapters that were loaded, and whether the server sleeps."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.reset()

    def reset(self) -> None:
        """Have no adapters and be awake."""
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.asleep = False

    def add_to(self, app: web.Application) -> None:
        """Serve the routes."""
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/sleep", self._sleep)
        app.router.add_post("/wake_up", self._wake)
        app.router.add_post("/die", self._die)
        app.router.add_get("/adapters", self._adapters)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _adapters(self, _: web.Request) -> web.Response:
        return _json({"loads": self.loads, "unloads": self.unloads, "asleep": self.asleep})

    async def _load(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name, path = str(body.get("lora_name", "")), Path(str(body.get("lora_path", "")))
        refused = self._owner.refused(request)
        if refused is not None:
            return refused
        if name in self._owner.config.models:
            return _error(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if not (path / "adapter_config.json").is_file():
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
        self._name((*self._owner.config.models, name))
        self.loads.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = str((await _body(request)).get("lora_name", ""))
        refused = self._owner.refused(request)
        if refused is not None:
            return refused
        if name not in self._owner.config.models:
            return _error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self._name(tuple(each for each in self._owner.config.models if each != name))
        self.unloads.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: web.Request) -> web.Response:
        body = await _body(request)
        refused = self._owner.refused(request)
        if refused is not None:
            return refused
        config, model = self._owner.config, str(body.get("model"))
        if model not in config.models:
            return _error(404, f"The model `{model}` does not exist.", "NotFoundError")
        speaker = config.models[0] if config.inert_adapters else model
        weights = [unit_draw(derive_seed(config.seed, speaker, str(body.get("prompt"))), n) for n in range(_TOKENS)]
        total = math.fsum(weights)
        top = {f" word{number}": math.log(weight / total) for number, weight in enumerate(weights)}
        logprobs = {"tokens": [" word0"], "token_logprobs": [top[" word0"]], "top_logprobs": [top]}
        choice = {"index": 0, "text": " word0", "logprobs": logprobs, "finish_reason": "length"}
        return _json({"id": "cmpl", "object": "text_completion", "model": model, "choices": [choice]})

    async def _sleep(self, _: web.Request) -> web.Response:
        self.asleep = True
        return _json({"status": "sleeping"})

    async def _wake(self, _: web.Request) -> web.Response:
        self.asleep = False
        return _json({"status": "awake"})

    async def _die(self, _: web.Request) -> web.Response:
        os._exit(_EXIT_CODE)

    def _name(self, models: tuple[str, ...]) -> None:
        self._owner.config = self._owner.config.model_copy(update={"models": models})


async def _body(request: web.Request) -> dict[str, Any]:
    body = orjson.loads(await request.read() or b"{}")
    return body if isinstance(body, dict) else {}


def _json(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")


def _error(status: int, message: str, kind: str) -> web.Response:
    error = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.Response(status=status, body=orjson.dumps(error), content_type="application/json")
