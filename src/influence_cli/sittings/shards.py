"""Simulations in shards: one part begun by hand, all of them left to themselves, or minded here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.sharding.simulating import simulate_in_shards
from influence_cli.sharding.splitting import Sharding
from influence_cli.simulation.shards import shard_config
from influence_cli.simulation.sitting import Sitting
from influence_cli.simulation.summing import Summary
from influence_cli.sittings.detaching import Launched, Place, launch
from influence_cli.sittings.loading import tell_models
from influence_cli.sittings.logs import logged
from influence_cli.sittings.simulate import begin, take_up, talk
from influence_cli.sittings.sources import Sources
from influence_cli.store.run_directory import MANIFEST
from influence_cli.store.shards import Shard

_PAUSE = 0.25
_MAKING = 3.0
"""Seconds that the directory of a run may take from being made to being one."""


def begin_shard(registry: PluginRegistry, sources: Sources, out: Path | None, shard: Shard, heard: Listener) -> Sitting:
    """Return the sitting of one shard, begun by hand; the first to come makes the run, the others take it up."""
    if out is None:
        raise InfluenceError("The shards of a run need one folder.", hint="Name it: --out FOLDER.")
    if not (out / MANIFEST).is_file():
        try:
            return _of_shard(begin(registry, sources, out, heard), shard)
        except InfluenceError:
            if not _is_made(out):
                raise
    return take_up(registry, str(out), sources, heard, shard=shard)


def _is_made(out: Path) -> bool:
    """Return whether ``out`` is a run, or becomes one in a moment: another shard, begun at once, was quicker."""
    until = time.monotonic() + _MAKING
    while out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file() and time.monotonic() < until:
        time.sleep(_PAUSE)
    return (out / MANIFEST).is_file()


def _of_shard(sitting: Sitting, shard: Shard) -> Sitting:
    """Return what is left of a whole run's ``sitting`` for one shard."""
    assert sitting.directory is not None
    sitting.directory = sitting.directory.of_shard(shard)
    sitting.config = shard_config(sitting.config, shard)
    return sitting


def leave(registry: PluginRegistry, sitting: Sitting, where: Sequence[str], heard: Listener) -> Launched:
    """Leave the conversations of ``sitting`` to a process of this machine, which minds shards as ``where`` says."""
    assert sitting.directory is not None
    directory = sitting.directory
    with directory.writer():
        directory.remember(sitting.config)
    arguments = ("--resume", str(directory.path.resolve()), *where)
    return launch(registry, directory.path, "simulate", arguments, Place(detach=True), heard.warn)


def have_conversations(sitting: Sitting, sharding: Sharding | None, heard: Listener) -> Summary:
    """Have the conversations of ``sitting``, here or by shards; return how it went. What is stored is merged in any case."""
    if sharding is None:
        return talk(sitting, heard)
    assert sitting.directory is not None
    tell_models(sitting.config, sitting.models, heard.say)
    with logged(sitting.directory.path / "logs", heard.say):
        return simulate_in_shards(sitting, sharding, heard)
