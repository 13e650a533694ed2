"""The launcher of Ray clusters: one actor for each task, placed by what the task asks for.

Invariant: a job whose worker or node dies ends as killed, whatever else it was; who minds it starts it again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray._private import worker as ray_worker
from ray.exceptions import RayActorError, RayError

from influence_cli.api import LOST, InfluenceError, Job, JobStatus, Resources, Task
from influence_ray.actor import LastingMinder, Minder, code_file
from influence_ray.options import RayOptions

_NAMESPACE = "influence"
_THREADS = 4
"""Calls that an actor answers at once: one runs the command, others tell it to stop."""
_POLL = 0.5
_ANSWERS = 10.0
"""Seconds in which a cluster's head answers."""


class RayLauncher:
    """Starts actors; see :class:`influence_cli.api.Launcher`."""

    survives = False

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._jobs: list[RayJob] = []
        self._closed = False
        self._joined = _SESSION.enter(options)

    async def start(self, task: Task) -> Job:
        """Return the job of ``task``, which begins when the cluster has room for it."""
        self._refuse_too_much(task.resources)
        arguments = (task.command, str(task.log), dict(task.environment), str(Path.cwd()), task.resources.minutes)
        if task.outlives:
            if not self._joined:
                raise InfluenceError(
                    "A Ray cluster that begins with this command ends with it.",
                    hint="Start one with `ray start --head`, and name it: --launcher-option address=auto.",
                )
            code_file(task.log).unlink(missing_ok=True)
            name = f"{task.name}-{uuid4().hex[:12]}"
            asked = {"name": name, "namespace": _NAMESPACE, "lifetime": "detached"}
            actor = _remote(LastingMinder, task.resources, self._options, **asked)
            actor.run_and_leave.remote(*arguments)
            return LastingRayJob(task, name, self._options.grace)
        actor = _remote(Minder, task.resources, self._options)
        job = RayJob(task, actor, actor.run.remote(*arguments), self._options.grace)
        self._jobs = [other for other in self._jobs if not other.over]
        self._jobs.append(job)
        return job

    async def attach(self, task: Task, job_id: str) -> Job:
        """Return the job that a named actor of the cluster minds."""
        return LastingRayJob(task, job_id, self._options.grace)

    async def aclose(self) -> None:
        """End what has not ended; leave the cluster, and end it where it began here."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(job.kill() for job in self._jobs))
        _SESSION.leave()

    def _refuse_too_much(self, resources: Resources) -> None:
        """Raise InfluenceError if no node of the cluster has what is asked for."""
        if self._options.autoscales:
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        asked = {"GPU": float(resources.gpus), "CPU": float(resources.cpus), "memory": _bytes(resources) or 0.0}
        if not any(all(node.get(name, 0.0) >= amount for name, amount in asked.items()) for node in nodes):
            most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in asked}
            raise InfluenceError(
                f"No node of the Ray cluster has {resources.gpus} GPUs and {resources.cpus} CPUs; the largest has "
                f"{most['GPU']:g} and {most['CPU']:g}, with {most['memory'] / 2**30:.0f} GB.",
                hint="Ask for less, or say that the cluster grows: --launcher-option autoscales=true.",
            )


class RayJob:
    """One actor and what it runs; it ends with this process."""

    def __init__(self, task: Task, actor: Any, answer: Any, grace: float) -> None:
        self._task = task
        self._actor = actor
        self._grace = grace
        self._placed = asyncio.ensure_future(_answer(actor.node.remote()))
        self._work = asyncio.ensure_future(self._run(answer))
        self.id = f"{task.name}-{actor._actor_id.hex()[:12]}"  # noqa: SLF001 - Ray's own name for it

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._work.done()

    async def status(self) -> JobStatus:
        """Return how it is now."""
        if self._work.done():
            return JobStatus("ended", self._work.result())
        return JobStatus("running" if self._placed.done() else "waiting")

    async def wait(self) -> int:
        """Return the exit code of its command; that of a kill where the actor died."""
        return await asyncio.shield(self._work)

    async def cancel(self) -> None:
        """Tell the command to stop; kill it after the grace. One that waits for room is dropped."""
        if not self._work.done() and self._placed.done():
            with suppress(RayError, asyncio.TimeoutError):
                await asyncio.wait_for(_answer(self._actor.tell.remote()), self._grace)
                await asyncio.wait_for(self.wait(), self._grace)
        await self.kill()

    async def kill(self) -> None:
        """End the actor, and with it the command, at once."""
        if not self._work.done():
            if self._placed.done():
                with suppress(RayError, asyncio.TimeoutError):
                    await asyncio.wait_for(_answer(self._actor.kill.remote()), _POLL)
            ray.kill(self._actor)
            await self.wait()
        self._placed.cancel()
        await asyncio.gather(self._placed, return_exceptions=True)

    async def _run(self, answer: Any) -> int:
        try:
            code: int = await _answer(answer)
        except RayActorError:
            return -signal.SIGKILL
        ray.kill(self._actor)  # gives its room back
        return code


class LastingRayJob:
    """A named actor that goes on by itself, and leaves the exit code of its command beside the log."""

    def __init__(self, task: Task, name: str, grace: float) -> None:
        self._task = task
        self._grace = grace
        self.id = name

    async def status(self) -> JobStatus:
        """Return how it is now."""
        file = code_file(self._task.log)
        if file.is_file():
            return JobStatus("ended", int(file.read_text(encoding="utf-8")))
        actor = self._actor()
        if actor is None:
            return JobStatus("lost")
        try:
            await asyncio.wait_for(_answer(actor.node.remote()), _POLL)
        except TimeoutError:
            return JobStatus("waiting")
        except RayError:
            return JobStatus("lost")
        return JobStatus("running")

    async def wait(self) -> int:
        """Return the exit code of its command; LOST where nobody knows it."""
        while True:
            status = await self.status()
            if status.state in ("ended", "lost"):
                return LOST if status.code is None else status.code
            await asyncio.sleep(_POLL)

    async def cancel(self) -> None:
        """Tell the command to stop; kill it, and the actor, after the grace."""
        actor = self._actor()
        if actor is None:
            return
        with suppress(RayError, asyncio.TimeoutError):
            await asyncio.wait_for(_answer(actor.tell.remote()), self._grace)
            await asyncio.wait_for(self.wait(), self._grace)
        with suppress(RayError, asyncio.TimeoutError):
            await asyncio.wait_for(_answer(actor.kill.remote()), _POLL)
        ray.kill(actor)

    def _actor(self) -> Any | None:
        try:
            return ray.get_actor(self.id, namespace=_NAMESPACE)
        except ValueError:
            return None


class _Session:
    """The connection of this process to a cluster, shared by its launchers: Ray knows one a process."""

    users = 0
    joined = False

    def enter(self, options: RayOptions) -> bool:
        """Use the connection, made if it is the first use; return whether the cluster was there before."""
        if self.users == 0:
            self.joined = _connect(options)
        self.users += 1
        return self.joined

    def leave(self) -> None:
        """End a use, and the connection with the last one."""
        self.users -= 1
        if self.users == 0:
            ray.shutdown()


_SESSION = _Session()


def _connect(options: RayOptions) -> bool:
    """Join the cluster that is named, or begin one here; return whether it was there before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = options.address or os.environ.get("RAY_ADDRESS")
    # Without "local" Ray looks for a cluster that it last began here, for minutes where that one was killed.
    begun = {"address": "local", "num_cpus": options.cpus, "num_gpus": options.gpus}
    named = {"address": address} if address else begun
    if address:
        _refuse_silent(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # What Ray itself says of dead workers goes to stdout, among the data; the jobs say it too.
    ray_worker._worker_logs_enabled = False  # noqa: SLF001 - there is no other way
    try:
        ray.init(**named, namespace=_NAMESPACE, include_dashboard=False if not address else None, **quiet)
    except Exception as error:  # noqa: BLE001 - Ray raises its own, built-in ones, and plain Exception
        told = " ".join(str(error).split())
        raise InfluenceError(
            f"Ray cannot be used: {told}", hint="Check the address, RAY_AUTH_MODE, and `ray status`."
        ) from None
    return bool(address)


def _refuse_silent(address: str) -> None:
    """Raise InfluenceError where nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), _ANSWERS).close()
    except OSError as error:
        raise InfluenceError(f"No Ray cluster answers at {address}: {error}.", hint="See `ray status`.") from None


def _remote(kind: type[Minder], resources: Resources, options: RayOptions, **named: str) -> Any:
    asked = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "memory": _bytes(resources)}
    placed = {"max_concurrency": _THREADS, "max_restarts": 0, "scheduling_strategy": options.strategy}
    return ray.remote(kind).options(**asked, **placed, **named).remote()


def _bytes(resources: Resources) -> float | None:
    return None if resources.memory_gb is None else resources.memory_gb * 2.0**30


async def _answer(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())
