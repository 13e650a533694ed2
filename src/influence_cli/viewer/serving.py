"""The viewer in a browser: textual-serve behind :mod:`influence_cli.viewer.access`, one process of the viewer a page."""

from __future__ import annotations

import asyncio
import ipaddress
import shlex
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server, to_int

from influence_cli.errors import InfluenceError
from influence_cli.viewer.access import Access
from influence_cli.viewer.pages import Page

_PAGES = Path(__file__).parent / "web"
_HEARTBEAT = 15.0
"""Seconds between two questions whether the browser is still there."""


class ViewerServer(Server):
    """Serves one command of the viewer to whoever has the address."""

    def __init__(self, command: Sequence[str], host: str, port: int, told: Callable[[str], None]) -> None:
        netloc = f"{f'[{host}]' if ':' in host else host}:{port}"
        super().__init__(
            shlex.join(command),
            host=host,
            port=port,
            title="influence",
            public_url=f"http://{netloc}",
            templates_path=_PAGES,
        )
        self.access = Access(netloc)
        self._told = told
        self._pages: set[Page] = set()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self.access.middleware())
        app.router.add_get("/viewer.css", _style)
        app.on_response_prepare.append(self.access.add_headers)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the address is told once the server listens."""

    async def on_shutdown(self, _app: web.Application) -> None:
        """End every page's process: none outlives the server."""
        await asyncio.gather(*(page.stop() for page in self._pages))

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run a process for the page until either goes."""
        websocket = web.WebSocketResponse(heartbeat=_HEARTBEAT)
        await websocket.prepare(request)

        async def close() -> None:
            await websocket.close()

        page = Page(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=close,
            download_manager=self.download_manager,
        )
        self._pages.add(page)
        try:
            await page.start(to_int(request.query.get("width", ""), 80), to_int(request.query.get("height", ""), 24))
            await self._process_messages(websocket, page)
        finally:
            await page.stop()
            self._pages.discard(page)
            await close()
        return websocket

    def serve(self, debug: bool = False) -> None:  # noqa: ARG002 - textual-serve's signature
        """Serve until Ctrl-C. No request is logged, because the first one holds the token."""
        web.run_app(
            self._make_app(),
            host=self.host,
            port=self.port,
            access_log=None,
            print=lambda *_: self._told(self.access.address),
        )


async def _style(_request: web.Request) -> web.Response:
    return web.Response(text=(_PAGES / "viewer.css").read_text(encoding="utf-8"), content_type="text/css")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """Return ``port``, or a free one for 0; InfluenceError if it is taken or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise InfluenceError(
            f"{host}:{port} cannot be listened on: {error.strerror}.", hint="Name another: --port 0 finds a free one."
        ) from None


def serve(command: Sequence[str], host: str, port: int, told: Callable[[str], None]) -> None:
    """Serve the viewer that ``command`` starts until Ctrl-C; ``told`` hears the address, which works once."""
    ViewerServer(command, host, free_port(host, port), told).serve()
