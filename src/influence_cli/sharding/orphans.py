"""Jobs of shards that may outlive who minds them: remembered in the run's directory, found and ended by the next sitting."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Job, Task
from influence_cli.launching.records import JobRecord, add_record, drop_records, read_records, record_of
from influence_cli.listening import Listener
from influence_cli.sharding.splitting import Sharding

SHARD_PREFIX = "shard-"
"""Names of the tasks of shards begin so."""


def remember_job(folder: Path, sharding: Sharding, task: Task, job: Job) -> None:
    """Remember a shard's job that goes on if this process is killed, so that it can be found then."""
    if sharding.launcher.survives:
        how, started = sharding.how, datetime.now(UTC).isoformat(timespec="seconds")
        drop_records(folder, [task.name])
        add_record(folder, record_of(task, job.id, how.name, dict(how.options), started))


async def end_orphans(folder: Path, sharding: Sharding, heard: Listener) -> None:
    """End the jobs of shards whose minder was killed; InfluenceError where they are another launcher's."""
    refuse_orphans(folder, but_of=sharding.how.name)
    for record in orphans(folder):
        job = await sharding.launcher.attach(record.task(), record.id)
        if (await job.status()).state in ("waiting", "running"):
            heard.say(f"Ending job {record.id}, which works on {record.name}: nobody minds it.")
            await job.cancel()
    drop_records(folder, [record.name for record in orphans(folder)])


def orphans(folder: Path) -> list[JobRecord]:
    """Return the jobs of shards that were started for the run in ``folder``, and whose end was not seen."""
    return [record for record in read_records(folder) if record.name.startswith(SHARD_PREFIX)]


def refuse_orphans(folder: Path, but_of: str | None = None) -> None:
    """Raise InfluenceError if a shard's job may still work on the run, but for those of one launcher."""
    for record in orphans(folder):
        if record.launcher != but_of:
            raise InfluenceError(
                f"The job {record.id} of {record.launcher} may be at work on {folder}.",
                hint=f"End it: influence jobs cancel {record.id} --folder {folder}.",
            )
