"""The web server answers whoever has the address, once, and nobody else."""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from influence_cli.errors import InfluenceError
from influence_cli.viewer import pages
from influence_cli.viewer.access import COOKIE, MOST_SESSIONS, Access
from influence_cli.viewer.serving import ViewerServer, free_port, is_loopback


@asynccontextmanager
async def served(command=(sys.executable, "-c", "pass")):
    """Yield the server's access, listening for real, and a client without cookies of its own."""
    async with serving(command) as (server, client):
        yield server.access, client


@asynccontextmanager
async def serving(command):
    """Yield the server, listening for real, and a client without cookies of its own."""
    port = free_port("127.0.0.1", 0)
    server = ViewerServer(command, "127.0.0.1", port, lambda _address: None)
    runner = web.AppRunner(await server._make_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    jar = aiohttp.CookieJar(unsafe=True)
    try:
        async with aiohttp.ClientSession(cookie_jar=jar) as client:
            yield server, client
    finally:
        await runner.cleanup()


async def status(client, url, **headers) -> int:
    async with client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        return answer.status


@pytest.mark.parametrize("path", ["/", "/static/js/textual.js", "/viewer.css", "/download/x", "/nothing"])
async def test_without_the_token_nothing_is_answered(path):
    async with served() as (access, client):
        assert await status(client, access.origin + path) == 403


async def test_the_address_works_once_and_leaves_a_cookie_that_scripts_cannot_read():
    async with served() as (access, client):
        async with client.get(access.address) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith(f"{COOKIE}=")
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert access.token not in cookie
            assert access.token not in await answer.text()
        async with client.get(access.origin) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert f"ws://{access.netloc}/ws" in page
            assert "https://" not in page
            assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Cache-Control"] == "no-store"
        assert await status(client, access.origin + "/viewer.css") == 200
        async with aiohttp.ClientSession() as other:
            assert await status(other, access.address) == 403


async def test_wrong_tokens_are_counted():
    async with served() as (access, client):
        seen = [await status(client, f"{access.origin}/?token=guess{n}") for n in range(12)]
        assert seen == [403] * 10 + [429] * 2
        assert await status(client, access.address) == 429


def test_the_door_opens_again_after_a_minute():
    now = [0.0]
    access = Access("127.0.0.1:1", clock=lambda: now[0])
    for _ in range(10):
        access.exchange("guess")
    assert access.exchange(access.token)[0] == 429
    now[0] = 61.0
    assert access.exchange(access.token) is None


async def test_another_host_and_another_site_are_refused():
    async with served() as (access, client):
        await status(client, access.address)
        assert await status(client, access.origin, Host="evil.example") == 421
        assert await status(client, f"{access.origin}/?token={access.token}", Host="evil.example") == 421
        assert await status(client, access.origin, Sec_Fetch_Site="cross-site") == 403


async def test_a_websocket_needs_the_cookie_and_our_origin():
    async with served() as (access, client):
        address = f"ws://{access.netloc}/ws"

        async def refused(session, **headers) -> int:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with session.ws_connect(address, headers=headers):
                    pass
            return caught.value.status

        assert await refused(client, Origin=access.origin) == 403
        await status(client, access.address)
        assert await refused(client, Origin="http://evil.example") == 403
        assert await refused(client, Origin="null") == 403
        assert await refused(client) == 403
        access.open_pages = MOST_SESSIONS
        assert await refused(client, Origin=access.origin) == 503


async def test_keys_from_the_page_reach_the_viewer(run, runs):
    command = (sys.executable, "-m", "influence_cli", "view", str(run.path))
    async with served(command) as (access, client):
        await status(client, access.address)
        address = f"ws://{access.netloc}/ws?width=100&height=30"
        async with client.ws_connect(address, headers={"Origin": access.origin}) as page:
            await _until(page, b"person-0")
            await page.send_str(json.dumps(["stdin", "w"]))
            await page.send_str(json.dumps(["stdin", "\r"]))
            await _until(page, b"Nobody has to know")
        assert access.open_pages in (0, 1)


STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
print("__GANGLION__", flush=True)
told = f"{os.getpid()} {child.pid} ".encode()
while True:
    os.write(1, b"D" + len(told).to_bytes(4, "big") + told)
"""
OBLIGING = """
import os, signal
print("__GANGLION__", flush=True)
told = f"{os.getpid()} ".encode()
os.write(1, b"D" + len(told).to_bytes(4, "big") + told)
signal.pause()
"""


@asynccontextmanager
async def opened(client, access):
    """Yield a page and the ids of the processes behind it."""
    await status(client, access.address)
    async with client.ws_connect(f"ws://{access.netloc}/ws", headers={"Origin": access.origin}) as page:
        yield page, [int(each) for each in (await page.receive()).data.split()]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{process}/stat").exists() or ") Z " not in Path(f"/proc/{process}/stat").read_text()


async def gone(processes) -> None:
    async with asyncio.timeout(60):
        while any(is_alive(each) for each in processes):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("program", [OBLIGING, STUBBORN], ids=["obliging", "stubborn"])
async def test_a_process_ends_with_its_page(monkeypatch, program):
    monkeypatch.setattr(pages, "PATIENCE", 0.2)
    async with serving((sys.executable, "-c", program)) as (server, client):
        async with opened(client, server.access) as (_page, processes):
            assert all(is_alive(each) for each in processes)
        await gone(processes)
        async with asyncio.timeout(60):
            while server.access.open_pages:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("program", [OBLIGING, STUBBORN], ids=["obliging", "stubborn"])
async def test_a_process_ends_with_the_server(monkeypatch, program):
    monkeypatch.setattr(pages, "PATIENCE", 0.2)
    async with AsyncExitStack() as still_open:
        async with serving((sys.executable, "-c", program)) as (server, client):
            _, processes = await still_open.enter_async_context(opened(client, server.access))
            assert all(is_alive(each) for each in processes)
        await gone(processes)


async def test_a_page_closes_when_its_process_fails():
    async with served((sys.executable, "-c", "raise SystemExit(3)")) as (access, client):
        await status(client, access.address)
        async with client.ws_connect(f"ws://{access.netloc}/ws", headers={"Origin": access.origin}) as page:
            assert (await page.receive(timeout=60)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def _until(page, wanted: bytes) -> None:
    seen = b""
    async with asyncio.timeout(60):
        while wanted not in seen:
            message = await page.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, seen[-300:])
            seen += message.data if isinstance(message.data, bytes) else b""


def test_which_hosts_only_this_machine_reaches():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org")] == [False] * 4


def test_a_port_that_is_taken_says_so():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InfluenceError, match="cannot be listened on"):
            free_port("127.0.0.1", taken.getsockname()[1])
