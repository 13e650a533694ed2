"""A run as a log of Inspect AI, by Inspect's own recorder.

Invariant: the file appears whole or not at all. An .eval log is written as the run is read; a .json log is held in memory
while it is made, as Inspect always does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, Literal

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
)
from inspect_ai.log._recorders import create_recorder_for_location
from inspect_ai.model import ModelUsage
from inspect_ai.scorer import Score

from influence_cli.api import (
    InfluenceError,
    RunReader,
    StoredConversation,
    TrajectoryEnd,
    read_conversation,
    whole_file,
)
from influence_inspect.messages import stored_messages
from influence_inspect.options import InspectLogOptions
from influence_inspect.samples import (
    PREFERENCE,
    VETO,
    model_usage,
    role_score,
    rubric_scores,
    sample_id,
    sample_metadata,
    stored_data,
)

_FLUSH = 1_000
"""Samples between two times that the recorder empties its memory."""
_UNFINISHED = "The conversation had not ended when the run was exported."
_STATUS: dict[str, Literal["started", "success", "cancelled", "error"]] = {
    "running": "started",
    "stopped": "cancelled",
    "failed": "error",
}
_SHOWN = {"config", "models", "environments", "versions", "git", "command"}


class InspectLogs:
    """The exporter ``inspect``."""

    suffix = "eval"

    def __init__(self, options: InspectLogOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the run's conversations to ``out`` (.eval or .json); return how many there are."""
        if out.suffix not in (".eval", ".json"):
            raise InfluenceError(
                f"A log of Inspect is called *.eval or *.json, not {out}.", hint="Name a file: --out run.eval."
            )
        with whole_file(out) as temporary, TemporaryDirectory(dir=temporary.parent, prefix=".influence-") as folder:
            made = Path(folder) / f"log{out.suffix}"
            count = asyncio.run(_write(run, made))
            made.replace(temporary)
        return count


async def _write(run: RunReader, out: Path) -> int:
    spec = _spec(run)
    recorder = create_recorder_for_location(str(out), str(out.parent))
    await recorder.log_init(spec, location=str(out))
    await recorder.log_start(spec, EvalPlan())
    summary = _Summary()
    for count, conversation in enumerate(_conversations(run), 1):
        sample = _sample(conversation, several="+" in spec.task)
        summary.add(sample)
        await recorder.log_sample(spec, sample)
        if count % _FLUSH == 0 and out.suffix == ".eval":
            await recorder.flush(spec)
    state = run.state()
    stats = EvalStats(**_times(run), model_usage=summary.model_usage, role_usage=summary.role_usage)
    log: EvalLog = await recorder.log_finish(
        spec, _STATUS.get(state, "success"), stats, summary.results(), None, header_only=True
    )
    return log.results.total_samples if log.results else 0


def _conversations(run: RunReader) -> Iterator[StoredConversation]:
    """Yield the run's conversations in the order in which they were begun, one in memory at a time."""
    for episode_id in run.column("SELECT id FROM episode ORDER BY id"):
        yield read_conversation(run, episode_id)


def _spec(run: RunReader) -> EvalSpec:
    manifest = run.directory.manifest
    environments = [str(row[0]) for row in run.rows("SELECT DISTINCT environment FROM episode ORDER BY environment")]
    epochs = run.rows("SELECT coalesce(max(sample), 0) + 1 FROM episode")[0][0]
    states = run.rows(
        "SELECT count(*) FROM (SELECT DISTINCT iteration, environment, scenario, initial_state FROM episode)"
    )
    name = "+".join(environments) or "influence"

    def identifier(what: str) -> str:
        return sha256(f"{manifest.run_id}/{manifest.created}/{what}".encode()).hexdigest()[:22]

    return EvalSpec(
        eval_id=identifier("eval"),
        run_id=identifier("run"),
        task_id=identifier("task"),
        created=manifest.created,
        task=name,
        task_registry_name=f"influence_inspect/{name}" if len(environments) == 1 else None,
        dataset=EvalDataset(name=name, samples=states[0][0]),
        model=_agent(run),
        config=EvalConfig(epochs=epochs),
        packages={"influence-cli": version("influence-cli"), "inspect_ai": version("inspect_ai")},
        metadata={"run": manifest.run_id, **manifest.model_dump(mode="json", include=_SHOWN)},
    )


def _agent(run: RunReader) -> str:
    """Return the agent's model, of an imported run by its calls; one of Inspect's as Inspect names it."""
    named = run.directory.manifest.models.get("agent")
    if named is None:
        rows = run.rows("SELECT model FROM call WHERE role = 'agent' LIMIT 1")
        named = rows[0]["model"] if rows else "unknown"
    return named.removeprefix("inspect:")


def _times(run: RunReader) -> dict[str, str]:
    from datetime import UTC, datetime

    first, last = run.rows("SELECT min(started), max(finished) FROM trajectory")[0]
    told = {"started_at": first, "completed_at": last}
    return {name: datetime.fromtimestamp(at, UTC).isoformat() if at else "" for name, at in told.items()}


def _sample(conversation: StoredConversation, *, several: bool) -> EvalSample:
    record, name = conversation.record, f"c{conversation.episode_id}"
    messages = stored_messages(conversation.messages, name)
    opening = sum(message.turn == 0 for message in conversation.messages)
    judged = {role: role_score(role, conversation.judgements) for role in (PREFERENCE, VETO)}
    end = _end(conversation)
    said = conversation.detail or conversation.failure or _UNFINISHED
    failed = end is None or end.status == "failed"
    return EvalSample(
        id=sample_id(record, several=several),
        epoch=record.key.sample + 1,
        input=messages[:opening],
        target="",
        messages=messages,
        scores={
            **{role: score for role, score in judged.items() if score is not None},
            **rubric_scores(conversation.scores),
        },
        metadata=sample_metadata(record),
        store={"influence": stored_data(record, conversation.judgements, conversation.calls, end)},
        model_usage=model_usage(conversation.calls, "model"),
        role_usage=model_usage(conversation.calls, "role"),
        uuid=f"{name}-{record.seed:x}",
        error=EvalError(message=said, traceback=said, traceback_ansi=said) if failed else None,
        turn_count=conversation.turns,
    )


def _end(conversation: StoredConversation) -> TrajectoryEnd | None:
    if conversation.status == "running":
        return None
    facts: dict[str, Any] = {name: getattr(conversation, name) for name in TrajectoryEnd.model_fields}
    return TrajectoryEnd(**facts)


class _Summary:
    """Figures and usage over samples, each seen once; as in Inspect, epochs of a sample are one value, their mean."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.model_usage: dict[str, ModelUsage] = {}
        self.role_usage: dict[str, ModelUsage] = {}
        self._scores: dict[str, _Scored] = {}

    def add(self, sample: EvalSample) -> None:
        """Take a sample in."""
        self.total += 1
        self.failed += sample.error is not None
        for kept, used in ((self.model_usage, sample.model_usage), (self.role_usage, sample.role_usage)):
            for name, usage in used.items():
                kept[name] = kept[name] + usage if name in kept else usage
        for name, score in (sample.scores or {}).items():
            self._scores.setdefault(name, _Scored()).add(str(sample.id), sample.metadata["population"], score)

    def results(self) -> EvalResults:
        """Return the figures by score: over all samples, and the mean of each population."""
        return EvalResults(
            total_samples=self.total,
            completed_samples=self.total - self.failed,
            scores=[scored.result(name) for name, scored in self._scores.items()],
        )


class _Scored:
    """One score's values, added up by population and sample."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str | None, str], list[float]] = {}
        self._unscored = 0

    def add(self, sample: str, population: str | None, score: Score) -> None:
        """Take a score in."""
        value = score.as_float()
        if not isfinite(value):
            self._unscored += 1
            return
        for group in dict.fromkeys((None, population)):
            total = self._sums.setdefault((group, sample), [0.0, 0.0])
            total[0] += value
            total[1] += 1

    def result(self, name: str) -> EvalScore:
        """Return mean, standard error, and the mean of each population; nan where there are too few values."""
        groups: dict[str | None, list[float]] = {None: []}
        for (group, _), (total, count) in self._sums.items():
            groups.setdefault(group, []).append(total / count)
        values = groups.pop(None)
        figures = {
            "mean": fmean(values) if values else nan,
            "stderr": stdev(values) / sqrt(len(values)) if len(values) > 1 else nan,
            **{f"mean_{group}": fmean(found) for group, found in groups.items()},
        }
        return EvalScore(
            name=name,
            scorer=name,
            reducer="mean",
            scored_samples=len(values),
            unscored_samples=self._unscored,
            metrics={metric: EvalMetric(name=metric, value=value) for metric, value in figures.items()},
        )
