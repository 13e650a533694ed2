"""The viewer in a browser: textual-serve behind :mod:`influence_cli.viewer.access`, one process of the viewer a page."""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from influence_cli.errors import InfluenceError
from influence_cli.viewer.access import Access

_PAGES = Path(__file__).parent / "web"


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

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self.access.middleware())
        app.router.add_get("/viewer.css", _style)
        app.on_response_prepare.append(self.access.add_headers)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the address is told once the server listens."""

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
