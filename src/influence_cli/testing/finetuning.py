"""The fine-tuning endpoints of the test server: jobs, their events, and what may go wrong with them.

    GET, POST /v1/fine_tuning/jobs    GET /v1/fine_tuning/jobs/ID    GET .../ID/events
    GET /tuning                       what was uploaded and asked for

Files are those of :mod:`influence_cli.testing.batches`. A job succeeds once it was looked at often enough, and its
model is served from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from influence_cli.testing.batches import BatchDesk
from influence_cli.testing.server_config import ServerConfig

LEAST_EXAMPLES = 10
"""OpenAI's own minimum."""


class FineTuning:
    """Jobs over the files of ``desk``; ``config`` tells how the server behaves, ``serve`` adds a model to those served."""

    def __init__(self, desk: BatchDesk, config: Callable[[], ServerConfig], serve: Callable[[str], None]) -> None:
        self._desk = desk
        self._config = config
        self._serve = serve
        self.jobs: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}

    def add_routes(self, app: web.Application, checked: Callable[[Any], Any]) -> None:
        """Add the endpoints to ``app``; ``checked`` wraps each so that the key is asked for."""
        routes: tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]], ...] = (
            ("POST", "/v1/fine_tuning/jobs", self._create),
            ("GET", "/v1/fine_tuning/jobs", self._list),
            ("GET", "/v1/fine_tuning/jobs/{id}", self._look),
            ("GET", "/v1/fine_tuning/jobs/{id}/events", self._events),
        )
        for method, path, handler in routes:
            app.router.add_route(method, path, checked(handler))
        app.router.add_get("/tuning", self._told)

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if body["training_file"] not in self._desk.contents:
            return _error(400, f"No such File object: {body['training_file']}", "invalid_file")
        if body["model"] not in self._config().models:
            return _error(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        number = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[number] = {
            "id": number,
            "object": "fine_tuning.job",
            "created_at": len(self.jobs),
            "model": body["model"],
            "training_file": body["training_file"],
            "status": "validating_files",
            "fine_tuned_model": None,
            "finished_at": None,
            "trained_tokens": None,
            "error": None,
            "organization_id": "org-test",
            "result_files": [],
            "validation_file": None,
            "seed": body.get("seed") or 0,
            "method": body.get("method"),
            "hyperparameters": ((body.get("method") or {}).get("supervised") or {}).get("hyperparameters") or {},
        }
        return _json(self.jobs[number])

    async def _list(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": list(reversed(self.jobs.values())), "has_more": False})

    async def _look(self, request: web.Request) -> web.Response:
        number = request.match_info["id"]
        job = self.jobs.get(number)
        if job is None:
            return _error(404, f"Could not find fine tune: {number}", "fine_tune_not_found")
        self._looks[number] = self._looks.get(number, 0) + 1
        self._go_on(job)
        return _json(job)

    def _go_on(self, job: dict[str, Any]) -> None:
        config, looks = self._config(), self._looks[job["id"]]
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return
        rows = self._rows(job["training_file"])
        if looks <= config.tuning_looks:
            job["status"] = "running" if looks > 1 else "queued"
        elif len(rows) < LEAST_EXAMPLES:
            said = f"Training file has {len(rows)} example(s), but must have at least {LEAST_EXAMPLES} examples"
            job |= {"status": "failed", "error": {"code": "invalid_training_file", "message": said, "param": None}}
        elif config.tuning_ends != "succeeded":
            error = {"code": "server_error", "message": "The job failed on the server.", "param": None}
            job |= {"status": config.tuning_ends, "error": error if config.tuning_ends == "failed" else None}
        else:
            name = (
                f"ft:{job['model'].split(':')[1] if job['model'].startswith('ft:') else job['model']}:org::{job['id']}"
            )
            words = sum(len(str(message["content"]).split()) for row in rows for message in row["messages"])
            job |= {"status": "succeeded", "fine_tuned_model": name, "finished_at": 1, "trained_tokens": words}
            self._serve(name)

    async def _events(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        count = len(self._rows(job["training_file"]))
        data = [
            {
                "id": f"ftevent-{step}",
                "object": "fine_tuning.job.event",
                "created_at": step,
                "level": "info",
                "type": "metrics",
                "message": f"Step {step}",
                "data": {"step": step, "train_loss": 2.0 / step},
            }
            for step in range(count, 0, -1)
        ]
        return _json({"object": "list", "data": data, "has_more": False})

    async def _told(self, _: web.Request) -> web.Response:
        files = {name: self._rows(name) for name, file in self._desk.files.items() if file["purpose"] == "fine-tune"}
        return _json({"files": files, "jobs": self.jobs})

    def _rows(self, file: str) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._desk.contents[file].splitlines()]


def _json(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")


def _error(status: int, message: str, code: str) -> web.Response:
    body = orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
    return web.Response(status=status, body=body, content_type="application/json")
