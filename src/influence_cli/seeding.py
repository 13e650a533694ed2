"""Random draws that depend on what is drawn, never on when.

Invariant: a seed is a pure function of the run seed and the names of the thing drawn (environment, scenario, initial
state, sample, turn, role), so that concurrency, resuming and sharding cannot change a trajectory.
"""

from __future__ import annotations

from hashlib import blake2b

SEED_BITS = 63
"""Seeds are non-negative and fit a signed 64-bit integer, as servers and SQLite want them."""


def derive_seed(*names: str | int) -> int:
    """Return a seed in [0, 2**63) determined by ``names``, in their order; 1 and "1" are different names."""
    digest = blake2b(digest_size=8)
    for name in names:
        part = f"{type(name).__name__}:{name}".encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big") >> (64 - SEED_BITS)


def unit_draw(*names: str | int) -> float:
    """Return a number in [0, 1) determined by ``names``, uniform over names."""
    return (derive_seed(*names) >> (SEED_BITS - 53)) / 2.0**53
