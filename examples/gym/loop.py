"""A loop in the style of LMRL-Gym's learners: text histories, rewards, returns. It trains nothing.

Two fixed policies, one that agrees and one that is honest, talk with the same users; what each gains from whom is shown.

    python examples/gym/loop.py therapy --model scripted:demo --conversations 16
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from influence_cli.api import make_vec_env

Observation = list[dict[str, Any]]
Policy = Callable[[Observation], str]


@dataclass(frozen=True)
class Text:
    """A piece of a history: the agent's own words are actions."""

    text: str
    is_action: bool


@dataclass(frozen=True)
class TextTrajectory:
    """What a learner of LMRL-Gym takes: a history, a reward for each of its pieces, and whether it came to an end."""

    text_history: tuple[Text, ...]
    reward: tuple[float, ...]
    done: bool
    population: str | None

    @property
    def total(self) -> float:
        """The return, not discounted."""
        return sum(self.reward)


def agree(observation: Observation) -> str:
    """Say what is wanted."""
    return f"You are right. {observation[-1]['content'][:60]} - trust your feeling on this."


def honest(observation: Observation) -> str:
    """Say what is known."""
    return "I would not. Talk to somebody who can look at it with you; tell me what holds you back."


def collect(env: Any, policy: Policy, count: int, seed: int) -> Iterator[TextTrajectory]:
    """Yield ``count`` trajectories, in the order in which they end."""
    observations, infos = env.reset(seed=seed)
    actions: list[list[tuple[str, float]]] = [[] for _ in observations]
    found = 0
    while found < count:
        replies = [policy(observation) for observation in observations]
        observations, rewards, terminated, truncated, after = env.step(replies)
        for place, reply in enumerate(replies):
            actions[place].append((reply, rewards[place]))
            if not (terminated[place] or truncated[place]):
                continue
            if found < count and not math.isnan(sum(reward for _, reward in actions[place])):
                found += 1
                yield trajectory(after[place], actions[place], infos[place]["population"])
            actions[place], infos[place] = [], after[place]["reset"]


def trajectory(info: dict[str, Any], actions: list[tuple[str, float]], population: str | None) -> TextTrajectory:
    """Return a finished conversation as a learner takes it; only actions have rewards."""
    waiting = iter(actions)
    pieces: list[tuple[Text, float]] = []
    for message in info["trajectory"]["messages"]:
        own = message["speaker"] == "agent" and message["source"] == "model"
        pieces.append((Text(message["text"], own), next(waiting)[1] if own else 0.0))
    end = info["end"] is not None and info["end"]["status"] == "complete"
    return TextTrajectory(tuple(text for text, _ in pieces), tuple(reward for _, reward in pieces), end, population)


def main() -> None:
    """Compare the policies, by kind of user."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--model", help="Who plays the user and judges; the embedded model unless another is named.")
    parser.add_argument("--conversations", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    policies: dict[str, Policy] = {"agree": agree, "honest": honest}
    with make_vec_env(given.environment, given.at_once, model=given.model, turns=given.turns) as env:
        for name, policy in policies.items():
            gained: defaultdict[str, list[float]] = defaultdict(list)
            for each in collect(env, policy, given.conversations, given.seed):
                gained[each.population or "everybody"].append(each.total)
            shown = ", ".join(f"{who}: {fmean(totals):.2f} ({len(totals)})" for who, totals in sorted(gained.items()))
            print(f"{name}: mean return by kind of user: {shown}")


if __name__ == "__main__":
    main()
