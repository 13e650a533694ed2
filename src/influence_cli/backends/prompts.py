"""From messages to token ids, by the model's own chat template.

Concept: messages are first shaped until the template takes them and loses none (:func:`shapes` lists the ways, from "as
they are" to "everything folded into alternating user and assistant messages"), then rendered and tokenised as
``apply_chat_template`` does. Invariant: only the template makes control tokens; text in a message that spells one is
tokenised as ordinary text. A local backend samples and a local algorithm trains through the same rendering, so that what
is learnt is what was sampled.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from influence_cli.backends.shapes import Turn, shapes, turns
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ToolSchema

_MARK = "\ue000{}\ue001"
"""Stands for control tokens spelt in a message while the template is rendered (private-use characters)."""


class Prompts:
    """The chat template and tokenizer of one model; used by one thread.

    ``ending`` are the ids after which an answer is over: the model's end-of-sequence ids and the token that its
    template puts after an assistant message.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], name: str) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise InfluenceError(
                f"The model {name!r} has no chat template, so it cannot hold a conversation.",
                hint="Name an instruction-tuned (chat) model, often called ...-Instruct or ...-it.",
            )
        added = tokenizer.added_tokens_decoder
        template = str(tokenizer.chat_template)
        self._control = {i: str(t) for i, t in added.items() if getattr(t, "special", True) or str(t) in template}
        self._shape: dict[tuple[str, ...], int] = {}
        self._inert = functools.lru_cache(maxsize=4096)(self._is_inert)
        turn_end = self._turn_end()
        found = {*end_ids, tokenizer.eos_token_id, *turn_end} - {None}
        self.ending: frozenset[int] = frozenset(int(i) for i in found if i is not None)
        if not self.ending:
            raise InfluenceError(f"The tokenizer of {name!r} has no token that ends a reply.")
        self._end: int = turn_end[0] if turn_end else min(self.ending)

    def encode(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = (), *, begun: str = ""
    ) -> list[int]:
        """Return the ids of a prompt that ends where the answer begins, or after what has ``begun`` of it.

        Raises CallFailedError if the template refuses the messages.
        """
        text, marks = self._rendered(messages, tools)
        ids = self._tokenise(text, marks)
        if begun:
            ids += self._plain(begun) if self._inert(begun) else self._harmless(begun)
        return ids

    def encode_exchange(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = (), *, ended: bool = True
    ) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt and those of the reply to it, the last message, its end-of-turn token last.

        The prompt's ids are those of :meth:`encode`. The reply's are what the template makes of it, if the prompt's stand
        before them and they say what the reply says; else what the tokenizer makes of the reply alone, as for a reply
        that has begun. Without ``ended`` the end-of-turn token is left out: the reply was cut off.

        Raises CallFailedError if the template refuses the messages, or makes no reply of calls that a reply holds.
        """
        prompt, reply = self.encode(messages[:-1], tools), messages[-1]
        answer = self._answer_in_template(messages, tools, prompt)
        if answer is None:
            if reply.tool_calls:
                raise CallFailedError(
                    "invalid_request", "The model's chat template cannot take this reply's tool calls."
                )
            answer = self._plain(reply.content) if self._inert(reply.content) else self._harmless(reply.content)
            answer.append(self._end)
        return prompt, answer if ended else answer[:-1]

    def _answer_in_template(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], prompt: list[int]
    ) -> list[int] | None:
        """Return the reply's ids as the template makes them after ``prompt``, to its end; None where it does not."""
        ids = self._tokenise(*self._rendered(messages, tools, prompting=False))
        if ids[: len(prompt)] != prompt:
            return None
        rest = ids[len(prompt) :]
        end = next((at for at, token in enumerate(rest) if token in self.ending), None)
        reply = messages[-1]
        if end is None or (not reply.tool_calls and self.decode(rest[:end]) != reply.content):
            return None
        return rest[: end + 1]

    def encode_choices(self, prompt: Sequence[int], choices: Sequence[str]) -> list[list[int]]:
        """Return each choice's canonical ids after ``prompt``.

        Of the several token sequences that spell a choice, the canonical one is what the tokenizer makes of it right
        after the prompt's last text; where it would merge over that border, what it makes of the choice alone, without
        the space that some tokenizers put before a text.
        """
        tail = self._tail(prompt)
        spelled = self._plain(tail)
        found: list[list[int]] = []
        for choice in choices:
            whole = self._plain(tail + choice)
            ids = whole[len(spelled) :] if whole[: len(spelled)] == spelled else []
            if not ids:
                ids = self._unspaced(choice)
            if self._control.keys() & set(ids):
                raise CallFailedError("invalid_request", f"The choice {choice!r} spells a control token of the model.")
            found.append(ids)
        if len({tuple(ids) for ids in found}) != len(found) or not all(found):
            raise CallFailedError("invalid_request", "The tokenizer spells two of the choices alike.")
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without control tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _rendered(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], *, prompting: bool = True
    ) -> tuple[str, list[str]]:
        marks: list[str] = []
        given = [self._neutral(turn, marks) for turn in turns(messages)]
        described = [tool.model_dump() for tool in tools]
        key = (
            *(f"{t['role']}{'+' if t.get('tool_calls') else ''}" for t in given),
            "tools" if tools else "",
            str(prompting),
        )
        reason = ""
        for index, shaped in enumerate(shapes(given, described)):
            if index < self._shape.get(key, 0):
                continue
            try:
                text = self._render(shaped.turns, shaped.tools, prompting=prompting)
            except (TemplateError, TypeError, ValueError, KeyError) as error:
                reason = str(error)
                continue
            lost = next((t for t in shaped.must_appear if t.strip() not in text), None)
            if lost is None:
                self._shape[key] = index
                return text, marks
            reason = f"it leaves out {lost[:60]!r}"
        raise CallFailedError("invalid_request", f"The model's chat template cannot take this prompt: {reason}")

    def _render(self, shaped: list[Turn], tools: list[dict[str, Any]] | None, *, prompting: bool) -> str:
        wrapped = [{"type": "function", "function": t} for t in tools] if tools else None
        text: str = self.tokenizer.apply_chat_template(
            shaped, tools=wrapped, add_generation_prompt=prompting, tokenize=False
        )
        return text

    def _neutral(self, turn: Turn, marks: list[str]) -> Turn:
        """Return the turn with each control token spelt in its text replaced by a mark."""
        content = turn["content"].replace("\ue000", "\ufffd").replace("\ue001", "\ufffd")
        if self._inert(content):
            return {**turn, "content": content}
        for spelling in sorted(self._control.values(), key=len, reverse=True):
            if spelling.strip() and spelling in content:
                content = content.replace(spelling, _MARK.format(len(marks)))
                marks.append(spelling)
        if not self._inert(content):
            marks.append(content)
            content = _MARK.format(len(marks) - 1)
        return {**turn, "content": content}

    def _is_inert(self, content: str) -> bool:
        return not self._control.keys() & set(self._plain(content))

    def _tokenise(self, text: str, marks: list[str]) -> list[int]:
        if not marks:
            return self._plain(text)
        ids: list[int] = []
        for piece, mark in _pieces(text, len(marks)):
            ids += self._plain(piece) if mark is None else self._harmless(marks[mark])
        return ids

    def _harmless(self, text: str) -> list[int]:
        """Return ids of a text that spells control tokens, none of them a control token."""
        for cut in (len(text), 1):
            ids = [i for start in range(0, len(text), cut) for i in self._split(text[start : start + cut])]
            if not self._control.keys() & set(ids):
                return ids
        raise CallFailedError("invalid_request", "A message holds a control token that cannot be spelt otherwise.")

    def _split(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _plain(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _tail(self, prompt: Sequence[int]) -> str:
        """Return the text after the prompt's last control token (at most its last 16 tokens)."""
        tail: list[int] = []
        for i in reversed(prompt[-16:]):
            if i in self._control:
                break
            tail.append(i)
        text: str = self.tokenizer.decode(tail[::-1], clean_up_tokenization_spaces=False)
        return text

    def _unspaced(self, choice: str) -> list[int]:
        ids = self._plain(choice)
        if len(ids) > 1 and self.tokenizer.decode(ids[:1]).strip() == "":
            return ids[1:]
        return ids

    def _turn_end(self) -> list[int]:
        """Return the control token that follows an assistant message in the template, if there is one."""
        probe = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "\ue000"}]
        try:
            text: str = self.tokenizer.apply_chat_template(probe, add_generation_prompt=False, tokenize=False)
        except (TemplateError, TypeError, ValueError, KeyError):
            return []
        after = self._plain(text.rpartition("\ue000")[2].lstrip()[:200])
        return after[:1] if after and after[0] in self._control else []


def _pieces(text: str, count: int) -> Iterator[tuple[str, int | None]]:
    """Yield the text between marks, and the marks' numbers, in order of appearance."""
    at = 0
    while at < len(text):
        start = text.find("\ue000", at)
        stop = text.find("\ue001", start)
        number = text[start + 1 : stop] if start >= 0 and stop >= 0 else ""
        if not number.isdigit() or int(number) >= count:
            yield text[at:], None
            return
        yield text[at:start], None
        yield "", int(number)
        at = stop + 1
