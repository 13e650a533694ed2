"""What a server of vLLM is asked beside answers: its models, its adapters, and to sleep. This is not the hot path.

Invariant: whatever the server says instead of doing it becomes one ``CallFailedError``.
"""

from __future__ import annotations

import asyncio
import math
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import orjson

from influence_cli.api import CallFailedError, FailureKind
from influence_vllm.adapters import Identity, Probe
from influence_vllm.arguments import CHOICE_TOKENS

_SECONDS = 60.0
_LOAD_SECONDS = 600.0
PROBES = ("The weather today is", "I have decided that I will", "My honest opinion of your plan:")
_KINDS: dict[int, FailureKind] = {401: "auth", 403: "auth", 404: "not_found", 400: "invalid_request"}


class Administration:
    """One server by the address of its API (``http://.../v1``); ``model`` is the base model's name there."""

    def __init__(self, address: str, model: str, key: str | None = None) -> None:
        self.address = address
        self.model = model
        self.key = key
        local = urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        """Return the address, and nothing that is secret."""
        return f"Administration({self.address!r}, {self.model!r})"

    def models(self) -> dict[str, dict[str, Any]]:
        """Return what the server lists, by name."""
        listed = self._ask("/models")
        cards = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(cards, list):
            raise CallFailedError("malformed", f"{self.address} lists no models: it is no OpenAI-compatible server.")
        return {str(card["id"]): card for card in cards if isinstance(card, dict) and "id" in card}

    async def load_adapter(self, identity: Identity) -> None:
        """Have the server load an adapter from its folder, which must be at the same place for the server."""
        if identity.name in await asyncio.to_thread(self.models):
            return  # another of its clients loaded these weights
        body = {"lora_name": identity.name, "lora_path": str(identity.folder)}
        try:
            await asyncio.to_thread(self._ask, "/load_lora_adapter", body, seconds=_LOAD_SECONDS)
        except CallFailedError as error:
            if error.kind == "not_found" and "adapter" not in str(error).lower():
                said = (
                    "The server loads no adapters: start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
                )
                raise CallFailedError("invalid_request", said, attempts=0) from error
            said = f"The server cannot load the adapter {identity.folder}: {error}"
            raise CallFailedError(error.kind, said, attempts=0) from error

    async def unload_adapter(self, identity: Identity) -> None:
        """Have the server put an adapter out; one that it does not have is none."""
        try:
            await asyncio.to_thread(self._ask, "/unload_lora_adapter", {"lora_name": identity.name})
        except CallFailedError as error:
            if error.kind not in ("not_found", "connection"):
                raise

    async def probe(self, identity: Identity | None) -> Probe:
        """Return the log-probabilities of the likeliest tokens after some texts."""
        model = self.model if identity is None else identity.name
        found: dict[str, float] = {}
        for number, text in enumerate(PROBES):
            body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0.0, "logprobs": CHOICE_TOKENS}
            answer = await asyncio.to_thread(self._ask, "/completions", body)
            try:
                (tops,) = answer["choices"][0]["logprobs"]["top_logprobs"]
                found |= {f"{number}:{token}": float(value) for token, value in tops.items() if math.isfinite(value)}
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise CallFailedError("malformed", "The server shows no log-probabilities of a completion.") from error
        return found

    def sleep(self) -> None:
        """Have the server move the weights to main memory and forget keys and values."""
        self._ask("/sleep?level=1", {}, root=True, seconds=_LOAD_SECONDS)

    def wake(self) -> None:
        """Have the server move the weights back."""
        self._ask("/wake_up", {}, root=True, seconds=_LOAD_SECONDS)

    def _ask(self, path: str, body: Any = None, *, root: bool = False, seconds: float = _SECONDS) -> Any:
        address = self.address.removesuffix("/v1") if root else self.address
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(address + path, data=data, headers=headers)  # noqa: S310 - http or https by the options
        try:
            with self._opener.open(request, timeout=seconds) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error.code, error.read()) from None
        except TimeoutError as error:
            raise CallFailedError("timeout", f"{self.address} did not answer within {seconds:g} s.") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise CallFailedError("connection", f"{self.address} cannot be reached: {reason}.") from error
        try:
            return orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError:
            return raw.decode("utf-8", "replace")  # loading an adapter is answered with a sentence


def _refused(status: int, raw: bytes) -> CallFailedError:
    said = raw[:400].decode("utf-8", "replace")
    try:
        error = orjson.loads(raw)
        said = str(error.get("error", {}).get("message") or error.get("message") or error.get("detail") or said)
    except (orjson.JSONDecodeError, AttributeError):
        pass
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request")
    return CallFailedError(kind, f"{said[:400].rstrip('.')} (HTTP {status}).")
