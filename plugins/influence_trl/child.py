"""The training process: ``python -m influence_trl.child STAGE.json``, alone or under ``accelerate launch``.

Concept: it has a process of its own so that memory is really given back after it, a crash takes nothing else down, and
several can be launched. Invariant: it leaves an outcome or a failure in the stage's folder, unless it is killed; and it
ends when its parent does, because its standard input closes then.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from influence_cli.api import InfluenceError, write_whole
from influence_trl.algorithms import OPTIONS
from influence_trl.failures import StoppedError, told_failure
from influence_trl.stage import AFTER, BEFORE, Finished, Stage, StageFolder

_log = logging.getLogger(__name__)


class _Signals:
    """Whether a signal asked for the end.

    It is heeded after a step while steps are done, so that a checkpoint is kept; else at once.
    """

    def __init__(self, leave: Callable[[BaseException], None]) -> None:
        self._leave = leave
        self.asked = False
        self.at_once = True

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self.at_once:
            self._leave(StoppedError())
            os._exit(1)

    def stopping(self) -> bool:
        """Say whether the end was asked for."""
        return self.asked


def main(arguments: list[str]) -> int:
    """Train the stage in a file; return 0 if an outcome stands in its folder."""
    stage = Stage.model_validate_json(Path(arguments[0]).read_bytes())
    folder = StageFolder(stage.job.folder)
    rank = os.environ.get("RANK", "0")
    first = rank == "0"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    signals = _Signals(lambda error: _leave(folder, stage, error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signals)
    _log.info("Process %s of %s.", rank, os.environ.get("WORLD_SIZE", "1"))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def told(share: float, words: str) -> None:
        signals.at_once = not BEFORE <= share < AFTER
        if first:
            with folder.progress.open("a") as file:
                file.write(json.dumps({"share": round(share, 4), "words": words}) + "\n")

    try:
        from influence_trl.training import train

        outcome = train(stage, OPTIONS[stage.algorithm].model_validate(stage.options), told, signals.stopping)
        if outcome is not None:
            finished = Finished(fingerprint=stage.fingerprint, outcome=outcome)
            write_whole(folder.finished, finished.model_dump_json(indent=1).encode())
    except BaseException as error:  # noqa: BLE001 - whatever ends the process is told to the one that waits for it
        _leave(folder, stage, error)
        return 1
    return 0


def _leave(folder: StageFolder, stage: Stage, error: BaseException) -> None:
    """Write down why the process ends, unless another one has done so."""
    if not isinstance(error, InfluenceError | StoppedError):
        traceback.print_exception(error)
    failure = told_failure(error, stage.micro_batch)
    if folder.read_failure() is None:
        try:
            write_whole(folder.failure, failure.model_dump_json().encode())
        except OSError:  # the disk is full: the parent reads the line from the log
            print(f"failure: {failure.model_dump_json()}", file=sys.stderr)


def _end_with_parent() -> None:
    """Wait for the end of standard input, which only the parent's end brings, then stop; by force if need be."""
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10.0)
    os._exit(1)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code else sys.exit(0)
