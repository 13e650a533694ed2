"""Who runs next.

Concept: waiting sequences are admitted when there is a place and memory for them; each step computes one token of every
running reply and fills up with pieces of prompts. Invariants: a step never holds more than ``max_rows`` rows (a lone
question with its choices excepted); a sequence whose prompt shares a longer beginning with one being read than with
what is cached waits for it, so that nothing is read twice; the sequence that waits longest is always admitted once
nothing else runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch

from influence_transformers.engine.choices import Question, choice_log_probabilities
from influence_transformers.engine.forward import Layout, Work, lay_out
from influence_transformers.engine.sampling import draw_tokens
from influence_transformers.engine.segments import Pool, Span
from influence_transformers.engine.sequences import ChoiceResult, ChoiceTask, Sequence, TextResult, TextTask
from influence_transformers.engine.stopping import finished
from influence_transformers.engine.tree import PrefixTree, common_length

_log = logging.getLogger(__name__)
_WORTH_WAITING = 16
"""Tokens that must be saved for a sequence to wait for another one's prompt."""
_GROW = 64
"""Positions reserved beyond the prompt; more are added as the reply grows."""


@dataclass
class Counters:
    """What the engine did since it started."""

    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Scheduler:
    """Runs sequences over one model; used by one thread."""

    def __init__(
        self,
        compute: Callable[[str | None, Layout], torch.Tensor],
        decode: Callable[[list[int]], str],
        pool: Pool,
        *,
        release: Callable[[], None] = lambda: None,
        ending: frozenset[int],
        max_rows: int,
        max_running: int,
    ) -> None:
        self._compute = compute
        self._decode = decode
        self._release = release
        self.pool = pool
        self.tree = PrefixTree(pool)
        self._ending = sorted(ending)
        self._ends = ending
        self.max_rows = max_rows
        self.max_running = max_running
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.counters = Counters()

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def step(self) -> None:
        """Admit what fits, compute one pass per adapter in use, and resolve what is finished."""
        self._drop_cancelled()
        self._admit()
        works = self._works()
        for adapter in dict.fromkeys(w.sequence.adapter for w in works):
            group = [w for w in works if w.sequence.adapter == adapter]
            layout = lay_out(group)
            logits = self._compute(adapter, layout)
            self._advance(group, layout, logits)
        self.counters.steps += 1

    def fail(self, error: BaseException) -> None:
        """Give up everything that waits or runs."""
        for seq in self.waiting + self.running:
            if not seq.future.done():
                seq.future.set_exception(error)
        self._drop_cancelled()

    def lighten(self) -> bool:
        """Halve what is computed at once, after memory ran out; False if it cannot be less."""
        self._release()
        self.tree.evict(self.pool.used // 2)
        if self.max_rows <= 16:
            return False
        self.max_rows //= 2
        self.max_running = max(1, self.max_running // 2)
        return True

    def _drop_cancelled(self) -> None:
        self.waiting = [s for s in self.waiting if not s.future.done()]
        for seq in [s for s in self.running if s.future.done()]:
            self._leave(seq)

    def _admit(self) -> None:
        if not self.waiting:
            return
        owed = sum(self.pool.bytes_for(len(s.prompt) + s.growth - s.base) - _held(s) for s in self.running)
        for seq in list(self.waiting):
            if len(self.running) >= self.max_running:
                return
            if self._waits_for_other(seq):
                continue
            self._enter(seq)
            need = self.pool.bytes_for(len(seq.prompt) + seq.growth - seq.base) - _held(seq)
            fits = self.tree.evict(max(0, self.pool.budget - owed - need))
            if not fits and self.running:
                self._leave(seq)
                return
            owed += need
            self.waiting.remove(seq)
            self.running.append(seq)
            self._count(seq)

    def _count(self, seq: Sequence) -> None:
        self.counters.prompt_tokens += len(seq.prompt)
        self.counters.cached_tokens += seq.cached

    def _waits_for_other(self, seq: Sequence) -> bool:
        known = seq.prompt[:-1]
        others = [other.prompt for other in self.running if other.prefilling and other.adapter == seq.adapter]
        if not others or len(known) < _WORTH_WAITING:
            return False
        enough = self.tree.matched(seq.adapter, known) + _WORTH_WAITING
        if enough > len(known):
            return False
        last = known[enough - 1]  # looked at first: most others differ there, and few numbers are read
        return any(
            len(prompt) >= enough and prompt[enough - 1] == last and common_length(known[:enough], prompt) == enough
            for prompt in others
        )

    def _enter(self, seq: Sequence) -> None:
        """Give a sequence its place in the tree and a segment to write to."""
        known = seq.prompt[:-1]
        node = self.tree.descend(seq.adapter, known)
        seq.cached = seq.computed = seq.published = sum(len(n.tokens) for n in node.path())
        extra = len(seq.prompt) - seq.cached + min(seq.growth, _GROW)
        owned = self.tree.own(node, extra) if isinstance(seq.task, TextTask) else None
        if owned is None:
            seq.segment = self.pool.segment(extra)
            path = node.path()
        else:
            node, seq.segment = owned
            path = node.path()[:-1]
        seq.node = node
        seq.above = [n.span for n in path if n.span is not None]
        seq.base = sum(len(n.tokens) for n in path)
        self.tree.pin(node)

    def _leave(self, seq: Sequence) -> None:
        if seq.node is not None:
            own_end = seq.published > seq.cached  # else the path ends where somebody's conversation does
            self.tree.unpin(seq.node, asked=own_end and isinstance(seq.task, ChoiceTask))
        seq.node, seq.segment, seq.above = None, None, []
        if seq in self.running:
            self.running.remove(seq)

    def _works(self) -> list[Work]:
        works: list[Work] = []
        room = self.max_rows
        for seq in [s for s in self.running if not s.prefilling][:room]:
            works.append(Work(seq, 1, True))
            room -= 1
        for seq in [s for s in self.running if s.prefilling]:
            tail = len(seq.task.trie.tokens) if isinstance(seq.task, ChoiceTask) else 0
            left = len(seq.prompt) - seq.computed
            if left + tail <= room or not works:
                count, last = (left, True) if left <= max(room, 1) else (room, False)
            else:
                count, last = min(room, left - 1 if tail else left), False
            if count > 0:
                works.append(Work(seq, count, last))
                room -= count + (tail if last else 0)
            if room <= 0:
                break
        return works

    def _advance(self, works: list[Work], layout: Layout, logits: torch.Tensor) -> None:
        offsets = list(accumulate(layout.owners, initial=0))
        asked = [
            (seq, Question(seq.task.trie, offset, self._ending if seq.task.ending else ()))
            for (seq, _, last), offset in zip(works, offsets, strict=False)
            if last and isinstance(seq.task, ChoiceTask)
        ]
        replies = [
            (seq, seq.task, offset)
            for (seq, _, last), offset in zip(works, offsets, strict=False)
            if last and isinstance(seq.task, TextTask)
        ]
        # What may run out of memory comes first: a step that is done again finds everything as it was.
        answers = choice_log_probabilities([question for _, question in asked], logits) if asked else []
        tokens = self._drawn(replies, logits) if replies else []
        for seq, count, last in works:
            assert seq.segment is not None
            seq.computed += count
            seq.segment.length = seq.computed - seq.base
            if last and seq.published < len(seq.prompt):
                self._publish(seq)
        for (seq, _), found in zip(asked, answers, strict=True):
            self._resolve(seq, ChoiceResult(found, len(seq.prompt), seq.cached))
        for (seq, task, _), token in zip(replies, tokens, strict=True):
            self.counters.completion_tokens += 1
            seq.generated.append(token)
            end = finished(seq.generated, task, self._ends, self._decode)
            if end is not None:
                self._publish(seq)
                self._resolve(seq, TextResult(end[0], tuple(seq.generated), end[1], len(seq.prompt), seq.cached))

    def _drawn(self, replies: list[tuple[Sequence, TextTask, int]], logits: torch.Tensor) -> list[int]:
        rows = logits[[offset for _, _, offset in replies]] if len(replies) < len(logits) else logits
        early = [i for i, (seq, task, _) in enumerate(replies) if len(seq.generated) < task.min_tokens]
        if early:
            rows = self._without_ending(rows, early)
        return draw_tokens(rows, [task.draws for _, task, _ in replies])

    def _without_ending(self, rows: torch.Tensor, early: list[int]) -> torch.Tensor:
        """Return logits (rows x vocabulary) in which the rows that are ``early`` cannot end."""
        ending = torch.tensor(self._ending, device=rows.device)
        if len(early) == len(rows):
            return rows.index_fill(1, ending, -torch.inf)
        rows = rows.clone()
        rows[torch.tensor(early, device=rows.device).unsqueeze(1), ending.unsqueeze(0)] = -torch.inf
        return rows

    def _publish(self, seq: Sequence) -> None:
        """Let the tree cover what is computed of a sequence."""
        assert seq.node is not None
        assert seq.segment is not None
        if seq.published >= seq.computed:
            return
        fresh = seq.tokens_between(seq.published, seq.computed)
        start, stop = seq.published - seq.base, seq.computed - seq.base
        node = self.tree.extend(seq.node, fresh, Span(seq.segment, start, stop))
        if node is not None:
            seq.node, seq.published = node, seq.computed

    def _resolve(self, seq: Sequence, result: TextResult | ChoiceResult) -> None:
        self._leave(seq)
        if not seq.future.done():
            seq.future.set_result(result)


def _held(seq: Sequence) -> int:
    return 0 if seq.segment is None else seq.segment.capacity * seq.segment.pool.shape.token_bytes
