"""Whether attention over segments serves a model, and by what, found by trying.

Concept: a short prompt is computed by the model's own attention, and by ours in pieces with a shared beginning; if the
logits agree, the model's keys and values have the shapes that the trial saw. No list of model families is kept.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from influence_transformers.engine.attention import NAME, Probe, UnsupportedAttentionError, use
from influence_transformers.engine.forward import Layout, Runner, Work, apart, lay_out
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.segments import CacheShape, Pool, Span
from influence_transformers.engine.sequences import ChoiceTask, Sequence, TextTask
from influence_transformers.engine.tabled import TableRunner, unserved
from influence_transformers.engine.tables import PIECE
from influence_transformers.native.compiling import CompileError
from influence_transformers.native.passes import NativeRunner
from influence_transformers.native.passes import unserved as native_unserved

_log = logging.getLogger(__name__)
_SHORT, _LONG = 24, PIECE + 90
"""Tokens of the prompt that is tried: by calls, and from tables, where a span longer than an item's piece is read."""
_AFTER_SPLIT = 14
_BESIDE = 4
"""Tokens that follow the prompt, and some to spare."""


class PassRunner(Protocol):
    """What sends packed passes through a model."""

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary; ``adapter`` names what the model computes with at present."""
        ...

    def release(self) -> None:
        """Give back what memory it can do without, since memory ran out."""
        ...


class Packed(NamedTuple):
    """How a model is served: the shape of its cache, and what sends passes through it."""

    shape: CacheShape
    runner: PassRunner


def try_packed(model: Any, context: int | None, *, record: bool = True, native: bool = True) -> Packed | None:
    """Return how a model is served, its attention switched to ours; None, switched back, if that does not serve.

    ``record``: whether small passes on a GPU are recorded and played back; ``native``: whether kernels for this processor
    are tried.
    """
    config = model.config
    before = getattr(config, "_attn_implementation", None)
    try:
        short = _ask(model, _SHORT)
        model.set_attn_implementation(NAME)
        with torch.inference_mode(), _plan(Probe()) as probe:
            model(input_ids=torch.tensor([short.ids], device=model.device), use_cache=False)
        layers = config.get_text_config().num_hidden_layers
        if len(probe.layers) != layers or probe.dtype is None:
            raise UnsupportedAttentionError("not every layer keeps keys and values")
        if probe.window is not None and (context is None or probe.window < context):
            raise UnsupportedAttentionError(f"some layers see a window of {probe.window} tokens only")
        beyond = _rotations_change_beyond(config.get_text_config())
        if beyond is not None and (context is None or beyond < context):
            raise UnsupportedAttentionError(
                f"its rotations depend on what is computed together beyond {beyond} tokens (-o context_length={beyond})"
            )
        shape = CacheShape(probe.layers, probe.dtype, torch.device(model.device))
        runner = _from_tables(
            model, shape, probe.heads, before, min(_LONG, (context or _LONG) - _BESIDE), record=record
        )
    except Exception as error:  # noqa: BLE001 - model code may fail in any way; then it runs unbatched
        _switch_back(model, before, f"{type(error).__name__}: {error}")
        return None
    if runner is None and native:
        runner = _native(model, shape, probe.heads, context, short)
    if runner is None:
        runner = Runner(model)
        reason = _differs(runner, shape, short)
        if reason:
            _switch_back(model, before, reason)
            return None
    return Packed(shape, runner)


def _native(model: Any, shape: CacheShape, heads: set[int], context: int | None, asked: _Asked) -> PassRunner | None:
    """Return what serves the model by kernels for this processor: by whole layers, else their attention; None without."""
    reason = native_unserved(shape, heads)
    for whole in (True, False) if not reason else ():
        try:
            runner = NativeRunner(model, shape, next(iter(heads)), context, whole=whole)
            reason = _differs(runner, shape, asked)
        except CompileError as error:
            reason = str(error)
            break
        except Exception as error:  # noqa: BLE001 - model code may fail in any way
            reason = f"{type(error).__name__}: {error}"
        if not reason:
            return runner
        _log.info("This model is not computed by %s: %s", "whole layers" if whole else "kernels of our own", reason)
    if shape.device.type == "cpu":
        _log.info("This model's attention is computed by torch: %s", reason)
    return None


def _from_tables(
    model: Any, shape: CacheShape, heads: set[int], before: str | None, length: int, *, record: bool
) -> PassRunner | None:
    """Return what serves the model from tables, tried on a prompt so long; None, said on a GPU, if they do not serve."""
    reason = unserved(shape, heads)
    if not reason:
        model.set_attn_implementation(before)
        asked = _ask(model, max(_SHORT, length))
        model.set_attn_implementation(NAME)
        try:
            runner = TableRunner(model, shape, next(iter(heads)), record=record)
        except Exception as error:  # noqa: BLE001 - a compiler may be missing
            reason = f"{type(error).__name__}: {error}"
        else:
            reason = _differs(runner, shape, asked)
            if not reason:
                return runner
    if shape.device.type == "cuda":
        _log.warning("This model's passes take a kernel call for each of their parts, which is slow: %s", reason)
    return None


def _rotations_change_beyond(config: Any) -> int | None:
    """Return after how many positions a model rotates all positions differently; None if it never does.

    Then keys that were computed earlier, or beside shorter sequences, would not fit those that follow.
    """
    rotations = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for each in (rotations, *(value for value in rotations.values() if isinstance(value, dict))):
        kind = str(each.get("rope_type", ""))
        if "dynamic" in kind or kind == "longrope":
            known = each.get("original_max_position_embeddings")
            return int(known or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
    return None


class _Asked(NamedTuple):
    """A prompt, two tokens and one that may follow it, and the model's own logits.

    Logits after the ``split``-th token, the last but one, the last, the two, and the one, 6 x vocabulary.
    """

    ids: list[int]
    split: int
    pair: list[int]
    other: int
    logits: torch.Tensor


def _ask(model: Any, length: int) -> _Asked:
    vocabulary = model.config.get_text_config().vocab_size
    ids = [(7 + 13 * i * i) % vocabulary for i in range(length)]
    *pair, other = ((ids[-1] + more) % vocabulary for more in (1, 2, 3))
    split = length - _AFTER_SPLIT
    with torch.inference_mode():
        first, second = (
            model(input_ids=torch.tensor([ids + more], device=model.device), use_cache=False).logits[0]
            for more in (pair, [other])
        )
    return _Asked(ids, split, pair, other, torch.cat([first[[split, -4, -3, -2, -1]], second[-1:]]).float())


def _differs(runner: PassRunner, shape: CacheShape, asked: _Asked) -> str:
    """Return why a runner does not serve, nothing if it does: its logits are what the model itself gives."""
    try:
        ours = _in_pieces(runner, shape, asked)
    except Exception as error:  # noqa: BLE001 - a kernel may fail in any way
        return f"{type(error).__name__}: {error}"
    difference = apart(asked.logits, ours)
    if difference < (1e-2 if shape.dtype == torch.float32 else 0.5):
        return ""
    return f"logits differ by {difference:.2g} standard deviations"


def _in_pieces(runner: PassRunner, shape: CacheShape, asked: _Asked) -> torch.Tensor:
    """Return the logits that were asked for, from passes of every kind.

    One sequence reads up to the split. A second one sees that as a shared span and goes on in two chunks and a single row; a
    third, which shares it as well, asks for what follows as choices.
    """
    pool = Pool(shape, 0)
    ids, split, length = asked.ids, asked.split, len(asked.ids)
    first = _sequence(ids[: split + 1], TextTask(Draws(0.0, 1.0, 0), 1))
    first.segment = pool.segment(length)
    after = runner.logits(lay_out([Work(first, split + 1, True)]))
    second, third = (
        _sequence(ids, task)
        for task in (TextTask(Draws(0.0, 1.0, 0), 1), ChoiceTask([asked.pair, [asked.other]], ending=False))
    )
    for seq in (second, third):
        seq.above = [Span(first.segment, 0, split)]
        seq.base = seq.computed = split
        seq.segment = pool.segment(length)
    chunk = (length - split) // 2
    runner.logits(lay_out([Work(second, chunk, False)]))
    second.computed += chunk
    rest = length - split - chunk - 1
    before = runner.logits(lay_out([Work(second, rest, True), Work(third, length - split, True)]))
    second.computed += rest
    last = runner.logits(lay_out([Work(second, 1, True)]))
    assert isinstance(third.task, ChoiceTask)
    trie = third.task.trie
    rows = [2 + trie.tokens.index(token) for token in (*asked.pair, asked.other)]  # before them: two prompts' ends
    return torch.cat([after, before[:1], last, before[rows]])


def _sequence(ids: list[int], task: TextTask | ChoiceTask) -> Sequence:
    return Sequence(np.asarray(ids, np.int32), task, None, Future())


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
