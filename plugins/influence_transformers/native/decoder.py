"""All layers of a decoder of the usual kind in one call.

Concept: most published models have the same layers: a norm, rotated attention, a norm, a gated product, each added to what
came in. Whether a model is one is read off its modules here, and then found by trying its logits
(:mod:`influence_transformers.trial`): no list of model families is kept. Invariant: what kernels are told of a
model names memory that is kept here, and shapes that fit each other.
Source: weights of low rank beside a linear layer: Hu et al., LoRA, 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from influence_transformers.engine.segments import CacheShape
from influence_transformers.native.library import LOG2_E, CAttention, CDecoder, CLayer, CLinear, Library
from influence_transformers.native.products import NativeLinear, described, panels_of

_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = ("gate_proj", "up_proj", "down_proj")


class UnlikeError(Exception):
    """A model's layers, or an adapter's, are not of the usual kind; says how."""


class NativeDecoder:
    """A model's layers with what is switched on of adapters when it is made; raises UnlikeError."""

    def __init__(self, model: Any, shape: CacheShape, heads: int, kernels: Library) -> None:
        kind = shape.uniform
        assert kind is not None
        core: Any = getattr(model, "model", None)
        layers = list(getattr(core, "layers", []))
        if not layers or not all(hasattr(core, name) for name in ("embed_tokens", "rotary_emb", "norm")):
            raise UnlikeError("it has no layers, embeddings, rotations and norm where they usually are")
        if [layer.self_attn.layer_idx for layer in layers] != list(shape.places):
            raise UnlikeError("other layers keep keys and values than are listed")
        self._library, self._model, self._core = kernels, model, core
        self._width, self._heads, self._key_heads = kind.key_dim, heads, kind.heads
        self._hidden, self._inner = layers[0].mlp.down_proj.out_features, layers[0].mlp.down_proj.in_features
        self._rank = 0
        self._kept: list[Any] = []
        self._eps, self._scale = layers[0].input_layernorm.variance_epsilon, layers[0].self_attn.scaling
        self._described = CDecoder(
            (CLayer * len(layers))(*(self._layer(layer) for layer in layers)),
            len(layers), self._hidden, self._inner,
            self._eps, self._scale * LOG2_E,
            last=self._norm(core.norm),
        )  # fmt: skip

    def logits(
        self, attention: CAttention, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor,
        room: Callable[[str, int], int],
    ) -> torch.Tensor:  # fmt: skip
        """Return float32 logits, wanted rows x vocabulary; ``room`` gives memory for so many numbers by name.

        ``wanted`` names rows in their order.
        """
        rows = len(tokens)
        x = self._core.embed_tokens(tokens)
        cosines, sines = (t[0].contiguous() for t in self._core.rotary_emb(x, positions.unsqueeze(0)))
        shapes = (x.shape, cosines.shape, sines.shape)
        if shapes != ((rows, self._hidden), (rows, self._width), (rows, self._width)) or not x.is_contiguous():
            raise UnlikeError("its embeddings or rotations are not as wide as its layers")
        if any(t.dtype != torch.float32 for t in (x, cosines, sines)):
            raise UnlikeError("its embeddings or rotations are not in float32")
        queries = self._heads * self._width
        to = self._described
        to.x, to.cosines, to.sines = x.data_ptr(), cosines.data_ptr(), sines.data_ptr()
        normed = torch.empty_like(x)
        to.h, to.between = normed.data_ptr(), room("between", rows * self._rank)
        to.t = room("t", rows * max(2 * self._inner, queries + 2 * self._key_heads * self._width))
        attention.summed = room("summed", rows * queries)
        to.attention = ctypes.pointer(attention)
        to.wanted, to.wanted_count = wanted.data_ptr(), len(wanted)
        self._library.decode(to)
        logits: torch.Tensor = self._model.lm_head(normed[: len(wanted)])
        return logits

    def _layer(self, layer: Any) -> CLayer:
        """Return a layer's description; raises UnlikeError for one that is not as the others usually are."""
        names = {name for name, _ in layer.named_children()}
        if names != _PARTS:
            raise UnlikeError(f"a layer consists of {', '.join(sorted(names))}")
        found = [getattr(owner, name, None) for owner, all_ in _owners(layer) for name in all_]
        others = {n for owner, all_ in _owners(layer) for n, _ in owner.named_children() if n not in {*all_, "act_fn"}}
        if others or None in found:
            raise UnlikeError(f"a layer has {', '.join(sorted(others)) or 'fewer linear layers than usual'}")
        if any(True for owner in (layer, layer.self_attn, layer.mlp) for _ in owner.parameters(recurse=False)):
            raise UnlikeError("a layer has weights of its own")
        if type(layer.mlp.act_fn).__name__ not in {"SiLU", "SiLUActivation"} or layer.self_attn.scaling != self._scale:
            raise UnlikeError("its layers have another activation than usual, or scale attention differently")
        queries, keys = self._heads * self._width, self._key_heads * self._width
        inner, hidden = self._inner, self._hidden
        shapes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
        shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
        q, k, v, output, gate, up, down = (self._linear(linear, *of) for linear, of in zip(found, shapes, strict=True))
        norms = [self._norm(norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        return CLayer(*norms, _array(q, k, v), _array(output), _array(gate, up), _array(down))

    def _norm(self, norm: Any) -> int:
        """Return where a norm's weights lie, kept."""
        weight = norm.weight.detach().contiguous()
        if weight.dtype != torch.float32 or weight.shape != (self._hidden,) or norm.variance_epsilon != self._eps:
            raise UnlikeError("its norms are not alike, or not in float32")
        self._kept.append(weight)
        return int(weight.data_ptr())

    def _linear(self, linear: Any, depth: int, width: int) -> CLinear:
        """Return the description of a linear layer, with that of an adapter that is switched on."""
        base = getattr(linear, "base_layer", linear)
        if not isinstance(base, NativeLinear):
            raise UnlikeError("a linear layer is of another kind")
        if (base.described.depth, base.described.width, base.out_features) != (depth, width, width):
            raise UnlikeError("the widths of its linear layers do not fit, or are no multiples of a panel's")
        mine = CLinear.from_buffer_copy(base.described)
        self._kept.append(base)
        if base is not linear and not linear.disable_adapters:
            for name in linear.active_adapters:
                mine.lower, mine.raised = self._adapter(linear, name)
        return mine

    def _adapter(self, linear: Any, name: str) -> tuple[Any, Any]:
        """Return pointers to an adapter's two weights, the second of them scaled."""
        plain = {"lora_A", "lora_B", "lora_dropout", "base_layer"}
        more = {n for n, child in linear.named_children() if n not in plain and name in getattr(child, "keys", list)()}
        if more or len(linear.active_adapters) != 1 or getattr(linear, "lora_variant", {}).get(name):
            raise UnlikeError("an adapter adds more than two weights")
        a, b = linear.lora_A[name], linear.lora_B[name]
        if a.bias is not None or b.bias is not None:
            raise UnlikeError("an adapter has a bias")
        lower = panels_of(a.weight.detach().float())
        rank = lower.shape[0] * lower.shape[2]
        scaled = b.weight.detach().float() * linear.scaling[name]
        raised = panels_of(torch.nn.functional.pad(scaled, (0, rank - scaled.shape[1])))
        self._rank = max(self._rank, rank)
        self._kept += [lower, raised]
        return ctypes.pointer(described(lower)), ctypes.pointer(described(raised))


def _owners(layer: Any) -> tuple[tuple[Any, tuple[str, ...]], ...]:
    return (layer.self_attn, _ATTENTION), (layer.mlp, _GATED)


def _array(*linears: CLinear) -> ctypes.Array[CLinear]:
    """Return what describes linear layers that read the same rows."""
    return (CLinear * len(linears))(*linears)
