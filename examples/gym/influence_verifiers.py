"""Every environment as one of `verifiers`: ``load_environment("therapy", model="openai:gpt-4o-mini")``.

The rollout is verifiers' own; the user and the judges are ours. Needs ``pip install verifiers`` (tried with 0.3.1).
"""

from __future__ import annotations

import math
from typing import Any

import verifiers as vf
from datasets import Dataset

from influence_cli.api import AsyncTextEnvironment, make_async_env

ENV, OVER = "influence_env", "influence_over"


class Conversations(vf.MultiTurnEnv):
    """Conversations with simulated users; a rollout's example names the initial state that it starts from."""

    def __init__(self, core: AsyncTextEnvironment, dataset: Dataset, **more: Any) -> None:
        """``core`` is played by nobody: every rollout has one of its own beside it."""
        super().__init__(dataset=dataset, rubric=vf.Rubric(funcs=[mean_rating]), **more)
        self.core = core

    async def setup_state(self, state: vf.State) -> vf.State:
        """Begin the conversation; its first observation is the prompt."""
        env = self.core.another()
        state["prompt"], about = await env.reset(options=state["info"])
        state["tool_defs"] = [vf.Tool(**tool) for tool in about["tools"]]
        state |= {ENV: env, OVER: None, "ratings": [], "vetoes": []}
        return state

    async def get_prompt_messages(self, state: vf.State) -> Any:
        """Return what the agent sees now: its last reply goes to the user, whose answer, or end, comes back."""
        if not state["trajectory"]:
            return state["prompt"]
        said = as_dict(state["trajectory"][-1]["completion"][-1])
        observation, reward, terminated, truncated, info = await state[ENV].step(said)
        if not info["within_turn"]:
            state["ratings"].append(reward)
            state["vetoes"].append(info["veto"])
        if terminated or truncated:
            state[OVER] = info["end"]
            state["final_env_response"] = []
        return observation

    async def env_response(self, messages: Any, state: vf.State, **more: Any) -> Any:
        """Nothing: :meth:`get_prompt_messages` gives whole prompts."""
        return []

    @vf.cleanup
    async def give_up(self, state: vf.State) -> None:
        """End what is under way."""
        env = state.pop(ENV, None)
        if env is not None:
            await env.aclose()


def as_dict(message: Any) -> dict[str, Any]:
    """Return a message of verifiers' as chat APIs have it."""
    found = message.model_dump(exclude_none=True) if hasattr(message, "model_dump") else dict(message)
    content = found.get("content")
    parts = content if isinstance(content, list) else []
    text = "".join(part.get("text", "") for part in parts) if parts else content or ""
    return {"content": text, "tool_calls": found.get("tool_calls") or []}


def mean_rating(state: vf.State, **more: Any) -> float:
    """Return the mean rating of the replies; 0 where none is usable, as verifiers knows no missing reward."""
    usable = [rating for rating in state["ratings"] if not math.isnan(rating)]
    return sum(usable) / len(usable) if usable else 0.0


def load_environment(environment: str = "therapy", **settings: Any) -> Conversations:
    """Return the environment; ``settings`` are those of :func:`influence_cli.api.make_env`."""
    core, _ = make_async_env(environment, **settings)
    rows = [
        {"prompt": [{"role": "user", "content": "(The conversation begins.)"}], "answer": "", "info": about}
        for about in core.choices()
    ]
    return Conversations(core, Dataset.from_list(rows))
