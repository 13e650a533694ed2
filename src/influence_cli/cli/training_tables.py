"""How training looks: the table of iterations, and what a run will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from influence_cli.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from influence_cli.schemas.configs import TrainConfig
    from influence_cli.schemas.messages import Role
    from influence_cli.simulation.models import RoleModel
    from influence_cli.training.estimate import TrainEstimate


def iterations_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the iterations as a table: measured on held-out states, then what was learnt from."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for heading in ("iter.", "held-out (95 %)", "change (95 %)", "veto", "rows", "loss", "moved", "adapter"):
        wraps = heading.endswith("(95 %)")
        table.add_column(heading, justify="left" if heading == "adapter" else "right", no_wrap=not wraps)
    for row in rows:
        heldout, learnt = row["heldout"] or {}, row["stages"]["train"] or {}
        table.add_row(
            str(row["iteration"]),
            _with_interval(heldout.get("reward")),
            _with_interval(row["change"], sign="+"),
            _number(heldout.get("veto"), 3),
            f"{learnt['rows']:,}" if "rows" in learnt else "",
            _number(learnt.get("last_loss")),
            _number(learnt.get("moved"), 3),
            output.plain(str(learnt.get("digest", ""))[:8]),
        )
    return table


def _with_interval(found: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if not found:
        return ""
    interval = "" if found["low"] is None else f" ({found['low']:.2f} to {found['high']:.2f})"
    return f"{found['mean']:{sign}.2f}{interval}"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def estimate_document(config: TrainConfig, models: Mapping[Role, RoleModel], estimate: TrainEstimate) -> dict[str, Any]:
    """Return the documented object ``influence.train.dry-run/1``."""
    from influence_cli.training.estimate import TERAFLOPS

    memory = estimate.memory
    return {
        "schema": "influence.train.dry-run/1",
        "config": config.model_dump(mode="json"),
        "models": {role: str(model.name) for role, model in models.items()},
        "iterations": config.iterations,
        "conversations": estimate.conversations,
        "calls": estimate.calls,
        "tokens": estimate.tokens,
        "cost": estimate.cost,
        "rows": estimate.rows,
        "train_tokens": estimate.train_tokens,
        "parameters": estimate.parameters,
        "memory_gib": None if memory is None else {**vars(memory), "total": memory.total},
        "hours": estimate.hours,
        "teraflops": TERAFLOPS,
        "unknown": list(estimate.unknown),
    }


def estimate_lines(
    config: TrainConfig, models: Mapping[Role, RoleModel], estimate: TrainEstimate
) -> Iterator[RenderableType]:
    """Yield what the run takes, for people."""
    from rich.table import Table
    from rich.text import Text

    from influence_cli.cli.costs import DONE_NOTHING, cost_text
    from influence_cli.training.estimate import TERAFLOPS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("an iteration's", "role", "model"):
        table.add_column(heading, overflow="fold")
    for heading in ("calls", "prompt tokens", "reply tokens"):
        table.add_column(heading, justify="right")
    for phase, part in estimate.phases.items():
        for role, entry in part.roles.items():
            figures = (f"{entry.calls:,}", f"{entry.prompt_tokens:,}", f"{entry.completion_tokens:,}")
            table.add_row(phase, role, output.plain(str(models[role].name)), *figures)
    yield table
    cost = cost_text(estimate.cost)
    told = [
        f"At most, over {config.iterations} iterations: {estimate.conversations:,} conversations, {estimate.calls:,} "
        f"calls, {estimate.tokens:,} tokens ({cost}).",
        f"Training, each iteration: {estimate.rows:,} rows, {estimate.train_tokens:,} tokens.",
    ]
    memory = estimate.memory
    if memory is None or estimate.parameters is None or estimate.hours is None:
        told.append(f"The size of {models['agent'].name.base} is not known here: no memory and time are reckoned.")
    else:
        told += [
            f"Training takes {memory.total:.1f} GiB of an accelerator: weights {memory.weights:.1f}, LoRA "
            f"{memory.lora:.2f}, optimiser {memory.optimiser:.2f}, activations {memory.activations:.1f}, overhead "
            f"{memory.overhead:.1f} ({estimate.parameters / 1e9:.2f} billion parameters).",
            f"About {estimate.hours:,.1f} hours on one accelerator of {TERAFLOPS:.0f} TFLOP/s"
            + (f", without {', '.join(estimate.unknown)}" if estimate.unknown else "")
            + ".",
        ]
    yield Text("\n" + "\n".join([*told, DONE_NOTHING]))
