"""One packed forward pass: from a step's work to logits.

Concept: :func:`lay_out` turns "so many rows of this sequence" into tokens, positions and an attention plan;
:class:`Runner` sends them through the model. Invariant: only the logits that somebody needs are computed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from influence_transformers.engine.attention import Among, Attention, Plan, Read, Single, View, Write, use
from influence_transformers.engine.calls import Calls
from influence_transformers.engine.choices import seen_nodes
from influence_transformers.engine.segments import Span
from influence_transformers.engine.sequences import ChoiceTask, Sequence

SHORT = 64
"""Positions that are rather copied than read apart."""


class Work(NamedTuple):
    """``rows`` more positions of a sequence, and whether logits are wanted after the last one."""

    sequence: Sequence
    rows: int
    last: bool


@dataclass
class Layout:
    """A packed pass. ``logit_rows`` are the rows whose logits are wanted, ``owners[i]`` how many of them work i owns."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    logit_rows: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)


@dataclass
class SharedRead:
    """Rows that see the same spans, of which the last hangs below those of ``parent`` in the tree."""

    spans: tuple[Span, ...]
    parent: SharedRead | None
    rows: list[int] = field(default_factory=list)

    def go_on_from_parent(self) -> None:
        """See what the parent sees as well, in one read, where that is short and most of its rows are ours.

        A read costs its rows two copies and a place in their sum, however little there is to see.
        """
        if self.parent is None:
            return
        if sum(span.stop - span.start for span in self.parent.spans) > SHORT:
            return
        ours, theirs = set(self.rows), set(self.parent.rows)
        if 2 * len(ours) > len(theirs) and ours <= theirs:
            self.parent.rows = sorted(theirs - ours)
            self.spans = (*self.parent.spans, *self.spans)


def lay_out(works: list[Work]) -> Layout:
    """Return the packed pass for ``works``, all of one adapter; those of one row first."""
    layout = Layout()
    plan = layout.plan
    shared: dict[tuple[int, int, int], SharedRead] = {}
    for seq, count, last in works:
        assert seq.segment is not None
        start, done = len(layout.tokens), seq.computed
        own = done - seq.base
        seq.segment.reserve(own + count)
        if count == 1 and start == len(plan.singles):
            layout.tokens.append(seq.token_at(done))
            layout.positions.append(done)
            plan.singles.append(Single(seq.segment, own))
        else:
            layout.tokens += seq.tokens_between(done, done + count).tolist()
            layout.positions += range(done, done + count)
            plan.writes.append(Write(seq.segment, own, start, start + count))
            if own:
                plan.reads.append(Read((Span(seq.segment, 0, own),), range(start, start + count)))
            plan.among.append(Among(start, start + count, None))
        plan.views.append(View(start, start + count, tuple(seq.above), seq.segment, own, None))
        wanted = [start + count - 1] if last else []
        if last and isinstance(seq.task, ChoiceTask):
            wanted += _lay_out_choices(layout, seq, own + count)
        layout.logit_rows += wanted
        layout.owners.append(len(wanted))
        above = None
        for span in seq.above:
            key = (id(span.segment), span.start, span.stop)
            if key not in shared:
                shared[key] = SharedRead((span,), above)
            above = shared[key]
            above.rows += range(start, len(layout.tokens))
    for read in shared.values():
        read.go_on_from_parent()
    for read in shared.values():
        if read.rows:
            plan.reads.append(Read(read.spans, read.rows))
    plan.rows = len(layout.tokens)
    return layout


def _lay_out_choices(layout: Layout, seq: Sequence, own: int) -> list[int]:
    assert isinstance(seq.task, ChoiceTask)
    assert seq.segment is not None
    trie = seq.task.trie
    start = len(layout.tokens)
    stop = start + len(trie.tokens)
    layout.tokens += trie.tokens
    layout.positions += [len(seq.prompt) + depth for depth in trie.depths]
    layout.plan.reads.append(Read((Span(seq.segment, 0, own),), range(start, stop)))
    mask = seen_nodes(trie)
    layout.plan.among.append(Among(start, stop, mask))
    layout.plan.views.append(View(start, stop, tuple(seq.above), seq.segment, own, mask))
    return list(range(start, stop))


def apart(own: torch.Tensor, ours: torch.Tensor) -> float:
    """Return by how many standard deviations of a row's own logits (rows x vocabulary) others differ at most."""
    return float(((own - ours).abs() / own.std(dim=-1, keepdim=True).clamp_min(1e-6)).max())


class Model:
    """A model whose attention is :mod:`influence_transformers.engine.attention`, asked for some rows' logits."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._some_logits = "logits_to_keep" in inspect.signature(type(model).forward).parameters

    def logits(
        self, attention: Attention, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary, of a pass of ``tokens`` at ``positions`` (one of each a row)."""
        extra = {"logits_to_keep": wanted} if self._some_logits else {}
        use(attention)
        try:
            out = self._model(
                input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, **extra
            )
            found: torch.Tensor = out.logits[0]
            return (found if self._some_logits else found[wanted]).float()
        finally:
            use(None)


class Runner:
    """Sends packed passes through a model, a kernel call for each part of them."""

    def __init__(self, model: Any) -> None:
        self._model = Model(model)
        self.device = torch.device(model.device)

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:  # noqa: ARG002 - all are served alike
        """Return float32 logits, wanted rows x vocabulary, having written the pass's keys and values."""
        tokens, positions, wanted = (
            torch.tensor(numbers, device=self.device, dtype=torch.long)
            for numbers in (layout.tokens, layout.positions, layout.logit_rows)
        )
        with torch.inference_mode():
            return self._model.logits(Calls(layout.plan, self.device), tokens, positions, wanted)

    def release(self) -> None:
        """Give back nothing: no memory is held between passes."""
