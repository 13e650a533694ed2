"""The test server's door: it can be shut for a while, so that the server is away and comes back as it was."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web


class Door:
    """Where the test server listens. While it is shut, connections are refused and those that were open are cut."""

    def __init__(self, app: web.Application, port: int) -> None:
        app.router.add_post("/outage", self._asked)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        self._site: web.TCPSite | None = None
        self._shut: asyncio.Task[None] | None = None
        self.port = port

    async def open(self) -> None:
        """Listen; on the same port as before, if there was one."""
        if self._runner.server is None:
            await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def shut(self, seconds: float) -> None:
        """Refuse every connection for ``seconds``; what was being answered is lost."""
        assert self._site is not None
        assert self._runner.server is not None
        await self._site.stop()
        for connection in [*self._runner.server.connections]:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(seconds)
        await self.open()

    async def close(self) -> None:
        """Listen no more."""
        if self._shut is not None:
            self._shut.cancel()
        await self._runner.cleanup()

    async def _asked(self, request: web.Request) -> web.Response:
        body: Any = orjson.loads(await request.read())
        seconds = float(body["seconds"])

        async def soon() -> None:
            await asyncio.sleep(0.05)  # this answer is to be read first
            await self.shut(seconds)

        self._shut = asyncio.create_task(soon())
        return web.Response(body=b"{}", content_type="application/json")
