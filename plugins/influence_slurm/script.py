"""The batch script: what SLURM is asked for, and what runs there.

The command runs as a child of the script, which hears SLURM's signals: the warning before the time limit (USR1) and a cancel
(TERM) both tell the command to stop. One that stops resumably (exit code 3) after a warning is requeued under its number.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from influence_cli.api import Resources, Task
from influence_slurm.options import SlurmOptions

_BODY = """\
warned= cancelled= child=
leave() { echo "$1" >"$code_file.part" && mv -f -- "$code_file.part" "$code_file"; exit "$1"; }
tell() { if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi; }
trap 'warned=1; tell' USR1
trap 'cancelled=1; tell' TERM
case "${SLURM_ARRAY_TASK_ID:-0}" in
@CASES@
esac
rm -f -- "$code_file"
@SETUP@
if [ -z "$warned$cancelled" ]; then
  "${command[@]}" >>"$log" 2>&1 </dev/null &
  child=$!
  while kill -0 "$child" 2>/dev/null; do wait "$child"; done
  wait "$child"
  code=$?
else
  code=3
fi
if [ "$code" = 3 ] && [ -n "$warned" ] && [ -z "$cancelled" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt @REQUEUES@ ]; then
  job=$SLURM_JOB_ID
  if [ -n "$SLURM_ARRAY_JOB_ID" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  echo "The time of job $job is nearly up: requeued." >>"$log"
  scontrol requeue "$job" && exit 3
fi
leave "$code"
"""


def render_script(tasks: Sequence[Task], options: SlurmOptions, folder: Path) -> str:
    """Return the batch script of ``tasks``, which ask for the same resources: an array where they are several.

    It is run in ``folder``; whatever the script itself says goes beside the first task's log.
    """
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {directive}" for directive in _directives(tasks, options, folder)]
    body = _BODY.replace("@CASES@", "\n".join(_case(number, task) for number, task in enumerate(tasks)))
    body = body.replace("@SETUP@", "\n".join(map(_setup, options.setup))).replace("@REQUEUES@", str(options.requeues))
    return "\n".join(lines) + "\n" + body


def code_file(task: Task) -> Path:
    """Return where a job leaves its exit code."""
    return task.log.with_suffix(".code")


def _directives(tasks: Sequence[Task], options: SlurmOptions, folder: Path) -> list[str]:
    first = tasks[0]
    several = len(tasks) > 1
    named = {"partition": options.partition, "account": options.account, "qos": options.qos}
    wanted = {**named, "constraint": options.constraint, **_resources(first.resources, options)}
    found = [f"--job-name={shlex.quote(_plain(first.name))}"]
    found += [f"--{name}={shlex.quote(str(value))}" for name, value in wanted.items() if value is not None]
    if several:
        at_once = f"%{options.at_once}" if options.at_once is not None else ""
        found.append(f"--array=0-{len(tasks) - 1}{at_once}")
    beside = str(first.log.parent).replace("%", "%%")
    output = f"{beside}/slurm-{'%A_%a' if several else '%j'}.out"
    found += [
        f"--output={shlex.quote(output)}",
        f"--chdir={shlex.quote(str(folder))}",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        f"--signal=B:USR1@{options.warning}",
    ]
    return [*found, *options.directives]


def _resources(resources: Resources, options: SlurmOptions) -> dict[str, object]:
    memory = resources.memory_gb
    return {
        "cpus-per-task": resources.cpus,
        "gres": f"{options.gres}:{resources.gpus}" if resources.gpus else None,
        "mem": f"{max(1, round(memory * 1024))}M" if memory is not None else None,
        "time": resources.minutes,
    }


def _case(number: int, task: Task) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in task.environment.items()]
    lines = [
        f"log={shlex.quote(str(task.log))}",
        f"code_file={shlex.quote(str(code_file(task)))}",
        f"command=({shlex.join(task.command)})",
        *exports,
    ]
    return f"{number})\n" + "\n".join(f"  {line}" for line in lines) + "\n  ;;"


def _setup(line: str) -> str:
    told = shlex.quote(f"This line of the launcher's setup failed: {line}")
    return f'{{ {line}; }} || {{ echo {told} >>"$log"; leave 1; }}'


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
