"""How attention is computed where the rows of a batch are padded on the right.

Concept: a causal model looks back only, and behind a row's last token stands nothing but padding, so that no learnt token
sees any: attention needs no mask. Without one it is a flash kernel that shares keys and values between heads; with one,
every layer repeats them, converts the mask, and takes a slower kernel. Invariant: what is learnt is the same either way,
to rounding; a mask that says anything else than padding on the right is left as it is.
"""

from __future__ import annotations

from typing import Any

import torch


def pass_over_padding(base: Any, *, gpu: bool, dtype: torch.dtype) -> None:
    """Have a causal model attend without the mask of right padding where that is faster; the process's kernels are chosen.

    On a GPU there is a flash kernel for half precision only; with float32, shared keys and values would fall to one whose
    memory grows with the square of the length. cuDNN's kernels, which torch prefers on Hopper and data centre Blackwell,
    are left out: cuDNN builds a plan for each new shape of a batch, forward and backward, and in training nearly every
    batch has a new one (github.com/modelscope/FunASR/issues/3704 has 0.44 s and 0.55 s a shape on a B200).
    """
    if gpu:
        torch.backends.cuda.enable_cudnn_sdp(False)
        if dtype is not torch.bfloat16:
            return
    config = base.config.get_text_config()
    causal = getattr(config, "is_causal", True) and not getattr(config, "use_bidirectional_attention", None)
    if causal and getattr(config, "_attn_implementation", None) == "sdpa":
        base.base_model.register_forward_pre_hook(_without_mask, with_kwargs=True)


def _without_mask(
    _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    mask = kwargs.get("attention_mask")
    if mask is None or mask.dim() != 2 or not _pads_right(mask):
        return None
    return args, {**kwargs, "attention_mask": None}


def _pads_right(mask: torch.Tensor) -> bool:
    """Say whether each row is ones, then zeros, with a one at least."""
    return bool(mask[:, 0].all() & (mask[:, 1:] <= mask[:, :-1]).all())
