"""One request inside the engine: what is wanted, how far it is, and where its keys and values lie.

Invariant: position p of a sequence lies in one of the spans of ``above`` or, from ``base`` on, at index p - base of
``segment``; ``computed`` positions are written; ``published`` positions are covered by the tree node ``node``.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from influence_cli.api import ChoiceTrie, build_trie
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.segments import Segment, Span
from influence_transformers.engine.tree import Node, Tokens


@dataclass
class TextTask:
    """Generate: at most ``max_tokens``, at least ``min_tokens``, until a stop string or an ending token."""

    draws: Draws
    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()


@dataclass
class ChoiceTask:
    """Score choices, given by their tokens; ``ending``: each as the whole of an answer, else as what goes on next."""

    choices: list[list[int]]
    ending: bool = True
    trie: ChoiceTrie = field(init=False)

    def __post_init__(self) -> None:
        self.trie = build_trie(self.choices)


class TextResult(NamedTuple):
    """A reply: its text without stop string and control tokens, and what it took."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int


class ChoiceResult(NamedTuple):
    """Natural log probability of each choice, ending included, and what it took."""

    log_probabilities: list[float]
    prompt_tokens: int
    cached_tokens: int


@dataclass(eq=False)
class Sequence:
    """A request that waits or runs; ``prompt`` is never empty."""

    prompt: Tokens
    task: TextTask | ChoiceTask
    adapter: str | None
    future: Future[TextResult | ChoiceResult]
    generated: list[int] = field(default_factory=list)
    node: Node | None = None
    above: list[Span] = field(default_factory=list)
    segment: Segment | None = None
    base: int = 0
    cached: int = 0
    computed: int = 0
    published: int = 0

    @property
    def prefilling(self) -> bool:
        """Whether positions of the prompt are still to be computed."""
        return self.computed < len(self.prompt)

    @property
    def growth(self) -> int:
        """Most positions that the reply can add."""
        return self.task.max_tokens if isinstance(self.task, TextTask) else 0

    def token_at(self, position: int) -> int:
        """Return the token at a position of prompt and reply."""
        at = position - len(self.prompt)
        return self.generated[at] if at >= 0 else int(self.prompt[position])

    def tokens_between(self, start: int, stop: int) -> Tokens:
        """Return the tokens at positions ``start`` to ``stop`` of prompt and reply."""
        if stop <= len(self.prompt):
            return self.prompt[start:stop]
        reply = np.asarray(self.generated, np.int32)
        return np.concatenate([self.prompt, reply])[start:stop]
