"""One address, asked over connections that stay open: the hot path.

A session belongs to the event loop that runs when it is first needed, and is made anew for another loop. Nothing here
retries or limits.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import socket
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from influence_cli.api import CallFailedError
from influence_openai.failures import failure, redact
from influence_openai.options import OpenAIOptions

_IDLE_SECONDS = 4.5
"""Connections idle for longer are not used again: common servers close them after five."""
_LARGE_BODY = 2**20
_log = logging.getLogger(__name__)
_CHUNK = 2**16


class ChatClient:
    """Posts to ``/chat/completions`` of one server. It keeps the key to itself."""

    def __init__(self, options: OpenAIOptions) -> None:
        self._options = options
        self._key = options.read_key()
        self._url = URL(f"{options.base_url}/chat/completions")
        self._timeout = aiohttp.ClientTimeout(total=options.timeout)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._answers: bool | None = None
        """Whether the server answered the last time it was asked; None before it ever did."""

    def __repr__(self) -> str:
        """Return the address, and nothing that is secret."""
        return f"ChatClient({str(self._url)!r})"

    async def post(self, body: bytes) -> dict[str, Any]:
        """Return the server's answer to the JSON ``body``; CallFailedError for anything but a JSON object."""
        session = self._open_session()
        data: Any = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        try:
            async with session.post(self._url, data=data, allow_redirects=False) as response:
                self._answers = True
                raw = await self._read(response)
                if response.status != 200:
                    raise failure(response.status, response.headers, raw, key=self._key, env=self._options.api_key_env)
        except TimeoutError as error:
            raise CallFailedError("timeout", f"No answer within {self._options.timeout:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unconnected(error) from error
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise CallFailedError("malformed", f"The answer is no JSON: {error}.") from error
        if not isinstance(answer, dict):
            raise CallFailedError("malformed", "The answer is no JSON object.")
        return answer

    def _unconnected(self, error: Exception) -> CallFailedError:
        """Return the failure; ``away`` if nothing was sent to a server that has answered before, which is told once."""
        said = redact(str(error), self._key) or type(error).__name__
        told = f"The connection failed: {said}"
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
            told = f"The connection failed: nothing listens at {self._options.base_url} (connection refused)."
        failed = CallFailedError("connection", told)
        if isinstance(error, aiohttp.ClientConnectorError) and self._answers is not None:
            failed.away = True
            if self._answers and self._options.outage > 0.0:
                _log.warning("%s is away; calls wait for it, for %g s at most.", self._url.host, self._options.outage)
            self._answers = False
        return failed

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail, and so do later ones."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop:
            return self._session
        if self._closed:
            raise CallFailedError("internal", "The backend was closed.", attempts=0)
        self._loop = loop
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._options.max_concurrency, keepalive_timeout=_IDLE_SECONDS, socket_factory=_kept_alive
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers(),
            skip_auto_headers=("User-Agent",),
            timeout=self._timeout,
            proxy=_proxy(self._options.base_url),
        )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "influence-cli",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if self._options.organisation:
            headers["OpenAI-Organization"] = self._options.organisation
        if self._options.project:
            headers["OpenAI-Project"] = self._options.project
        return headers

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body; CallFailedError ``too_long`` as soon as it is longer than allowed."""
        most = self._options.max_response_bytes
        length = response.content_length
        if length is not None and length <= most and "Content-Encoding" not in response.headers:
            return await response.read()
        chunks: list[bytes] = []
        size = 0
        if length is None or length <= most:
            async for chunk in response.content.iter_chunked(_CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > most:
                    break
            else:
                return b"".join(chunks)
        response.close()
        raise CallFailedError("too_long", f"The answer is longer than {most} bytes.")


def _kept_alive(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for this address; loopback never has one."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
