"""The part of the test server that takes files and batches, as OpenAI's API has them.

    POST /v1/files    GET /v1/files    GET /v1/files/{id}    GET /v1/files/{id}/content
    POST /v1/batches    GET /v1/batches    GET /v1/batches/{id}

A batch is answered ``batch_seconds`` after it was begun, each of its requests as the chat endpoint would answer it, faults
included: those that fail go to the error file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from influence_cli.testing.server_config import ServerConfig

Answer = Callable[[dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""Gives status and body of the answer to one chat request."""

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Desk(Protocol):
    """What the batch endpoints need of the server."""

    @property
    def config(self) -> ServerConfig:
        """How it behaves now."""
        ...

    def refused(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without the key that is required."""
        ...


class BatchDesk:
    """Files and batches of one server, in memory."""

    def __init__(self, server: Desk, answer: Answer) -> None:
        self._server = server
        self._answer = answer
        self.reset()

    def reset(self) -> None:
        """Forget all files and batches."""
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def add_to(self, app: web.Application) -> None:
        """Serve the endpoints, to those who have the key."""

        def keyed(handler: Handler) -> Handler:
            async def answer(request: web.Request) -> web.Response:
                return self._server.refused(request) or await handler(request)

            return answer

        app.router.add_post("/v1/files", keyed(self._upload))
        app.router.add_get("/v1/files", keyed(self._list_files))
        app.router.add_get("/v1/files/{id}", keyed(self._file))
        app.router.add_get("/v1/files/{id}/content", keyed(self._content))
        app.router.add_post("/v1/batches", keyed(self._create))
        app.router.add_get("/v1/batches", keyed(self._list_batches))
        app.router.add_get("/v1/batches/{id}", keyed(self._batch))

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file: Any = form.get("file")
        if not isinstance(file, web.FileField):
            return _refused(400, "The request holds no file.")
        made = self._add_file(file.filename, str(form.get("purpose")), file.file.read())
        await asyncio.sleep(self._server.config.batch_hold)
        return _json(made)

    def _add_file(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        number = f"file-{len(self.files) + 1}"
        facts = {"object": "file", "created_at": int(time.time()), "status": "processed", "bytes": len(content)}
        self.files[number] = {"id": number, "filename": name, "purpose": purpose, **facts}
        self.contents[number] = content
        return self.files[number]

    async def _list_files(self, request: web.Request) -> web.Response:
        purpose = request.query.get("purpose")
        found = [file for file in self.files.values() if purpose in (None, file["purpose"])]
        return _page(request, found[::-1])

    async def _file(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        return _json(file) if file else _refused(404, "No such file.")

    async def _content(self, request: web.Request) -> web.Response:
        content = self.contents.get(request.match_info["id"])
        return web.Response(body=content) if content is not None else _refused(404, "No such file.")

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if body.get("input_file_id") not in self.files:
            return _refused(400, "The input file does not exist.")
        number = f"batch_{len(self.batches) + 1}"
        self.batches[number] = {
            "id": number,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "metadata": body.get("metadata"),
            "created_at": int(time.time()),
            "status": "in_progress",
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "begun": time.monotonic(),
        }
        await asyncio.sleep(self._server.config.batch_hold)
        return _json(_shown(self.batches[number]))

    async def _list_batches(self, request: web.Request) -> web.Response:
        return _page(request, [_shown(batch) for batch in self.batches.values()][::-1])

    async def _batch(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _refused(404, "No such batch.")
        over = time.monotonic() - batch["begun"] >= self._server.config.batch_seconds
        if batch["status"] == "in_progress" and over:
            batch["status"] = "finalizing"
            await self._finish(batch)
        return _json(_shown(batch))

    async def _finish(self, batch: dict[str, Any]) -> None:
        """Answer every request of a batch, up to the share of it that is answered before it expires."""
        lines = self.contents[batch["input_file_id"]].splitlines()
        done = lines[: int(len(lines) * self._server.config.batch_answered)]
        answered: list[bytes] = []
        failed: list[bytes] = []
        for line in done:
            asked = orjson.loads(line)
            status, body = await self._answer(asked["body"])
            response = {"status_code": status, "request_id": asked["custom_id"], "body": body}
            entry = {
                "id": f"r-{asked['custom_id']}",
                "custom_id": asked["custom_id"],
                "response": response,
                "error": None,
            }
            (answered if status == 200 else failed).append(orjson.dumps(entry))
        for found, name, purpose in (
            (answered, "output_file_id", "batch_output"),
            (failed, "error_file_id", "batch_output"),
        ):
            if found:
                batch[name] = self._add_file(f"{batch['id']}-{name}.jsonl", purpose, b"\n".join(found))["id"]
        batch["request_counts"] = {"total": len(lines), "completed": len(answered), "failed": len(failed)}
        batch["status"] = "completed" if len(done) == len(lines) else "expired"


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "begun"}


def _page(request: web.Request, found: list[dict[str, Any]]) -> web.Response:
    """Return the page of ``found`` that the request asks for."""
    after, limit = request.query.get("after"), int(request.query.get("limit", 20))
    start = next((place + 1 for place, each in enumerate(found) if each["id"] == after), 0)
    page = found[start : start + limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
    return _json({"object": "list", "data": page, "has_more": start + limit < len(found), **ends})


def _json(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")


def _refused(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.Response(status=status, body=orjson.dumps({"error": error}), content_type="application/json")
