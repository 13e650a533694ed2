"""Passes through a model on a GPU, from tables.

Concept: what a pass does is laid down in tables (:mod:`influence_transformers.engine.tables`), taken to the device in one
copy and followed by a few kernels; passes of few rows are recorded and played back
(:mod:`influence_transformers.engine.recordings`). Invariant: a pass's tables name memory that lives until it is done: the
sequences' segments, and a scratch segment of the maker's own.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from influence_transformers.engine.forward import Layout, Model
from influence_transformers.engine.recordings import Recordings, power, recorded_sizes
from influence_transformers.engine.tables import MANY, Maker, Sizes

if TYPE_CHECKING:
    from influence_transformers.engine.kernels import Shape
    from influence_transformers.engine.segments import CacheShape

DEVICES = ("cuda",)
"""Kinds of device that tables are used on."""
_WORTH = 10**13
"""Rows x parameters beyond which a pass keeps a GPU busy for longer than it takes to launch."""
_LEAST_RECORDED = 256
_WIDEST = 256


def unserved(shape: CacheShape, heads: set[int]) -> str:
    """Return why tables do not serve a model with such a cache and such numbers of query heads; nothing if they do."""
    if shape.device.type not in DEVICES:
        return f"they are not for {shape.device.type}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    kind = shape.uniform
    if kind is None or len(heads) != 1:
        return "the layers are not alike"
    repeat, rest = divmod(next(iter(heads)), kind.heads)
    if rest or repeat > MANY or kind.key_dim > _WIDEST:
        return f"{next(iter(heads))} heads of width {kind.key_dim} over {kind.heads} do not fit"
    return ""


class TableRunner:
    """Sends packed passes through a model; ``heads`` is its number of query heads."""

    def __init__(self, model: Any, shape: CacheShape, heads: int, *, record: bool) -> None:
        from influence_transformers.engine.kernels import Shape

        kind = shape.uniform
        assert kind is not None
        origin = torch.empty(16, dtype=shape.dtype, device=shape.device)
        repeat = heads // kind.heads
        self._model = Model(model)
        self._shape = shape
        self._maker = Maker(shape, repeat, origin.data_ptr())
        self._kernels = Shape(kind.heads, repeat, kind.key_dim, origin)
        self._recordings = None
        if record and shape.device.type == "cuda":
            self._recordings = Recordings(self._forward, shape.device)
        self._most = max(_LEAST_RECORDED, _WORTH // max(1, sum(p.numel() for p in model.parameters())))

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary, having written the pass's keys and values.

        ``adapter`` names what the model computes with at present.
        """
        tables = self._maker.make(layout.plan, layout.tokens, layout.positions, layout.logit_rows)
        wanted = len(layout.logit_rows)
        device = torch.cuda.device_of(self._kernels.origin)  # type: ignore[no-untyped-call]
        with torch.inference_mode(), device:
            if self._recordings is not None and not self._recordings.off:
                sizes = recorded_sizes(tables.sizes, self._most)
                found = None if sizes is None else self._recordings.play(adapter, sizes, tables.packed(sizes))
                if found is not None:
                    return found[:wanted]
            sizes = tables.sizes._replace(parts=power(tables.sizes.parts))  # few sizes to compile kernels for
            return self._forward(torch.from_numpy(tables.packed(sizes)).to(self._shape.device), sizes)

    def release(self) -> None:
        """Give back the memory of what is recorded, and record no more: memory ran out."""
        if self._recordings is not None:
            self._recordings.stop("memory ran out")

    def _forward(self, packed: torch.Tensor, sizes: Sizes) -> torch.Tensor:
        tables = {name: packed[place] for name, place in sizes.places.items()}
        attention = Pass(self._kernels, self._shape.places, tables, sizes)
        return self._model.logits(attention, tables["tokens"], tables["positions"], tables["wanted"])


class Pass:
    """One pass's tables on the device, ready for every layer."""

    def __init__(self, kernels: Shape, places: dict[int, int], tables: dict[str, torch.Tensor], sizes: Sizes) -> None:
        self._kernels, self._places, self._tables = kernels, places, tables
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
