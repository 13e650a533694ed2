"""The batch API: a file of requests, a batch over it, files of answers and errors.

A batch carries its token as metadata and its file in the name, so that both are found again after a kill. This is not the
hot path: it goes through the ``openai`` package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import orjson

from influence_cli.api import (
    BatchAnswer,
    BatchProgress,
    BatchState,
    CallFailedError,
    ChoiceRequest,
    InfluenceError,
)
from influence_openai.failures import failure, redact
from influence_openai.options import OpenAIOptions
from influence_openai.wire import Payload

if TYPE_CHECKING:
    import openai

    from influence_openai.choosing import Chooser

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_TOKEN = "influence"  # noqa: S105 - the name of a piece of metadata
_WINDOW: Literal["24h"] = "24h"
_STATES: Mapping[str, BatchState] = {
    "completed": "done",
    "failed": "failed",
    "expired": "failed",
    "cancelled": "failed",
}


class Batches:
    """The batches of one model of one server."""

    def __init__(self, options: OpenAIOptions, chooser: Chooser) -> None:
        self._options = options
        self._chooser = chooser

    def line(self, key: str, request: ChoiceRequest) -> bytes:
        """Return a request as a line of a batch's file."""
        body = self._chooser.first_payload(request) | self._options.extra_body
        return orjson.dumps({"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body})

    async def upload(self, token: str, lines: Sequence[bytes]) -> str:
        """Return the identifier of the file of ``lines``, uploaded unless it is there."""
        name = f"{_TOKEN}-{token}.jsonl"
        async with self._client() as client:
            async for known in client.files.list(purpose="batch"):
                if known.filename == name:
                    return known.id
            made = await client.files.create(file=(name, b"\n".join(lines) + b"\n"), purpose="batch")
            return made.id

    async def start(self, token: str, file: str) -> str:
        """Return the identifier of the batch over ``file``, begun unless it was."""
        async with self._client() as client:
            async for known in client.batches.list(limit=100):
                if (known.metadata or {}).get(_TOKEN) == token:
                    return known.id
            made = await client.batches.create(
                input_file_id=file, endpoint=_ENDPOINT, completion_window=_WINDOW, metadata={_TOKEN: token}
            )
            return made.id

    async def look(self, batch: str) -> BatchProgress:
        """Return how far a batch is."""
        async with self._client() as client:
            found = await client.batches.retrieve(batch)
        counts = found.request_counts
        problems = "; ".join(str(error.message) for error in (found.errors and found.errors.data) or ())
        return BatchProgress(
            _STATES.get(found.status, "waiting"),
            total=counts.total if counts else 0,
            answered=counts.completed if counts else 0,
            failed=counts.failed if counts else 0,
            detail=f"{found.status}: {problems}" if problems else found.status,
        )

    async def collect(self, batch: str, choices: Mapping[str, Sequence[str]]) -> dict[str, BatchAnswer]:
        """Return the answers of a batch by key."""
        async with self._client() as client:
            found = await client.batches.retrieve(batch)
            files = list(filter(None, (found.error_file_id, found.output_file_id)))
            contents = [(await client.files.content(file)).content for file in files]
        lines = [line for content in contents for line in content.splitlines() if line.strip()]
        for line in lines:  # what any answer shows of the tokenizer helps to read the others
            self._read(line, choices)
        answers = dict(self._read(line, choices) for line in lines)
        return {key: answer for key, answer in answers.items() if key in choices}

    def _read(self, line: bytes, choices: Mapping[str, Sequence[str]]) -> tuple[str, BatchAnswer]:
        try:
            entry = orjson.loads(line)
            key, response = str(entry["custom_id"]), entry.get("response") or {}
            status = int(response.get("status_code") or 0)
            body: Payload = response.get("body") or {}
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            return "", CallFailedError("malformed", "A line of the batch's answers cannot be read.")
        if status != 200:
            if not status:
                said = str((entry.get("error") or {}).get("message") or "no answer")
                return key, CallFailedError("server_error", redact(said, self._options.read_key()))
            env = self._options.api_key_env
            return key, failure(status, {}, orjson.dumps(body), key=self._options.read_key(), env=env)
        try:
            return key, self._chooser.read_first(tuple(choices.get(key, ())), body)
        except CallFailedError as error:
            return key, error

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """Yield a client that repeats nothing by itself; what goes wrong is told in one line, without the key."""
        key = self._options.read_key()
        import openai

        client: Any = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self._options.base_url,
            organization=self._options.organisation,
            project=self._options.project,
            timeout=self._options.timeout,
            max_retries=0,
        )
        try:
            async with client:
                yield client
        except openai.AuthenticationError:
            raise InfluenceError(
                f"{self._options.base_url} refused the key.", hint=f"Check {self._options.api_key_env}."
            ) from None
        except openai.NotFoundError as error:
            said = redact(str(error), key)
            raise InfluenceError(
                f"{self._options.base_url} knows no batches: {said}", hint="Leave out --batch."
            ) from None
        except openai.APIStatusError as error:
            raise failure(error.status_code, error.response.headers, error.response.content, key=key, env="") from None
        except openai.OpenAIError as error:
            raise CallFailedError("connection", redact(str(error), key)) from None
