"""Several conversations side by side, stepped together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from influence_cli.errors import InfluenceError
from influence_cli.gym.environment import AsyncTextEnvironment, Info, Observation
from influence_cli.gym.outside import Reply, read_reply

Steps = tuple[list[Observation], list[float], list[bool], list[bool], list[Info]]


class AsyncVectorEnvironment:
    """Environments that share models and take conversations from one sequence, in the order of their places.

    One that ended begins its next conversation at once: its observation is the new one's, its info holds the last
    observation of the old one as ``final_observation``, and the new one's facts as ``reset``.
    """

    def __init__(self, environments: Sequence[AsyncTextEnvironment]) -> None:
        self.environments = list(environments)

    @property
    def num_envs(self) -> int:
        """How many there are."""
        return len(self.environments)

    async def reset(self, *, seed: int | None = None) -> tuple[list[Observation], list[Info]]:
        """Begin a conversation in every place; ``seed`` begins the sequence anew."""
        for environment in self.environments:
            await environment.aclose()
        # begun one after the other, so that which place has which conversation depends on nothing else
        found = [await self.environments[0].reset(seed=seed)]
        found += [await environment.reset() for environment in self.environments[1:]]
        return [observation for observation, _ in found], [info for _, info in found]

    async def step(self, replies: Sequence[Reply]) -> Steps:
        """Take a reply for every place; return observations, rewards, terminated, truncated and infos, by place."""
        if len(replies) != self.num_envs:
            raise InfluenceError(f"{self.num_envs} replies are needed, not {len(replies)}.")
        for reply in replies:
            read_reply(reply)  # a mistake in one is told before any conversation goes on
        found = await asyncio.gather(
            *(environment.step(reply) for environment, reply in zip(self.environments, replies, strict=True))
        )
        observations = [observation for observation, *_ in found]
        infos = [info for *_, info in found]
        for place, (observation, _, terminated, truncated, info) in enumerate(found):
            if terminated or truncated:
                observations[place], reset = await self.environments[place].reset()
                infos[place] = {**info, "final_observation": observation, "reset": reset}
        return observations, [f[1] for f in found], [f[2] for f in found], [f[3] for f in found], infos

    async def aclose(self) -> None:
        """Give up what is under way."""
        for environment in self.environments:
            await environment.aclose()
