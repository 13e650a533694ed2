"""One page of the viewer in a browser: a process of its own, which ends with the page or the server, whoever goes first."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from textual_serve.app_service import AppService

PATIENCE = 5.0
"""Seconds that a process has to end by itself."""


class Page(AppService):
    """The process behind a page. It leads a group, so that whatever it started ends with it."""

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        self._process = await asyncio.create_subprocess_exec(
            *shlex.split(self.command),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width=width, height=height),
            start_new_session=True,
        )
        self._stdin = self._process.stdin
        return self._process

    async def run(self) -> None:
        """Hand on what the process writes; close the page once it writes no more."""
        try:
            await super().run()
        finally:
            await self.remote_close()

    async def stop(self) -> None:
        """End the process and wait for it: asked first, killed after a while."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await self._ask_to_end(process)
        finally:
            if process.returncode is None:
                _send(process, signal.SIGKILL)
                await process.communicate()

    async def _ask_to_end(self, process: Process) -> None:
        reader, self._task = self._task, None
        await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
        _send(process, signal.SIGTERM)
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await process.communicate()  # reads on: a process whose pipe is full could not end


def _send(process: Process, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, what)
