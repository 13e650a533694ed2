"""What a training run will take, before it is begun: calls, tokens, memory, time.

Everything is an upper bound but time, which is reckoned for one accelerator of the named speed, busy for the named share
of its time; both are stated wherever the figure is shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import count_episodes, episodes
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import Split
from influence_cli.schemas.training import RowsWanted
from influence_cli.scoring.estimating import estimate_scores
from influence_cli.scoring.judging import Asking
from influence_cli.simulation.estimate import Estimate, RoleEstimate, estimate, first_episodes, longest_trajectory
from influence_cli.simulation.models import RoleModel, unpriced
from influence_cli.training.conversing import phase_config
from influence_cli.training.rewards import reward_plan, reward_role
from influence_cli.training.selection import Candidate, share_of
from influence_cli.training.shapes import ModelShape

TERAFLOPS = 312.0
"""Of one accelerator in bf16: an A100."""
TRAIN_SHARE = 0.35
PROMPT_SHARE = 0.4
REPLY_SHARE = 0.08
"""Shares of the speed that training, reading prompts and writing replies in batches reach; rules of thumb."""
GIB = 2**30
_LOOKED_AT = 20_000
"""Conversations that are grouped one by one for an estimate."""
_SPLITS: tuple[Split, ...] = ("train", "heldout")
_OVERHEAD = 1.5 * GIB
"""The library's own context and workspaces."""


@dataclass(frozen=True)
class Memory:
    """GiB on one accelerator while training, the base weights in 16 bits (or fewer, if quantised)."""

    weights: float
    lora: float
    optimiser: float
    activations: float
    overhead: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.lora + self.optimiser + self.activations + self.overhead


@dataclass(frozen=True)
class TrainEstimate:
    """What the run takes; ``hours`` and ``memory`` are None where the agent's size is not known."""

    phases: dict[str, Estimate]
    conversations: int
    calls: int
    tokens: int
    cost: float | None
    rows: int
    train_tokens: int
    memory: Memory | None = None
    hours: float | None = None
    parameters: int | None = None
    unknown: tuple[str, ...] = field(default=())
    unpriced: tuple[str, ...] = field(default=())
    """Models that may cost money and have no price."""


def estimate_training(
    environments: Sequence[Environment],
    config: TrainConfig,
    models: Mapping[Role, RoleModel],
    shapes: Mapping[str, ModelShape | None],
    options: Mapping[str, Any],
    wants: RowsWanted,
) -> TrainEstimate:
    """Return what the run takes: ``shapes`` by the model's base name, ``options`` of an algorithm that ``wants`` rows."""
    train, heldout = (_phase(environments, phase_config(config, 0, split), models) for split in _SPLITS)
    measured = sum(_is_measured(k, config) for k in range(config.iterations + 1))
    own = config.iterations - (config.source.run is not None)
    times = ((train, own), (heldout, measured))
    rows, row_tokens = _rows(environments, config, train, wants)
    mixed = options.get("mix_fraction", 0.0) if options.get("mix") else 0.0
    rows = round(rows / (1.0 - mixed))
    epochs = int(options.get("epochs", 1))
    train_tokens = min(row_tokens, int(options.get("max_length", 4096))) * rows * epochs
    shape = shapes.get(models["agent"].name.base)
    costs = [part.cost for part, _ in times]
    return TrainEstimate(
        phases={"train": train, "heldout": heldout},
        conversations=sum(part.conversations * count for part, count in times),
        calls=sum(part.calls * count for part, count in times),
        tokens=sum(part.tokens * count for part, count in times),
        cost=None if None in costs else sum((part.cost or 0.0) * count for part, count in times),
        rows=rows,
        train_tokens=train_tokens,
        memory=memory_need(shape, options) if shape else None,
        hours=_hours(times, models, shapes, train_tokens * config.iterations),
        parameters=shape.parameters if shape else None,
        unknown=tuple(sorted({m.name.base for m in models.values() if shapes.get(m.name.base) is None})),
        unpriced=unpriced(models.values()),
    )


def _phase(environments: Sequence[Environment], config: TrainConfig, models: Mapping[Role, RoleModel]) -> Estimate:
    """Return what an iteration's conversations of one split take, with the asking for their reward once they are over."""
    found = estimate(environments, config, models)
    role = reward_role(config.selection)
    if role is None:
        return found
    plan = reward_plan(role, config.selection, environments, models)
    looked_at = [longest_trajectory(each, config, models) for each in first_episodes(environments, config)]
    asked = estimate_scores(enumerate(looked_at), plan.items, Asking(), set())
    factor = found.conversations / len(looked_at)
    entry = found.roles.setdefault(role, RoleEstimate(cost=0.0))
    for part in asked.models.values():
        entry.calls += round(factor * part.calls)
        entry.prompt_tokens += round(factor * part.prompt_tokens)
        entry.completion_tokens += round(factor * part.completion_tokens)
        entry.cost = None if entry.cost is None or part.cost is None else entry.cost + factor * part.cost
    return found


def _is_measured(iteration: int, config: TrainConfig) -> bool:
    return iteration in (0, config.iterations) or iteration % config.evaluation.every == 0


def _rows(
    environments: Sequence[Environment], config: TrainConfig, train: Estimate, wants: RowsWanted
) -> tuple[int, int]:
    """Return the rows of one iteration at most, and the tokens of the longest on average."""
    turns = max(1, round(train.roles["agent"].calls / max(1, train.conversations)))
    chosen = most_chosen(environments, config, wants)
    agent = train.roles["agent"]
    tokens = (agent.prompt_tokens + agent.completion_tokens) // max(1, agent.calls)
    if config.layout == "conversation":
        return chosen, tokens * 2
    return chosen * turns, tokens


def most_chosen(environments: Sequence[Environment], config: TrainConfig, wants: RowsWanted) -> int:
    """Return how many conversations of one iteration are learnt from at most, both sides of a pair counted.

    Shares are rounded up in each group. In very large iterations, groups are those of their first conversations, repeated.
    """
    phase, selection = phase_config(config, 0, "train"), config.selection
    conversations = count_episodes(environments, phase)
    if wants == "all":
        return conversations
    level = "initial-state" if wants == "pairs" else selection.level
    sizes: Counter[tuple[str, ...]] = Counter()
    for episode in islice(episodes(environments, phase), _LOOKED_AT):
        key = episode.record.key
        names = (key.environment, key.scenario, key.initial_state, key.sample)
        sizes[Candidate(0, *names, population=episode.record.population, reward=0.0).group(level)] += 1
    chosen = 0
    for size in sizes.values():
        best = min(size, share_of(size, selection))
        chosen += best if wants == "best" else best + min(size - best, best)
    return min(conversations, math.ceil(chosen * max(1.0, conversations / _LOOKED_AT)))


def memory_need(shape: ModelShape, options: Mapping[str, Any]) -> Memory:
    """Return the memory of a training step with LoRA, AdamW and gradient checkpointing.

    Activations: one hidden state a layer kept, one layer at a time computed again (about 34 bytes an element and its
    attention in blocks: Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022), and the
    logits in 32 bits twice.
    """
    tokens = int(options.get("micro_batch", 4)) * int(options.get("max_length", 4096))
    lora = shape.lora_parameters(int(options.get("lora_r", 16)))
    width = {"4bit": 0.55, "8bit": 1.05}.get(str(options.get("quantize")), 2.0)
    kept = 2.0 * tokens * shape.hidden * shape.layers
    if options.get("gradient_checkpointing") is False:
        kept *= 17.0
    computed = tokens * (34.0 * shape.hidden + 6.0 * shape.inner)
    return Memory(
        weights=width * shape.parameters / GIB,
        lora=4.0 * lora / GIB,
        optimiser=12.0 * lora / GIB,
        activations=(kept + computed + 8.0 * tokens * shape.vocabulary) / GIB,
        overhead=_OVERHEAD / GIB,
    )


def _hours(
    times: Sequence[tuple[Estimate, int]],
    models: Mapping[Role, RoleModel],
    shapes: Mapping[str, ModelShape | None],
    train_tokens: int,
) -> float | None:
    """Return hours on one accelerator; roles whose size is not known (a provider's) count nothing."""
    agent = shapes.get(models["agent"].name.base)
    if agent is None:
        return None
    speed = TERAFLOPS * 1e12
    seconds = 8.0 * agent.parameters * train_tokens / (TRAIN_SHARE * speed)
    for part, count in times:
        for role, entry in part.roles.items():
            shape = shapes.get(models[role].name.base)
            if shape is not None:
                flops = 2.0 * shape.parameters * count
                seconds += flops * entry.prompt_tokens / (PROMPT_SHARE * speed)
                seconds += flops * entry.completion_tokens / (REPLY_SHARE * speed)
    return seconds / 3600.0
