"""``openai-finetune``: rows are uploaded, a job is created and waited for, and the model that comes of it is the agent.

Invariant: what was uploaded and created is written down in the job's folder before anything is waited for, and looked
for on the server where even that was broken off, so that no job is paid for twice. A job that fails ends the stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field

from influence_cli.api import (
    ChatMessage,
    InfluenceError,
    RowsWanted,
    Told,
    TrainingJob,
    TrainingOutcome,
    TrainingRow,
    write_whole,
)
from influence_openai.failures import redact
from influence_openai.options import OpenAIOptions

_STATE = "openai.json"
_UPLOAD = "upload.jsonl"
_ENDED = ("succeeded", "failed", "cancelled")
_SECONDS = 60.0
_TRIES = 5


class FineTuneOptions(OpenAIOptions):
    """Settings of fine-tuning; the defaults of the three hyperparameters are the published project's."""

    epochs: int = Field(default=1, ge=1, le=50, description="How often each row is learnt.")
    batch: int = Field(default=16, ge=1, le=256, description="Rows of one step.")
    lr_multiplier: float = Field(default=3.0, gt=0.0, description="Of the provider's own learning rate.")
    suffix: str = Field(default="influence", max_length=64, description="Part of the new model's name.")
    poll: float = Field(default=15.0, gt=0.0, le=3600.0, description="Seconds between looks at the job.")
    patience: float = Field(default=24.0, gt=0.0, description="Hours to wait for a job; it goes on with --resume.")


class OpenAIFineTune:
    """Fine-tunes a served model on the best conversations."""

    wants: RowsWanted = "best"

    def __init__(self, options: FineTuneOptions) -> None:
        self._options = options
        self._key = options.read_key()

    def check_base(self, base: str) -> None:
        """Raise InfluenceError for a model that no provider fine-tunes."""
        if not base.startswith("openai:"):
            hint = "Use --agent openai:MODEL, or --algo expert-iteration."
            raise InfluenceError(f"openai-finetune cannot train {base}.", hint=hint)

    def train(self, job: TrainingJob, told: Told) -> TrainingOutcome:
        """Return the model that the provider made; InfluenceError where it refuses or its job fails."""
        import openai

        self.check_base(job.base)
        folder = Path(job.folder)
        rows = list(examples(Path(job.rows)))
        started = time.monotonic()
        try:
            with openai.OpenAI(
                api_key=self._key or "none",
                base_url=self._options.base_url,
                organization=self._options.organisation,
                project=self._options.project,
                timeout=max(_SECONDS, self._options.timeout),
                max_retries=_TRIES,
            ) as client:
                ended = self._wait(client, self._job(client, job, folder, rows), told)
                losses = tuple(_losses(client, ended.id)) if ended.status == "succeeded" else ()
        except openai.OpenAIError as error:
            said = redact(str(error), self._key)
            raise InfluenceError(
                f"{self._options.base_url} refused to fine-tune: {said}.", hint="Mend it, then go on with --resume."
            ) from None
        if ended.status != "succeeded" or not ended.fine_tuned_model:
            _forget_job(folder)
            why = (
                redact(ended.error.message, self._key) if ended.error and ended.error.message else "no reason was given"
            )
            raise InfluenceError(
                f"The fine-tuning job {ended.id} {'was cancelled' if ended.status == 'cancelled' else 'failed'}: {why}.",
                hint="Mend it, then go on with --resume: another job is made.",
            )
        steps = len(losses) or -(-len(rows) * self._options.epochs // self._options.batch)
        return TrainingOutcome(
            adapter=ended.fine_tuned_model,
            digest=f"{ended.id}/{ended.fine_tuned_model}",
            rows=len(rows),
            steps=steps,
            tokens=ended.trained_tokens or 0,
            losses=losses,
            seconds=time.monotonic() - started,
        )

    def _job(self, client: Any, job: TrainingJob, folder: Path, rows: list[dict[str, Any]]) -> str:
        """Return the identifier of the job: one that was made before, or a new one."""
        state = _read(folder)
        if "file" not in state:
            path = folder / _UPLOAD
            path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            with path.open("rb") as file:
                state["file"] = client.files.create(file=file, purpose="fine-tune").id
            _write(folder, state)
        if "job" not in state:
            failed = state.get("failed", [])
            made = (each for each in client.fine_tuning.jobs.list(limit=100) if each.training_file == state["file"])
            found = next((each.id for each in made if each.id not in failed), None)
            state["job"] = found or self._create(client, job, state["file"])
            _write(folder, state)
        return str(state["job"])

    def _create(self, client: Any, job: TrainingJob, file: str) -> str:
        parameters = {
            "n_epochs": self._options.epochs,
            "batch_size": self._options.batch,
            "learning_rate_multiplier": self._options.lr_multiplier,
        }
        made = client.fine_tuning.jobs.create(
            model=job.adapter or job.base.removeprefix("openai:"),
            training_file=file,
            suffix=f"{self._options.suffix}-{job.iteration}",
            seed=job.seed % 2**31,
            method={"type": "supervised", "supervised": {"hyperparameters": parameters}},
        )
        return str(made.id)

    def _wait(self, client: Any, number: str, told: Told) -> Any:
        """Return the job once it has ended; InfluenceError after too long a time."""
        until = time.monotonic() + 3600.0 * self._options.patience
        looks = 0
        while True:
            found = client.fine_tuning.jobs.retrieve(number)
            if found.status in _ENDED:
                return found
            if time.monotonic() > until:
                raise InfluenceError(
                    f"The fine-tuning job {number} has not ended in {self._options.patience:g} hours.",
                    hint="It goes on; take it up later with --resume.",
                )
            looks += 1
            told(1.0 - 1.0 / (1.0 + looks / 20.0), f"{number} is {found.status.replace('_', ' ')}")
            time.sleep(self._options.poll)


def examples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each row as the provider wants it; replies that the agent did not generate have no weight."""
    for line in path.read_bytes().splitlines():
        row = TrainingRow.model_validate_json(line)
        learnt = set(row.learnt)
        messages = [_message(message, index in learnt) for index, message in enumerate(row.messages)]
        example: dict[str, Any] = {"messages": messages}
        if row.tools:
            example["tools"] = [{"type": "function", "function": tool.model_dump(mode="json")} for tool in row.tools]
        yield example


def _message(message: ChatMessage, learnt: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        shown["weight"] = int(learnt)
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    return shown


def _losses(client: Any, number: str) -> Iterator[float]:
    """Yield the loss of each step that the provider tells of, in order."""
    events = list(client.fine_tuning.jobs.list_events(number, limit=100))
    for event in reversed(events):
        data = event.data if isinstance(event.data, Mapping) else {}
        if isinstance(data.get("train_loss"), int | float):
            yield float(data["train_loss"])


def _read(folder: Path) -> dict[str, Any]:
    """Return what was made so far; InfluenceError where that cannot be told, since another job would be paid for."""
    file = folder / _STATE
    try:
        found = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError):
        found = None
    if not isinstance(found, dict):
        hint = 'Write {"job": "..."} into it, as the provider lists the job; remove it only to pay for another.'
        raise InfluenceError(f"{file} does not tell which fine-tuning job was made.", hint=hint)
    return found


def _write(folder: Path, state: Mapping[str, Any]) -> None:
    write_whole(folder / _STATE, orjson.dumps(dict(state)))


def _forget_job(folder: Path) -> None:
    """Let the next try make another job; the file that was uploaded stays."""
    state = _read(folder)
    state["failed"] = [*state.get("failed", []), state.pop("job", "")]
    _write(folder, state)
