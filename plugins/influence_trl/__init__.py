"""Training of local models with TRL and PEFT: expert iteration, KTO, DPO and a policy gradient.

Only hooks live here; whatever needs torch, TRL or transformers is imported in the process that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Algorithm

_REQUIRES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
_EXTRA = "influence-cli[train]"


def _expert_iteration() -> Callable[..., Algorithm]:
    from influence_trl.algorithms import ExpertIteration

    return ExpertIteration


def _kto() -> Callable[..., Algorithm]:
    from influence_trl.algorithms import Kto

    return Kto


def _dpo() -> Callable[..., Algorithm]:
    from influence_trl.algorithms import Dpo

    return Dpo


def _rloo() -> Callable[..., Algorithm]:
    from influence_trl.algorithms import Rloo

    return Rloo


@hookimpl
def influence_algorithms() -> Iterable[Component[Algorithm]]:
    """Return the algorithms that train LoRA weights on this machine."""
    from influence_trl.options import DpoOptions, ExpertIterationOptions, KtoOptions, RlooOptions

    kinds = (
        ("expert-iteration", "Imitate the best conversations (SFT)", _expert_iteration, ExpertIterationOptions),
        ("kto", "More like the best, less like the worst, reply by reply", _kto, KtoOptions),
        ("dpo", "The best conversation rather than the worst from one initial state", _dpo, DpoOptions),
        ("rloo", "Policy gradient on ratings, less the mean of the other conversations", _rloo, RlooOptions),
    )
    return [
        Component(name=name, summary=summary, load=load, options=options, requires=_REQUIRES, extra=_EXTRA)
        for name, summary, load, options in kinds
    ]
