"""Who may talk to the web server: whoever has the one-time address, from its own page, and nobody else.

The address holds a token that works once: it is exchanged for a cookie that scripts cannot read and other sites cannot
send. Every other request needs the cookie and the right Host; a websocket also needs the server's own Origin. Wrong
tokens are counted, and too many close the door for a while.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from html import escape
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

COOKIE = "influence_view"
MOST_SESSIONS = 8
"""Pages that may be open at once: each is a process."""
_MOST_WRONG = 10
_WINDOW = 60.0


class Access:
    """The token, the cookies it was exchanged for, and the count of wrong guesses."""

    def __init__(self, netloc: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.netloc = netloc
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._used = False
        self._wrong: deque[float] = deque()
        self._clock = clock
        self.open_pages = 0

    @property
    def origin(self) -> str:
        """The only origin that may open a websocket."""
        return f"http://{self.netloc}"

    @property
    def address(self) -> str:
        """The address to open; it works once."""
        return f"{self.origin}/?token={self.token}"

    def headers(self) -> dict[str, str]:
        """Return what every answer carries."""
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
            f" font-src 'self' data:; connect-src 'self' ws://{self.netloc}; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )
        return {
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    def refusal(self, request: web.Request) -> tuple[int, str] | None:
        """Return status and reason if the request may not be answered."""
        if request.headers.get("Host", "") != self.netloc:
            return HTTPStatus.MISDIRECTED_REQUEST, "This server answers only under its own name."
        if request.headers.get("Sec-Fetch-Site", "none") == "cross-site" and "token" not in request.query:
            return HTTPStatus.FORBIDDEN, "Another site may not ask this server."
        if request.path == "/ws":
            if request.headers.get("Origin") != self.origin:
                return HTTPStatus.FORBIDDEN, "Another origin may not ask this server."
            if self.open_pages >= MOST_SESSIONS:
                return HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are open."
        if not secrets.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session.encode()):
            return HTTPStatus.FORBIDDEN, "Open the address that `influence view --web` printed."
        return None

    def exchange(self, given: str) -> tuple[int, str] | None:
        """Take a token; return status and reason if it is refused. It works once."""
        now = self._clock()
        while self._wrong and now - self._wrong[0] > _WINDOW:
            self._wrong.popleft()
        if len(self._wrong) >= _MOST_WRONG:
            return HTTPStatus.TOO_MANY_REQUESTS, "Too many wrong tokens; wait a minute."
        if self._used or not secrets.compare_digest(given.encode(), self.token.encode()):
            self._wrong.append(now)
            told = "This address has been used; it works once." if self._used else "This token is wrong."
            return HTTPStatus.FORBIDDEN, f"{told} Start `influence view --web` again for a new one."
        self._used = True
        return None

    def welcome(self) -> web.Response:
        """Return the page that sets the cookie and leads on, so that the token leaves the address bar."""
        page = '<!DOCTYPE html><meta http-equiv="refresh" content="0;url=/"><title>influence</title>'
        response = web.Response(text=page, content_type="text/html")
        response.set_cookie(COOKIE, self._session, httponly=True, samesite="Strict", path="/")
        return response

    def middleware(self) -> Middleware:
        """Return the middleware that stands before every route."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            right_host = request.headers.get("Host", "") == self.netloc
            if right_host and request.path == "/" and "token" in request.query:
                refused = self.exchange(request.query["token"])
                if refused is None:
                    return self.welcome()
            else:
                refused = self.refusal(request)
            if refused is not None:
                status, reason = refused
                page = f"<!DOCTYPE html><title>influence</title><p>{escape(reason)}"
                return web.Response(status=status, text=page, content_type="text/html")
            if request.path != "/ws":
                return await handler(request)
            self.open_pages += 1
            try:
                return await handler(request)
            finally:
                self.open_pages -= 1

        return guard

    async def add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers to an answer that is about to be sent."""
        response.headers.update(self.headers())
