"""The served viewer as curl and a real browser meet it."""

import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

CURL = shutil.which("curl")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--window-size=1200,800",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("runs") / "made"
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(tiny_folder), "-m", "scripted:demo"]
    subprocess.run([*command, "--n", "4", "--out", str(folder), "--quiet"], check=True, capture_output=True)
    return folder


@contextmanager
def serving(run, *arguments):
    """Yield the process and the address that it printed."""
    command = [sys.executable, "-m", "influence_cli", "view", str(run), "--web", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            found = re.search(r"(http://127\.0\.0\.1:(\d+))/\?token=(\S+)", process.stderr.readline())
            assert found
            yield process, found[1], found[3]
        finally:
            process.terminate()


def curl(*arguments: str) -> tuple[int, str]:
    """Return the status and everything that curl shows."""
    command = [CURL, "--silent", "--include", "--noproxy", "*", "--max-time", "30", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.match(r"HTTP/1\.1 (\d+)", done.stdout)
    return (int(found[1]) if found else -done.returncode), done.stdout


UPGRADE = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
           "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


@pytest.mark.skipif(CURL is None, reason="no curl is installed")
def test_curl_gets_in_with_the_token_once_and_not_otherwise(run, tmp_path):
    jar = str(tmp_path / "jar")
    with serving(run) as (process, origin, token):
        listening = [c for c in psutil.Process(process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
        assert token not in " ".join(psutil.Process(process.pid).cmdline())
        for path in ("/", "/ws", "/static/js/textual.js", "/viewer.css", "/download/x", "/anything"):
            assert curl(origin + path)[0] == 403, path
        assert curl(origin, "-H", "Host: evil.example")[0] == 421
        assert curl(f"{origin}/?token=wrong")[0] == 403
        status, shown = curl(f"{origin}/?token={token}", "--cookie-jar", jar)
        assert status == 200
        assert re.search(r"(?i)set-cookie: influence_view=\S+; HttpOnly; Path=/; SameSite=Strict", shown)
        assert curl(f"{origin}/?token={token}")[0] == 403, "the token works once"
        cookie = ("--cookie", jar)
        status, shown = curl(origin, *cookie)
        assert status == 200
        assert "default-src 'none'" in shown
        assert token not in shown
        assert curl(origin, *cookie, "-H", "Sec-Fetch-Site: cross-site")[0] == 403
        assert curl(f"{origin}/ws", *cookie, *UPGRADE)[0] == 403, "no origin"
        assert curl(f"{origin}/ws", *cookie, *UPGRADE, "-H", "Origin: http://evil.example")[0] == 403
        assert curl(f"{origin}/static/../../../../etc/passwd", *cookie, "--path-as-is")[0] in (403, 404)
        codes = [curl(f"{origin}/?token={number}")[0] for number in range(12)]
        assert codes[-1] == 429, codes


def test_an_address_that_others_reach_is_refused_unless_it_is_asked_for(run):
    command = [sys.executable, "-m", "influence_cli", "view", str(run), "--web", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--expose" in done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
@pytest.mark.timeout(200)
def test_a_browser_opens_the_viewer_and_another_page_does_not(run, tmp_path):
    with serving(run) as (process, origin, token):
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]
        with subprocess.Popen(
            [*command, f"{origin}/?token={token}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as browser:
            try:
                until = time.monotonic() + 120.0
                while not pages(process) and time.monotonic() < until:
                    time.sleep(0.2)
                assert pages(process), "the page opened its websocket, and a viewer began"
            finally:
                browser.terminate()
                said = browser.communicate(timeout=60)[1]
        assert [line for line in said.splitlines() if "CONSOLE" in line and "Refused" in line] == []
        evil = tmp_path / "evil.html"
        evil.write_text(
            f"<script>new WebSocket('{origin.replace('http', 'ws')}/ws');fetch('{origin}/')</script>waiting"
        )
        while pages(process):
            time.sleep(0.2)
        subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", evil.as_uri()],
            capture_output=True, timeout=100, check=True,
        )  # fmt: skip
        assert not pages(process), "another site's page opens nothing"


def pages(process) -> list[int]:
    """Return the processes of open pages."""
    return [child.pid for child in psutil.Process(process.pid).children()]
