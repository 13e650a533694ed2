"""The engine for models that attention over segments does not serve.

Concept: one request at a time through the model's own forward pass and its own cache: slow, and right for every causal
language model (state-space and hybrid layers, sliding windows, score caps). Same results, same interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from influence_cli.api import build_trie
from influence_transformers.engine.choices import Question, choice_log_probabilities
from influence_transformers.engine.sampling import draw_tokens
from influence_transformers.engine.sequences import ChoiceResult, ChoiceTask, Sequence, TextResult, TextTask
from influence_transformers.engine.stopping import finished


class PlainEngine:
    """Runs one sequence after the other."""

    def __init__(
        self,
        model: Any,
        switch: Callable[[str | None], None],
        decode: Callable[[list[int]], str],
        *,
        ending: frozenset[int],
    ) -> None:
        self._model = model
        self._switch = switch
        self._decode = decode
        self._ending = ending
        self._waiting: list[Sequence] = []

    @property
    def busy(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def step(self) -> None:
        """Serve the sequence that waits longest."""
        seq = self._waiting[0]
        if not seq.future.done():
            self._switch(seq.adapter)
            with torch.inference_mode():
                result = self._text(seq, seq.task) if isinstance(seq.task, TextTask) else self._choices(seq, seq.task)
            if not seq.future.done():
                seq.future.set_result(result)
        self._waiting.remove(seq)

    def fail(self, error: BaseException) -> None:
        """Give up everything that waits."""
        for seq in self._waiting:
            if not seq.future.done():
                seq.future.set_exception(error)
        self._waiting.clear()

    def lighten(self) -> bool:
        """Return False: one sequence is the least."""
        return False

    def _text(self, seq: Sequence, task: TextTask) -> TextResult:
        fed = torch.tensor([seq.prompt.tolist()], device=self._model.device)
        cache = None
        while True:
            out = self._model(input_ids=fed, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            row = out.logits[0, -1:].float()
            if len(seq.generated) < task.min_tokens:
                row[:, sorted(self._ending)] = -torch.inf
            token = draw_tokens(row, [task.draws])[0]
            seq.generated.append(token)
            end = finished(seq.generated, task, self._ending, self._decode)
            if end is not None or seq.future.done():
                text, reason = end or ("", "length")
                return TextResult(text, tuple(seq.generated), reason, len(seq.prompt), 0)
            fed = torch.tensor([[token]], device=self._model.device)

    def _choices(self, seq: Sequence, task: ChoiceTask) -> ChoiceResult:
        found = []
        for choice in task.choices:
            ids = torch.tensor([[*seq.prompt.tolist(), *choice]], device=self._model.device)
            logits = self._model(input_ids=ids, use_cache=False).logits[0, len(seq.prompt) - 1 :].float()
            ending = sorted(self._ending) if task.ending else ()
            found += choice_log_probabilities([Question(build_trie([choice]), 0, ending)], logits)[0]
        return ChoiceResult(found, len(seq.prompt), 0)
