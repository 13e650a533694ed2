"""Starting the training process, following it, and what to do when it fails.

Concept: the parent only waits: it passes on progress, stops the child when it is itself stopped, and starts it once more
with half as much at once after memory ran out. Invariant: when :func:`carry_out` returns or raises, no process of the
stage is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from influence_cli.api import InfluenceError, Told, TrainingOutcome, write_whole
from influence_trl.options import TrainingOptions
from influence_trl.presets import PRESETS, process_count, render_preset
from influence_trl.stage import Failure, Stage, StageFolder

Command = Callable[[Stage, TrainingOptions], Sequence[str]]

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 30.0


def carry_out(
    stage: Stage, options: TrainingOptions, told: Told, *, command: Command | None = None, grace: float = _GRACE_SECONDS
) -> TrainingOutcome:
    """Return what came of a stage, done in a process of its own (``command``); InfluenceError if nothing did.

    Whatever ``told`` raises, and KeyboardInterrupt, stops the process, which has ``grace`` seconds for a checkpoint, and
    is raised.
    """
    folder = StageFolder(stage.job.folder)
    least = 2 if stage.algorithm == "kto" else 1
    halved = False
    while True:
        try:
            folder.prepare(stage)
            arguments = (command or training_command)(stage, options)
        except OSError as error:
            raise InfluenceError(f"The folder {folder.path} cannot be written: {error.strerror or error}") from error
        code = _follow(arguments, folder, options, told, grace)
        outcome = folder.outcome(stage.fingerprint)
        if code == 0 and outcome is not None:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            told(1.0, "done")
            return outcome
        failure = folder.read_failure() or _logged_failure(folder) or _unexplained(code, folder)
        if failure.reason != "memory" or halved or stage.micro_batch // 2 < least:
            raise InfluenceError(failure.message, hint=failure.hint)
        halved = True
        stage = stage.model_copy(update={"micro_batch": stage.micro_batch // 2})
        told(0.0, f"{failure.message} Trying {stage.micro_batch} at once")


def training_command(stage: Stage, options: TrainingOptions) -> list[str]:
    """Return the command that trains a stage; the accelerate configuration of a preset is written beside the stage."""
    folder = StageFolder(stage.job.folder)
    module = ["influence_trl.child", str(folder.stage)]
    if options.launch == "single":
        return [sys.executable, "-m", *module]
    config = Path(options.launch).expanduser()
    processes = process_count(options, _gpus(options))
    if options.launch in PRESETS:
        gpus = _gpus(options)
        text = render_preset(
            options.launch,
            processes,
            bf16=_bf16(options, gpus),
            accumulation=max(options.batch // processes // stage.micro_batch, 1),
            max_grad_norm=options.max_grad_norm,
        )
        config = folder.path / "accelerate.yaml"
        write_whole(config, text.encode())
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    if options.launch in PRESETS:
        launcher += ["--main_process_port", str(_free_port())]
    return [*launcher, "-m", *module]


def _follow(arguments: Sequence[str], folder: StageFolder, options: TrainingOptions, told: Told, grace: float) -> int:
    """Run the training process to its end, telling its progress; return its exit status, negative for a signal."""
    with folder.log.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            arguments,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(options),
            start_new_session=True,
        )
        try:
            seen = 0
            while child.poll() is None:
                seen = _pass_on(folder, seen, told)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_LOOK_SECONDS)
            _pass_on(folder, seen, told)
        finally:
            _end(child, grace)
            assert child.stdin is not None
            child.stdin.close()
    return child.returncode


def _pass_on(folder: StageFolder, seen: int, told: Told) -> int:
    """Tell the progress written after ``seen`` bytes; return how many bytes have been read."""
    try:
        with folder.progress.open("rb") as file:
            file.seek(seen)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                seen += len(line)
                entry = json.loads(line)
                told(float(entry["share"]), str(entry["words"]))
    except FileNotFoundError:
        pass
    return seen


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    """Stop the child and all its processes, politely at first."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _environment(options: TrainingOptions) -> dict[str, str]:
    """Return the environment of the training process: no network for what lies here, no telemetry, no parent's ranks."""
    mine = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU")}
    mine.update(
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="warning",
        PYTHONUNBUFFERED="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1",
        CUBLAS_WORKSPACE_CONFIG=os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    )
    if options.launch == "single" and _gpus(options) > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        mine["CUDA_VISIBLE_DEVICES"] = "0"  # else the trainer would use them all, with the old DataParallel
    if options.device == "cpu":
        mine["CUDA_VISIBLE_DEVICES"] = ""
    if options.threads is not None:
        mine["OMP_NUM_THREADS"] = str(options.threads)
    return mine


def _gpus(options: TrainingOptions) -> int:
    """Return how many GPUs may be used, counted without loading torch into this process for good."""
    if options.device == "cpu":
        return 0
    import torch

    return int(torch.cuda.device_count())


def _bf16(options: TrainingOptions, gpus: int) -> bool:
    if options.dtype != "auto":
        return options.dtype == "bfloat16"
    if not gpus:
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported())


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _logged_failure(folder: StageFolder) -> Failure | None:
    """Return the failure that a process without disk space left in its log, if any."""
    for line in reversed(_tail(folder.log)):
        if line.startswith("failure: "):
            with contextlib.suppress(ValueError):
                return Failure.model_validate_json(line.removeprefix("failure: "))
    return None


def _unexplained(code: int, folder: StageFolder) -> Failure:
    """Return what can be said of a process that ended without a word."""
    if code < 0:
        name = signal.Signals(-code).name
        more = " This is how a system without memory ends processes." if name == "SIGKILL" else ""
        message = f"The training process was ended by {name}.{more}"
    else:
        last = next((line for line in reversed(_tail(folder.log)) if line.strip()), "it said nothing")
        message = f"The training process ended with status {code}: {last.strip()[:200]}"
    return Failure(reason="internal", message=message, hint=f"See {folder.log}; run it again to go on.")


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            _to_tail(file)
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _to_tail(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 20_000, 0))
