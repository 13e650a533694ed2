"""LoRA weights by request: loaded when first asked for, kept while there is room, put out when others need the place.

Concept: :class:`Adapters` keeps account of what one engine or server has loaded, and only it loads and unloads; the
engine's own table has as many places and so never has to choose. Invariants: an adapter is known by the digest of its
weights, and the weights that answer are those whose digest was taken when they were loaded; an adapter that somebody uses
is not put out; one that changes no answer although its weights are not zero is an error, never used.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from influence_cli.api import CallFailedError, InfluenceError, adapter_digest

_log = logging.getLogger(__name__)
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_LENGTH_BYTES = 8
_MOST_HEADER = 2**28
_BLOCK = 2**20

Probe = Mapping[str, float]
"""Log-probabilities of some tokens after some prompts, by any names."""


@dataclass(frozen=True)
class Identity:
    """An adapter in a folder: the digest of its weights, its rank, and whether they add anything to the model."""

    folder: Path
    digest: str
    rank: int
    is_zero: bool

    @property
    def name(self) -> str:
        """What engines and servers know it as."""
        return f"influence-{self.digest[:24]}"


class Holder(Protocol):
    """An engine or server that holds adapters."""

    async def load_adapter(self, identity: Identity) -> None:
        """Make the adapter ready for requests; CallFailedError where it cannot be."""
        ...

    async def unload_adapter(self, identity: Identity) -> None:
        """Put the adapter out; one that is not there is none."""
        ...

    async def probe(self, identity: Identity | None) -> Probe:
        """Return log-probabilities that an adapter in use would change."""
        ...


def identify(path: str, max_rank: int | None = None) -> Identity:
    """Return what lies in the folder ``path``; CallFailedError where that is no LoRA adapter or its rank is too high."""
    folder = Path(path).expanduser().resolve()
    if not (folder / _CONFIG).is_file() or not (folder / _WEIGHTS).is_file():
        raise CallFailedError(
            "not_found",
            f"{folder} is no adapter: it needs {_CONFIG} and {_WEIGHTS}. Name a folder that PEFT saved.",
            attempts=0,
        )
    try:
        config: Any = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        kind = str(config.get("peft_type", "LORA"))
        ranks = [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
        is_zero = adds_nothing(folder / _WEIGHTS)
        digest = adapter_digest(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InfluenceError) as error:
        raise CallFailedError("invalid_request", f"The adapter {folder} cannot be read: {error}", attempts=0) from error
    if kind != "LORA":
        raise CallFailedError(
            "invalid_request", f"The adapter {folder} is {kind}, not LoRA. Use a LoRA adapter.", attempts=0
        )
    if max_rank is not None and max(ranks) > max_rank:
        said = f"The adapter {folder} has rank {max(ranks)}, more than there is room for: set -o max_lora_rank=..."
        raise CallFailedError("invalid_request", said, attempts=0)
    return Identity(folder, digest, max(ranks), is_zero)


def _version(path: str) -> tuple[Path, int, int] | None:
    """Return what tells one state of the weights in a folder from another without reading them; None for no weights."""
    folder = Path(path).expanduser().resolve()
    try:
        stat = (folder / _WEIGHTS).stat()
    except OSError:
        return None
    return folder, stat.st_size, stat.st_mtime_ns


def adds_nothing(weights: Path) -> bool:
    """Return whether every second factor (``lora_B``) in a safetensors file is zero, so that the products are."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _MOST_HEADER:
            raise ValueError(f"{weights.name} is no safetensors file")
        entries: dict[str, Any] = json.loads(file.read(length))
        start = _LENGTH_BYTES + length
        for name, entry in entries.items():
            if "lora_B" not in name and "lora_embedding_B" not in name:
                continue
            first, last = entry["data_offsets"]
            file.seek(start + first)
            while first < last:
                block = file.read(min(_BLOCK, last - first))
                if not block:
                    raise ValueError(f"{weights.name} is cut off")
                if block.strip(b"\0"):
                    return False
                first += len(block)
    return True


def check_effect(identity: Identity, base: Probe, again: Probe, adapted: Probe) -> float:
    """Return how far the adapter moves the probes; CallFailedError if not at all although its weights are not zero.

    ``base`` and ``again`` are the model without it, asked twice: what they differ by is the noise of computing, and an
    effect that is not larger is told in the log.
    """
    noise = _distance(base, again)
    moved = _distance(base, adapted)
    if not identity.is_zero and moved == 0.0:
        raise CallFailedError(
            "internal",
            f"The adapter {identity.folder} changes no answer, though its weights are not zero: vLLM does not apply it.",
            attempts=0,
        )
    if not identity.is_zero and moved <= noise:
        _log.warning(
            "The adapter %s moves answers by %.2g; repeating them does by %.2g.", identity.folder, moved, noise
        )
    return moved


def _distance(one: Probe, other: Probe) -> float:
    shared = one.keys() & other.keys()
    if not shared:
        return float("inf")
    return max(abs(one[key] - other[key]) for key in shared)


@dataclass
class _Place:
    """A loaded adapter, how many requests use it, and its loading."""

    identity: Identity
    users: int = 0
    loading: asyncio.Future[None] = field(init=False)


class Adapters:
    """What one holder has loaded, at most ``capacity`` at once; belongs to one event loop."""

    def __init__(self, holder: Holder, capacity: int, max_rank: int | None = None) -> None:
        self._holder = holder
        self._capacity = capacity
        self._max_rank = max_rank
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._known: dict[tuple[Path, int, int], Identity] = {}
        self._lock = asyncio.Lock()
        self._freed = asyncio.Event()
        self._bare: tuple[Probe, Probe] | None = None
        self.effects: dict[str, float] = {}

    @property
    def loaded(self) -> list[Identity]:
        """The adapters that are loaded, the one used longest ago first."""
        return [place.identity for place in self._places.values()]

    @asynccontextmanager
    async def use(self, path: str | None) -> AsyncIterator[Identity | None]:
        """Have the adapter in folder ``path`` loaded inside the block; None for no adapter.

        Waits while all places are taken by adapters in use. Raises CallFailedError as :func:`identify`, as the holder
        does, and as :func:`check_effect`.
        """
        if path is None:
            yield None
            return
        identity = await self._identify(path)
        place = await self._take(identity)
        try:
            await asyncio.shield(place.loading)
            yield place.identity
        finally:
            place.users -= 1
            self._freed.set()

    def forget(self) -> None:
        """Take nothing for loaded any more: the holder began anew."""
        self._places.clear()
        self._bare = None

    async def unload_all(self) -> None:
        """Put out every adapter."""
        while self._places:
            _, place = self._places.popitem()
            await self._holder.unload_adapter(place.identity)

    async def _identify(self, path: str) -> Identity:
        key = _version(path)
        if key is None or key not in self._known:
            identity = await asyncio.to_thread(identify, path, self._max_rank)
            if key is None:
                return identity
            self._known[key] = identity
        return self._known[key]

    async def _take(self, identity: Identity) -> _Place:
        while True:
            async with self._lock:
                place = self._places.get(identity.digest)
                if place is None:
                    place = await self._place_for(identity)
                if place is not None:
                    self._places.move_to_end(identity.digest)
                    place.users += 1
                    return place
                self._freed.clear()
            await self._freed.wait()

    async def _place_for(self, identity: Identity) -> _Place | None:
        """Return a place in which the adapter is being loaded; None while all are in use."""
        if len(self._places) >= self._capacity:
            idle = next((place for place in self._places.values() if not place.users), None)
            if idle is None:
                return None
            del self._places[idle.identity.digest]
            await self._holder.unload_adapter(idle.identity)
        place = self._places[identity.digest] = _Place(identity)
        place.loading = asyncio.ensure_future(self._load(place))
        place.loading.add_done_callback(lambda _: self._loaded(place))
        return place

    async def _load(self, place: _Place) -> None:
        identity = place.identity
        await self._holder.load_adapter(identity)
        try:
            if self._bare is None:
                self._bare = (await self._holder.probe(None), await self._holder.probe(None))
            self.effects[identity.digest] = check_effect(identity, *self._bare, await self._holder.probe(identity))
        except BaseException:
            await self._holder.unload_adapter(identity)
            raise

    def _loaded(self, place: _Place) -> None:
        failed = place.loading.cancelled() or place.loading.exception() is not None
        if failed and self._places.get(place.identity.digest) is place:
            del self._places[place.identity.digest]
            self._freed.set()
