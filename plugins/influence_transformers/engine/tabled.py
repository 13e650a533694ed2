"""Passes through a model on a GPU, from tables; passes of few rows are recorded once and played back.

Concept: a pass of few rows costs the processor more to launch than the GPU to do. So its launches are recorded as a CUDA
graph for each size that tables are filled up to, and played back with other tables. Invariants: what is recorded reads
nothing but its own tables, the weights, and memory that the tables name; an adapter's passes are recorded for itself.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Hashable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from influence_transformers.engine.attention import use
from influence_transformers.engine.tables import MANY, Maker, Sizes, Table

if TYPE_CHECKING:
    from influence_transformers.engine.forward import Layout
    from influence_transformers.engine.kernels import Shape
    from influence_transformers.engine.segments import CacheShape

_log = logging.getLogger(__name__)
DEVICES = ("cuda",)
"""Kinds of device that tables are used on."""
STEPS = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 640, 768, 1024,
         1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192)  # fmt: skip
"""Rows that recorded passes are filled up to."""
_MOST_RECORDED = 96
_WORTH = 10**13
"""Rows x parameters beyond which a pass keeps a GPU busy for longer than it takes to launch."""
_LEAST_RECORDED = 256
_FEW_LOGITS = 256

Forward = Callable[[torch.Tensor, Sizes], torch.Tensor]


def served(shape: CacheShape, heads: set[int]) -> bool:
    """Return whether tables serve a model with such a cache and such numbers of query heads."""
    if shape.device.type not in DEVICES or find_spec("triton") is None:
        return False
    kind = shape.uniform
    if kind is None or len(heads) != 1:
        return False
    repeat, rest = divmod(next(iter(heads)), kind.heads)
    return rest == 0 and repeat <= MANY and kind.key_dim <= 256


class TableRunner:
    """Sends packed passes through a model; ``heads`` is its number of query heads."""

    def __init__(self, model: Any, shape: CacheShape, heads: int, *, record: bool) -> None:
        from influence_transformers.engine.kernels import Shape

        kind = shape.uniform
        assert kind is not None
        origin = torch.empty(16, dtype=shape.dtype, device=shape.device)
        repeat = heads // kind.heads
        self._model = model
        self._shape = shape
        self._maker = Maker(shape, repeat, origin.data_ptr())
        self._kernels = Shape(kind.heads, repeat, kind.key_dim, origin)
        self._some_logits = "logits_to_keep" in inspect.signature(type(model).forward).parameters
        self._recordings = Recordings(self._forward, shape.device) if record and shape.device.type == "cuda" else None
        self._most = max(_LEAST_RECORDED, _WORTH // max(1, sum(p.numel() for p in model.parameters())))

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary, having written the pass's keys and values.

        ``adapter`` names what the model computes with at present.
        """
        tables = self._maker.make(layout.plan, layout.tokens, layout.positions, layout.logit_rows)
        wanted = len(layout.logit_rows)
        with torch.inference_mode():
            if self._recordings is not None:
                sizes = recorded_sizes(tables.sizes, self._most)
                found = None if sizes is None else self._recordings.play(adapter, sizes, tables.packed(sizes))
                if found is not None:
                    return found[:wanted]
            sizes = tables.sizes._replace(parts=_power(tables.sizes.parts))  # few sizes to compile kernels for
            return self._forward(torch.from_numpy(tables.packed(sizes)).to(self._shape.device), sizes)

    def _forward(self, packed: torch.Tensor, sizes: Sizes) -> torch.Tensor:
        tables = {name: packed[place] for name, place in sizes.places.items()}
        extra = {"logits_to_keep": tables["wanted"]} if self._some_logits else {}
        use(Pass(self._kernels, self._shape.places, tables, sizes))
        try:
            out = self._model(
                input_ids=tables["tokens"].unsqueeze(0),
                position_ids=tables["positions"].unsqueeze(0),
                use_cache=False,
                **extra,
            )
            found: torch.Tensor = out.logits[0]
            return (found if self._some_logits else found[tables["wanted"]]).float()
        finally:
            use(None)


class Pass:
    """One pass's tables on the device, ready for every layer."""

    def __init__(self, kernels: Shape, places: dict[int, int], tables: dict[str, torch.Tensor], sizes: Sizes) -> None:
        self._kernels, self._places, self._tables, self._sizes = kernels, places, tables, sizes
        self._parts = tables["parts"].view(sizes.rows, sizes.parts)
        heads, device = kernels.heads * kernels.repeat, kernels.origin.device
        self._out = torch.empty((sizes.results, heads, kernels.width), dtype=torch.float32, device=device)
        self._lse = torch.empty((sizes.results, heads), dtype=torch.float32, device=device)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """Return a layer's attention, rows x heads x width, having written the rows' keys and values."""
        place, tables = self._places[layer], self._tables
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        self._kernels.write(tables["places"], place, k, v)
        for name in ("few", "many", "masked"):
            self._kernels.read(
                q, self._out, self._lse, tables[name], tables["listed"], tables["masks"], place, scale,
                few=name == "few", masked=name == "masked",
            )  # fmt: skip
        summed = torch.empty((len(q), q.shape[1], v.shape[2]), dtype=q.dtype, device=q.device)
        self._kernels.add_up(self._out, self._lse, self._parts, summed)
        return summed


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    packed: torch.Tensor
    logits: torch.Tensor


class Recordings:
    """The recorded passes of one model, by what it computes with and by size; what comes once is not recorded."""

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device
        self._made: dict[Hashable, _Recording] = {}
        self._seen: set[Hashable] = set()
        self._pool: Any = None
        self._broken = False

    def play(self, variant: str | None, sizes: Sizes, packed: Table) -> torch.Tensor | None:
        """Return a pass's logits (good until the next pass), recorded if the size has been seen; None if it cannot be."""
        if self._broken:
            return None
        key = (variant, sizes)
        recording = self._made.get(key)
        fresh = torch.from_numpy(packed)
        if recording is None:
            if key not in self._seen:
                self._seen.add(key)  # this pass also compiles what the recording will need
                return self._forward(fresh.to(self._device), sizes)
            recording = self._record(key, sizes, fresh)
            if recording is None:
                return None
        else:
            recording.packed.copy_(fresh)
        recording.graph.replay()
        return recording.logits

    def _record(self, key: Hashable, sizes: Sizes, fresh: torch.Tensor) -> _Recording | None:
        if len(self._made) >= _MOST_RECORDED:
            self._made.pop(next(iter(self._made)))
        packed = fresh.to(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logits = self._forward(packed, sizes)
        except RuntimeError as error:
            self._broken = True
            _log.warning("Passes of this model are not recorded, which makes small ones slower: %s", error)
            return None
        self._pool = graph.pool()
        made = self._made[key] = _Recording(graph, packed, logits)
        return made


def recorded_sizes(sizes: Sizes, most: int) -> Sizes | None:
    """Return what a pass's tables are filled up to, so that few sizes are recorded; None for more than ``most`` rows.

    All but the rows are as large as passes of so many rows usually need: what is left empty costs next to nothing.
    """
    rows = next((step for step in STEPS if step >= sizes.rows), None)
    if rows is None or sizes.rows > most:
        return None
    return Sizes(
        rows=rows,
        wanted=min(rows, _power(max(sizes.wanted, _FEW_LOGITS))),
        few=_power(max(sizes.few, 2 * min(rows, _FEW_LOGITS))),
        many=_power(max(sizes.many, rows)),
        masked=_power(max(sizes.masked, min(rows, _FEW_LOGITS) // 2)) if sizes.masked else 0,
        listed=_power(max(sizes.listed, 4 * rows)),
        parts=_power(max(sizes.parts, 8)),
        results=_power(max(sizes.results, 4 * rows)),
        masks=_power(max(sizes.masks, min(rows, 4 * _FEW_LOGITS))) if sizes.masks else 0,
    )


def _power(number: int) -> int:
    """Return the least power of two that is no smaller."""
    return 1 << max(number - 1, 0).bit_length()
