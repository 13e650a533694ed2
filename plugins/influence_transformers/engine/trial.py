"""Whether attention over segments serves a model, found by trying.

Concept: a short prompt is computed by the model's own attention, and by ours in pieces with a shared beginning; if the
logits agree, the model's keys and values have the shapes that the trial saw. No list of model families is kept.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from influence_transformers.engine.attention import NAME, Probe, UnsupportedAttentionError, use
from influence_transformers.engine.forward import Runner, Work, lay_out
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.segments import CacheShape, Pool, Span
from influence_transformers.engine.sequences import Sequence, TextTask

_log = logging.getLogger(__name__)
_LENGTH = 24
_SPLIT = 10


def try_packed(model: Any, context: int | None) -> CacheShape | None:
    """Return the shape of the model's cache, its attention switched to ours; None, switched back, if that does not serve."""
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
        ours = _in_pieces(Runner(model), shape, ids)
    except Exception as error:  # noqa: BLE001 - model code may fail in any way; then it runs unbatched
        _switch_back(model, before, f"{type(error).__name__}: {error}")
        return None
    difference = float((own.float() - ours).abs().max() / own.float().std().clamp_min(1e-6))
    if not difference < (1e-2 if probe.dtype == torch.float32 else 0.5):
        _switch_back(model, before, f"logits differ by {difference:.2g} standard deviations")
        return None
    return shape


def _in_pieces(runner: Runner, shape: CacheShape, ids: list[int]) -> torch.Tensor:
    """Return logits after the first piece and at the end, the first piece read by a second sequence as a shared span."""
    pool = Pool(shape, 0)
    first = _sequence(ids[: _SPLIT + 1])
    first.segment = pool.segment(_LENGTH)
    after = runner.logits(lay_out([Work(first, _SPLIT + 1, True)], shape.device))
    second = _sequence(ids)
    second.above = [Span(first.segment, 0, _SPLIT)]
    second.base = second.computed = _SPLIT
    second.segment = pool.segment(_LENGTH)
    half = (_LENGTH - _SPLIT) // 2
    runner.logits(lay_out([Work(second, half, False)], shape.device))
    second.computed += half
    last = runner.logits(lay_out([Work(second, _LENGTH - _SPLIT - half, True)], shape.device))
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
