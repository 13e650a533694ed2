"""The same environments for callers without an event loop.

The loop rests between calls, so that nothing of a conversation happens outside of ``reset`` and ``step``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from influence_cli.errors import InfluenceError
from influence_cli.gym.environment import AsyncTextEnvironment, Info, Observation, Step
from influence_cli.gym.outside import Reply
from influence_cli.gym.vector import AsyncVectorEnvironment, Steps

T = TypeVar("T")


def refuse_running_loop() -> None:
    """Raise InfluenceError where an event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InfluenceError(
        "An event loop is running here already, as in a notebook.", hint="Use make_async_env and await its calls."
    )


class _Blocking:
    """Runs the calls of a core on a loop of its own; use as a context manager, or call :meth:`close`."""

    def __init__(self, aclose: Callable[[], Awaitable[None]], release: Callable[[], Awaitable[None]]) -> None:
        self._closing = (aclose, release)
        self._runner: asyncio.Runner | None = asyncio.Runner()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            work.close()
            raise InfluenceError("The environment is closed.")
        try:
            refuse_running_loop()
        except InfluenceError:
            work.close()
            raise
        return self._runner.run(work)

    def close(self) -> None:
        """Give up what is under way and release the models. Closing twice does nothing."""
        if self._runner is None:
            return

        async def close_all() -> None:
            for close in self._closing:
                await close()

        try:
            self._run(close_all())
        finally:
            runner, self._runner = self._runner, None
            runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextEnvironment(_Blocking):
    """One conversation at a time; ``core`` is the environment that does the work."""

    def __init__(self, core: AsyncTextEnvironment, release: Callable[[], Awaitable[None]]) -> None:
        super().__init__(core.aclose, release)
        self.core = core

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin the next conversation, or the one that ``options`` choose; see :meth:`AsyncTextEnvironment.reset`."""
        return self._run(self.core.reset(seed=seed, options=options))

    def step(self, reply: Reply) -> Step:
        """Take the agent's reply; return observation, reward, terminated, truncated and info."""
        return self._run(self.core.step(reply))


class VectorEnvironment(_Blocking):
    """Several conversations side by side; ``core`` is the environment that does the work."""

    def __init__(self, core: AsyncVectorEnvironment, release: Callable[[], Awaitable[None]]) -> None:
        super().__init__(core.aclose, release)
        self.core = core

    @property
    def num_envs(self) -> int:
        """How many conversations there are at a time."""
        return self.core.num_envs

    def reset(self, *, seed: int | None = None) -> tuple[list[Observation], list[Info]]:
        """Begin a conversation in every place."""
        return self._run(self.core.reset(seed=seed))

    def step(self, replies: Sequence[Reply]) -> Steps:
        """Take a reply for every place; return lists by place."""
        return self._run(self.core.step(replies))
