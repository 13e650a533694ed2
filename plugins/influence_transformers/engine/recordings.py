"""Passes of few rows, recorded once for each size and played back.

Concept: a pass of few rows costs the processor more to launch than the GPU to do. So its launches are recorded as a CUDA
graph for each size that tables are filled up to, and played back with other tables. Invariants: what is recorded reads
nothing but its own tables, the weights, and memory that the tables name; an adapter's passes are recorded for itself; one
recording is made at a time in a process; logits of all recordings lie in one place, good until the next pass.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch

from influence_transformers.engine.tables import Sizes, Table

_log = logging.getLogger(__name__)
STEPS = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 640, 768, 1024,
         1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192)  # fmt: skip
"""Rows that recorded passes are filled up to."""
_MOST_RECORDED = 96
_FEW_LOGITS = 256
_OFTEN, _LARGE = (2, 3), 512
"""How often a size must come before it is recorded: of few rows, and of more than ``_LARGE``."""
_recording = threading.Lock()

Forward = Callable[[torch.Tensor, Sizes], torch.Tensor]
Key = tuple[str | None, Sizes]


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    packed: torch.Tensor
    logits: torch.Tensor


class Recordings:
    """The recorded passes of one model, by what it computes with and by size; the one played longest ago makes room.

    ``off``: none is made or played any more.
    """

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device
        self._made: dict[Key, _Recording] = {}
        self._seen: Counter[Key] = Counter()
        self._stream: torch.cuda.Stream | None = None
        self._vocabulary = 0
        self._logits: torch.Tensor | None = None
        self.off = False

    def play(self, variant: str | None, sizes: Sizes, packed: Table) -> torch.Tensor | None:
        """Return a pass's logits (good until the next pass), recorded if its size comes often; None if none can be."""
        if self.off:
            return None
        key = (variant, sizes)
        recording = self._made.pop(key, None)
        fresh = torch.from_numpy(packed)
        if recording is None:
            self._seen[key] += 1
            if self._seen[key] < _OFTEN[sizes.rows > _LARGE]:
                found = self._forward(fresh.to(self._device), sizes)  # compiles what a recording will need
                self._vocabulary = found.shape[1]
                return found
            recording = self._record(sizes, fresh.to(self._device))
            if recording is None:
                return None
            self._make_room()
        else:
            recording.packed.copy_(fresh)
        self._made[key] = recording
        recording.graph.replay()
        return recording.logits

    def stop(self, reason: str) -> None:
        """Give back the memory of all recordings, and make no more."""
        if not self.off:
            _log.warning("Passes of this model are recorded no more, which makes small ones slower: %s", reason)
        self.off = True
        self._made.clear()
        self._logits = None

    def _make_room(self) -> None:
        if len(self._made) >= _MOST_RECORDED:
            oldest = next(iter(self._made))
            del self._made[oldest], self._seen[oldest]

    def _record(self, sizes: Sizes, packed: torch.Tensor) -> _Recording | None:
        """Return a recording; None, and none from now on, where the model does what cannot be recorded."""
        before = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        pool = next((made.graph.pool() for made in self._made.values()), None)
        with _recording:
            try:
                self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
                logits = self._room(sizes.wanted)
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    logits.copy_(self._forward(packed, sizes))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.stop(str(error))
                return None
            finally:
                torch.cuda.set_stream(before)  # which a recording that fails would not do
        return _Recording(graph, packed, logits)

    def _room(self, rows: int) -> torch.Tensor:
        """Return where the logits of so many rows go."""
        if self._logits is None or len(self._logits) < rows:
            self._logits = torch.empty((rows, self._vocabulary), dtype=torch.float32, device=self._device)
        return self._logits[:rows]


def recorded_sizes(sizes: Sizes, most: int) -> Sizes | None:
    """Return what a pass's tables are filled up to, so that few sizes are recorded; None for more than ``most`` rows.

    All but the rows are as large as passes of so many rows usually need: what is left empty costs next to nothing.
    """
    rows = next((step for step in STEPS if step >= sizes.rows), None)
    if rows is None or sizes.rows > most:
        return None
    return Sizes(
        rows=rows,
        wanted=min(rows, power(max(sizes.wanted, _FEW_LOGITS))),
        few=power(max(sizes.few, 2 * min(rows, _FEW_LOGITS))),
        many=power(max(sizes.many, rows)),
        masked=power(max(sizes.masked, min(rows, _FEW_LOGITS) // 2)) if sizes.masked else 0,
        listed=power(max(sizes.listed, 4 * rows)),
        parts=power(max(sizes.parts, 8)),
        results=power(max(sizes.results, 4 * rows)),
        masks=power(max(sizes.masks, min(rows, 4 * _FEW_LOGITS))) if sizes.masks else 0,
    )


def power(number: int) -> int:
    """Return the least power of two that is no smaller."""
    return 1 << max(number - 1, 0).bit_length()
