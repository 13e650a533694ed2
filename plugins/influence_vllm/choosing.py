"""Closed questions answered exactly by an engine that gives the log-probabilities of named tokens.

Concept: for every node of the choices' trie the engine is asked for one token after the prompt and the answer so far,
and shows there the log-probabilities of the tokens that go on and of those that end an answer. All of these requests
share the prompt's prefix, which is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from influence_cli.api import CallFailedError, ChoiceTrie, answer_log_probabilities, build_trie

MOST_TOKENS = 128
"""Log-probabilities of so many named tokens are what vLLM gives at one place."""


@dataclass(frozen=True)
class Question:
    """One place to look at: the tokens after the prompt, and those whose log-probabilities are wanted there."""

    answer: tuple[int, ...]
    wanted: tuple[int, ...]


class ChoiceQuestions:
    """The places to look at for one list of choices, and the probabilities that follow from what is seen there."""

    def __init__(self, choices: Sequence[Sequence[int]], ending: Iterable[int]) -> None:
        self.trie: ChoiceTrie = build_trie(choices)
        self._ending = tuple(sorted(ending))
        wanted: dict[int, list[int]] = {}
        for node, parent in enumerate(self.trie.parents):
            wanted.setdefault(parent, []).append(self.trie.tokens[node])
        for node in self.trie.ends:
            wanted.setdefault(node, []).extend(self._ending)
        self._nodes = sorted(wanted)
        self.questions = [
            Question(tuple(self.trie.path(node)), tuple(dict.fromkeys(wanted[node]))) for node in self._nodes
        ]
        if max(len(question.wanted) for question in self.questions) > MOST_TOKENS:
            raise CallFailedError(
                "invalid_request", f"vLLM tells at most {MOST_TOKENS} choices apart that begin alike.", attempts=0
            )

    @property
    def longest(self) -> int:
        """The most tokens after the prompt, one that ends the answer included."""
        return max(self.trie.depths) + 2

    def log_probabilities(self, seen: Sequence[Mapping[int, float]]) -> list[float]:
        """Return each choice's log-probability as a whole answer; ``seen`` are the tokens' at each question's place."""
        at = dict(zip(self._nodes, seen, strict=True))
        steps = [at[parent][token] for token, parent in zip(self.trie.tokens, self.trie.parents, strict=True)]
        whole = set(self.trie.ends)
        endings = [
            _sum_of_exponentials([at[node][token] for token in self._ending]) if node in whole else -math.inf
            for node in range(len(self.trie.tokens))
        ]
        return answer_log_probabilities(self.trie, steps, endings)


def _sum_of_exponentials(values: Sequence[float]) -> float:
    """Return log(sum(exp(values)))."""
    top = max(values)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(value - top) for value in values))
