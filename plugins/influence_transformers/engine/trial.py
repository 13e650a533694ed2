"""Whether attention over segments serves a model, found by trying.

Concept: a short prompt is computed by the model's own attention, and by ours in pieces with a shared beginning; if the
logits agree, the model's keys and values have the shapes that the trial saw. No list of model families is kept.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from influence_transformers.engine.attention import NAME, Probe, UnsupportedAttentionError, use
from influence_transformers.engine.forward import Layout, Runner, Work, lay_out
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.segments import CacheShape, Pool, Span
from influence_transformers.engine.sequences import Sequence, TextTask
from influence_transformers.engine.tabled import TableRunner, served

_log = logging.getLogger(__name__)
_LENGTH = 24
_SPLIT = 10


class PassRunner(Protocol):
    """What sends packed passes through a model."""

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary; ``adapter`` names what the model computes with at present."""
        ...


class Packed(NamedTuple):
    """How a model is served: the shape of its cache, and what sends passes through it."""

    shape: CacheShape
    runner: PassRunner


def try_packed(model: Any, context: int | None, *, record: bool = True) -> Packed | None:
    """Return how a model is served, its attention switched to ours; None, switched back, if that does not serve.

    ``record``: whether small passes on a GPU are recorded and played back.
    """
    config = model.config
    before = getattr(config, "_attn_implementation", None)
    vocabulary = config.get_text_config().vocab_size
    ids = [(7 + 13 * i * i) % vocabulary for i in range(_LENGTH)]
    try:
        with torch.inference_mode():
            own = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, [_SPLIT, -1]]
        model.set_attn_implementation(NAME)
        with torch.inference_mode(), _plan(Probe()) as probe:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        layers = config.get_text_config().num_hidden_layers
        if len(probe.layers) != layers or probe.dtype is None:
            raise UnsupportedAttentionError("not every layer keeps keys and values")
        if probe.window is not None and (context is None or probe.window < context):
            raise UnsupportedAttentionError(f"some layers see a window of {probe.window} tokens only")
        shape = CacheShape(probe.layers, probe.dtype, torch.device(model.device))
    except Exception as error:  # noqa: BLE001 - model code may fail in any way; then it runs unbatched
        _switch_back(model, before, f"{type(error).__name__}: {error}")
        return None
    reason = ""
    for make in _runners(model, shape, probe.heads, record):
        reason = _differs(make, shape, ids, own)
        if not reason:
            return Packed(shape, make())
    _switch_back(model, before, reason)
    return None


def _runners(model: Any, shape: CacheShape, heads: set[int], record: bool) -> Iterator[Callable[[], PassRunner]]:
    """Yield what may serve, the fastest first."""
    if served(shape, heads):
        yield lambda: TableRunner(model, shape, next(iter(heads)), record=record)
    yield lambda: Runner(model)


def _differs(make: Callable[[], PassRunner], shape: CacheShape, ids: list[int], own: torch.Tensor) -> str:
    """Return why a runner does not serve, nothing if it does: its logits are ``own``, what the model itself gives."""
    try:
        ours = _in_pieces(make(), shape, ids)
    except Exception as error:  # noqa: BLE001 - a kernel may fail in any way
        reason = f"{type(error).__name__}: {error}"
    else:
        difference = float((own.float() - ours).abs().max() / own.float().std().clamp_min(1e-6))
        if difference < (1e-2 if shape.dtype == torch.float32 else 0.5):
            return ""
        reason = f"logits differ by {difference:.2g} standard deviations"
    _log.info("One way to batch this model does not serve: %s", reason)
    return reason


def _in_pieces(runner: PassRunner, shape: CacheShape, ids: list[int]) -> torch.Tensor:
    """Return logits after the first piece and at the end, the first piece read by a second sequence as a shared span."""
    pool = Pool(shape, 0)
    first = _sequence(ids[: _SPLIT + 1])
    first.segment = pool.segment(_LENGTH)
    after = runner.logits(lay_out([Work(first, _SPLIT + 1, True)]))
    second = _sequence(ids)
    second.above = [Span(first.segment, 0, _SPLIT)]
    second.base = second.computed = _SPLIT
    second.segment = pool.segment(_LENGTH)
    half = (_LENGTH - _SPLIT) // 2
    runner.logits(lay_out([Work(second, half, False)]))
    second.computed += half
    last = runner.logits(lay_out([Work(second, _LENGTH - _SPLIT - half, True)]))
    return torch.cat([after, last])


def _sequence(ids: list[int]) -> Sequence:
    return Sequence(np.asarray(ids, np.int32), TextTask(Draws(0.0, 1.0, 0), 1), None, Future())


def _switch_back(model: Any, before: str | None, reason: str) -> None:
    with contextlib.suppress(Exception):
        model.set_attn_implementation(before)
    _log.warning("This model runs one request at a time, without prefix cache: %s", reason)


@contextlib.contextmanager
def _plan(probe: Probe) -> Iterator[Probe]:
    use(probe)
    try:
        yield probe
    finally:
        use(None)
