"""Event files as TensorBoard reads them, written without TensorFlow or torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from influence_cli.api import Example, TrackedRun
from influence_trackers.options import TensorBoardOptions
from influence_trackers.words import fenced


class TensorBoardTracker:
    """One event file a sitting; the step is the iteration."""

    def __init__(self, options: TensorBoardOptions) -> None:
        self._options = options
        self._writer: EventFileWriter | None = None

    def start(self, run: TrackedRun) -> None:
        """Open an event file, and keep the configuration in it if the run is new."""
        folder = Path(self._options.folder) / run.name if self._options.folder else Path(run.folder)
        self._writer = EventFileWriter(str(folder))
        if not run.resumed:
            shown = orjson.dumps(run.config, option=orjson.OPT_INDENT_2).decode()
            self._add(text_pb("config", fenced(shown)), 0)

    def log(self, iteration: int, metrics: Mapping[str, float], examples: Sequence[Example]) -> None:
        """Write scalars and conversations."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(Summary(value=values), iteration)
        for number, example in enumerate(examples):
            title = f"{example.title}, reward {example.reward:.2f}"
            self._add(text_pb(f"example/{number}", f"{title}\n\n{fenced(example.text)}"), iteration)
        if self._writer is not None:
            self._writer.flush()

    def close(self, state: str) -> None:
        """Write how the run ended, and close the file."""
        if self._writer is not None:
            self._add(text_pb("state", state), 0)
            self._writer.close()

    def _add(self, summary: Summary, step: int) -> None:
        assert self._writer is not None
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
