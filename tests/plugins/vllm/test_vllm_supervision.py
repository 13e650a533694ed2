"""A server of ours: started, watched, started again after a death, and never left behind. A stand-in takes vLLM's place."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

import pytest
from tests.waiting import wait_until

from influence_cli.api import CallFailedError, InfluenceError, reporting_to
from influence_vllm import serving
from influence_vllm.guard import end, started_at
from influence_vllm.making import make_backend
from influence_vllm.options import VllmOptions
from influence_vllm.supervision import Server, free_port

from .conftest import find_processes, is_alive
from .test_vllm_server import say


@pytest.fixture
def options(stand_in, tmp_path):
    """Settings of a server that the stand-in serves."""

    def make(**more):
        log = str(tmp_path / "logs" / "server.log")
        return VllmOptions.model_validate({"server": "start", "python": str(stand_in), "log": log} | more)

    return make


@pytest.fixture
def model(tmp_path):
    """A folder that has the looks of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def sleeper(tmp_path, code):
    return Server([sys.executable, "-c", code], free_port(), tmp_path / "log", start_seconds=60.0)


def crash(backend):
    """Have the process that serves end at once, as by a segmentation fault."""
    model = backend._model
    request = urllib.request.Request(f"{model.server.address}/die", data=b"{}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(OSError):
        opener.open(request, timeout=30)


async def test_it_is_started_with_progress_answers_and_is_stopped(options, model, tmp_path):
    steps = []
    with reporting_to(lambda what, share: steps.append((what, share))):
        backend = make_backend(model, options())
    assert steps[-1] == ("Starting vLLM", 1.0)
    assert (await backend.generate(say())).text
    server = backend._model.server
    assert "Serving" in server.log.read_text()
    await backend.aclose()
    assert server.state == "stopped"
    assert not server.is_well()
    with pytest.raises(CallFailedError, match="given back"):
        await backend.generate(say())


@pytest.fixture
def taken():
    """A port that somebody has, and does not listen on yet."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


async def test_a_port_that_is_taken_in_the_meantime_is_changed_for_another(options, model, taken, monkeypatch):
    ports = iter([taken, free_port()])
    monkeypatch.setattr(serving, "free_port", lambda: next(ports, None) or free_port())
    backend = make_backend(model, options())
    try:
        assert (await backend.generate(say())).text
        assert backend._model.server.port != taken
        assert "address already in use" in backend._model.server.log.read_text().lower()
    finally:
        await backend.aclose()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(options, model, taken):
    with pytest.raises(InfluenceError, match="ended while it started"):
        make_backend(model, options(port=taken))


async def test_without_a_log_the_server_has_one_in_a_folder_of_its_own(options, model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backend = make_backend(model, options(log=None))
    try:
        log = backend._model.server.log
        assert (log.parent.parent, log.parent.stat().st_mode & 0o777) == (tmp_path, 0o700)
        assert "Serving" in log.read_text()
    finally:
        await backend.aclose()


async def test_calls_outlive_a_death_and_adapters_are_loaded_again(options, model, make_adapter):
    backend = make_backend(model, options(max_restarts=2))
    try:
        folder = make_adapter()
        before = await backend.generate(say(folder))
        crash(backend)
        after = await asyncio.gather(*(backend.generate(say(folder)) for _ in range(4)))
        assert {answer.text for answer in after} == {before.text}
        server = backend._model.server
        assert (server.generation, server.restarts, server.state) == (2, 1, "ready")
    finally:
        await backend.aclose()


async def test_restarts_are_bounded_and_the_last_words_are_passed_on(options, model):
    backend = make_backend(model, options(max_restarts=0))
    try:
        server = backend._model.server
        crash(backend)
        await asyncio.to_thread(wait_until, lambda: server.state == "failed")
        with pytest.raises(CallFailedError, match=r"died \(exit code 70\), the last time of 1: .*Its log is"):
            await backend.generate(say())
    finally:
        await backend.aclose()


@pytest.mark.slow
async def test_a_server_that_hangs_is_started_anew(options, model):
    backend = make_backend(model, options(timeout=10.0, max_restarts=1))
    try:
        assert (await backend.generate(say())).text
        (pid,) = find_processes("influence_cli.testing.server", str(backend._model.server.port))
        os.kill(pid, signal.SIGSTOP)
        assert (await backend.generate(say())).text
        assert backend._model.server.generation == 2
        assert not is_alive(pid)
    finally:
        await backend.aclose()


def test_one_that_ends_while_it_starts_says_why(tmp_path):
    server = sleeper(tmp_path, "raise ValueError('no such model architecture')")
    with pytest.raises(
        InfluenceError, match=r"ended while it started: ValueError: no such model architecture.*Its log is"
    ):
        server.start()


def test_one_that_never_answers_is_given_up_and_ended(tmp_path):
    code = "import os, time; print('PID', os.getpid(), flush=True); time.sleep(120)"
    server = Server([sys.executable, "-c", code], free_port(), tmp_path / "log", start_seconds=1.5)
    with pytest.raises(InfluenceError, match=r"did not start within 1\.5 s.*start_seconds"):
        server.start()
    said = (tmp_path / "log").read_text()
    if said:
        wait_until(lambda: not is_alive(int(said.split()[1])))


def test_a_program_that_is_not_there_is_said(tmp_path):
    server = Server(["/no/such/python"], free_port(), tmp_path / "log", start_seconds=60.0)
    with pytest.raises(InfluenceError, match="ended while it started"):
        server.start()


def test_killing_the_parent_ends_server_and_children(tmp_path):
    """Neither the server nor what it started outlives a ``kill -9`` of whoever started it."""
    serving = (
        "import os, subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)']);"
        "print('PIDS', os.getpid(), child.pid, flush=True);"
        "from influence_cli.testing.server import main; sys.argv[1:] = ['--port', sys.argv[1], '--max-seconds', '120']; main()"
    )
    parent = (
        "import sys, time; from pathlib import Path; from influence_vllm.supervision import Server, free_port;"
        "port = free_port(); command = [sys.executable, '-c', sys.argv[1], str(port)];"
        "server = Server(command, port, Path(sys.argv[2])); server.start(); print('ready', flush=True); time.sleep(120)"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", parent, serving, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            pids = [int(word) for word in log.read_text().split("PIDS")[1].split()[:2]]
            assert all(map(is_alive, pids))
        finally:
            process.kill()
    wait_until(lambda: not any(map(is_alive, pids)))


def test_the_guard_ends_named_processes_when_its_input_closes():
    from influence_vllm.supervision import GUARD

    waiting = "import time; print('up', flush=True); time.sleep(120)"
    with (
        subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True) as victim,
        subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True) as other,
        subprocess.Popen([sys.executable, "-I", str(GUARD)], stdin=subprocess.PIPE, text=True) as guard,
    ):
        try:
            assert victim.stdout.readline() == other.stdout.readline() == "up\n"
            guard.communicate(f"{victim.pid}\n{2**22 + 1}\n")
            assert guard.returncode == 0
            assert victim.wait(60) == -signal.SIGTERM
            assert is_alive(other.pid)
        finally:
            other.kill()
            victim.kill()


def test_what_does_not_end_when_asked_is_made_to():
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('up', flush=True); time.sleep(120)"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "up\n"
        end(victim.send_signal, lambda: victim.poll() is not None, grace=0.2)
        assert victim.wait(60) == -signal.SIGKILL


def test_a_process_is_told_from_a_later_one_with_its_id():
    begun = started_at(os.getpid())
    assert begun == started_at(os.getpid())
    assert started_at(2**22 + 1) is None
