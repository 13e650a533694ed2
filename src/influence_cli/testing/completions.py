"""What the test server answers a chat completion with, in the form of OpenAI's API.

Concept: :mod:`influence_cli.testing.answers` gives what is said; here it becomes choices with log-probabilities and calls
of tools, and tokens are counted. A token is a word; of a prompt, a message costs four more.

Invariant: the same configuration and request have the same answer, but for how much of the prompt was read before.
"""

from __future__ import annotations

from typing import Any

import orjson

from influence_cli.seeding import derive_seed
from influence_cli.testing.answers import END, Speech, answer_choice, answer_text, answer_value, asked_choices
from influence_cli.testing.server_config import ServerConfig

_SHORT_ANSWER = 32
_RATING = tuple(str(number) for number in range(1, 11))


class PrefixCache:
    """The beginnings of all prompts that were read."""

    def __init__(self) -> None:
        self._read: set[tuple[str, ...]] = set()

    def read(self, messages: list[dict[str, Any]]) -> int:
        """Return how many words of a prompt are the beginning of one read before, and remember this one."""
        words = tuple(word for message in messages for word in str(message["content"]).split())
        shared = 0
        while shared < len(words) and words[: shared + 1] in self._read:
            shared += 1
        self._read.update(words[:length] for length in range(1, len(words) + 1))
        return shared


def complete(config: ServerConfig, body: dict[str, Any], cache: PrefixCache) -> dict[str, Any]:
    """Return the answer to a request that is in order; ``cache`` remembers its prompt."""
    messages = body["messages"]
    prefix = ""
    if config.continues and body.get("continue_final_message") and messages[-1]["role"] == "assistant":
        prefix, messages = str(messages[-1]["content"]), messages[:-1]
    key = derive_seed(config.seed, body["model"], orjson.dumps(messages, option=orjson.OPT_SORT_KEYS).decode())
    count = int(body.get("n") or 1) if config.honours_n else 1
    speeches = [_speak(config, body, messages, key, prefix, index) for index in range(count)]
    wants = bool(body.get("logprobs")) and config.logprobs
    prompt = sum(4 + len(str(message["content"]).split()) for message in messages) + 3 + len(prefix.split())
    cached = cache.read(messages) if config.prefix_cache else 0
    completion = sum(len(speech.tokens) for speech in speeches)
    choices = [
        _choice(index, speech, body, top=_shown(config, body) if wants else None)
        for index, speech in enumerate(speeches)
    ]
    return {
        "id": f"chatcmpl-{key:x}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _shown(config: ServerConfig, body: dict[str, Any]) -> int:
    asked = int(body.get("top_logprobs") or 0)
    return asked if config.shows_top is None else min(asked, config.shows_top)


def _speak(config: ServerConfig, body: dict[str, Any], messages: Any, key: int, prefix: str, index: int) -> Speech:
    most = int(body.get("max_completion_tokens") or body.get("max_tokens") or 4096)
    temperature = float(body.get("temperature", 1.0))
    seed = int(body.get("seed") or 0) + index
    lines = str(messages[-1]["content"]).strip().splitlines()
    asked = asked_choices(lines[-1] if lines else "")
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        value = orjson.dumps(answer_value(wanted["json_schema"]["schema"], derive_seed(key, seed))).decode()
        return Speech((value,), (((value, 0.0),),), ended=True)
    if body.get("logprobs") or (asked and most <= _SHORT_ANSWER):
        return answer_choice(
            key,
            asked or _RATING,
            prefix=prefix,
            most=most,
            seed=seed,
            temperature=temperature,
            split_numbers=config.split_numbers,
            shows_end=config.shows_end,
        )
    if config.texts:
        text = config.texts[derive_seed(key, seed) % len(config.texts)]
        return Speech((text,), (((text, 0.0),),), ended=True)
    least = int(body.get("min_tokens") or 0)
    words = config.reply_words
    return answer_text(key, least=least, most=most, seed=seed, temperature=temperature, words=words)


def _choice(index: int, speech: Speech, body: dict[str, Any], *, top: int | None) -> dict[str, Any]:
    text, finish = speech.text, "stop" if speech.ended else "length"
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    last = body["messages"][-1]
    for tool in body.get("tools") or ():
        name = tool["function"]["name"]
        if name in str(last["content"]) and last["role"] != "tool":
            schema = tool["function"].get("parameters") or {}
            arguments = orjson.dumps(answer_value(schema, derive_seed(str(last["content"])))).decode()
            call = {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
            message |= {"content": None, "tool_calls": [call]}
            finish = "tool_calls"
    logprobs = None
    if top is not None:
        logprobs = {
            "content": [
                {
                    "token": token,
                    "logprob": dict(place)[token],
                    "bytes": None,
                    "top_logprobs": [{"token": t, "logprob": p, "bytes": None} for t, p in place[:top]],
                }
                for token, place in zip((*speech.tokens, END), speech.places, strict=False)
            ]
        }
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
