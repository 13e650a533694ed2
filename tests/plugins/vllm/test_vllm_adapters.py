"""Adapters come and go while requests run; what answers is what was asked for."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.api import CallFailedError
from influence_vllm.adapters import Adapters, adds_nothing, identify


class Holder:
    """An engine that keeps adapters in a set and answers otherwise with each; it refuses more than it has room for."""

    def __init__(self, room=2, *, applies=True):
        self.room, self.applies = room, applies
        self.loaded, self.loads, self.unloads = set(), [], []
        self.refuses = set()

    async def load_adapter(self, identity):
        await asyncio.sleep(0)
        if identity.digest in self.refuses:
            raise CallFailedError("invalid_request", "It does not fit.", attempts=0)
        self.loaded.add(identity.digest)
        self.loads.append(identity.digest)
        assert len(self.loaded) <= self.room

    async def unload_adapter(self, identity):
        await asyncio.sleep(0)
        self.loaded.discard(identity.digest)
        self.unloads.append(identity.digest)

    async def probe(self, identity):
        await asyncio.sleep(0)
        if identity is None or identity.is_zero or not self.applies:
            return {"0:a": -1.0}
        assert identity.digest in self.loaded
        return {"0:a": -1.0 - int(identity.digest[:4], 16) / 1e5 - 0.1}


async def test_an_adapter_is_loaded_once_for_all_who_ask_for_it(make_adapter):
    folder = make_adapter()
    holder = Holder()
    adapters = Adapters(holder, 2)

    async def ask():
        async with adapters.use(str(folder)) as identity:
            return identity.digest

    assert len(set(await asyncio.gather(*(ask() for _ in range(8))))) == 1
    assert len(holder.loads) == 1
    assert adapters.effects[holder.loads[0]] > 0.0


async def test_the_one_used_longest_ago_makes_room(make_adapter):
    first, second, third = (make_adapter(name, value=value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)))
    holder = Holder(room=2)
    adapters = Adapters(holder, 2)
    for folder in (first, second, first, third):
        async with adapters.use(str(folder)):
            pass
    assert holder.unloads == [identify(str(second)).digest]
    assert [each.folder for each in adapters.loaded] == [first, third]


async def test_an_adapter_in_use_is_never_put_out(make_adapter):
    folders = [make_adapter(name, value=float(number + 1)) for number, name in enumerate("ab")]
    holder = Holder(room=1)
    adapters = Adapters(holder, 1)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold():
        async with adapters.use(str(folders[0])):
            entered.set()
            await leave.wait()

    async def ask():
        async with adapters.use(str(folders[1])) as identity:
            return identity.folder

    holding = asyncio.create_task(hold())
    await entered.wait()
    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    assert not asking.done()
    assert holder.unloads == []
    leave.set()
    await holding
    assert await asking == folders[1]
    assert holder.unloads == [identify(str(folders[0])).digest]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=24), st.integers(1, 3))
def test_whatever_is_asked_in_any_order_is_answered_within_the_room(asked, room):
    import tempfile
    from pathlib import Path

    from .conftest import write_safetensors

    async def run(folders):
        adapters = Adapters(Holder(room=room), room)

        async def ask(number):
            async with adapters.use(str(folders[number])) as identity:
                await asyncio.sleep(0)
                return identity.folder

        return await asyncio.gather(*(ask(number) for number in asked))

    with tempfile.TemporaryDirectory() as place:
        folders = []
        for number in range(5):
            folders.append(Path(place).resolve() / str(number))
            folders[-1].mkdir()
            (folders[-1] / "adapter_config.json").write_text('{"r": 1}')
            write_safetensors(folders[-1] / "adapter_model.safetensors", {"x.lora_B.weight": [1.0 + number]})
        assert asyncio.run(run(folders)) == [folders[number] for number in asked]


async def test_an_adapter_that_changes_nothing_is_an_error_and_is_put_out(make_adapter):
    holder = Holder(applies=False)
    adapters = Adapters(holder, 1)
    for _ in range(2):
        with pytest.raises(CallFailedError, match="changes no answer, though its weights are not zero"):
            async with adapters.use(str(make_adapter())):
                pass
    assert holder.loaded == set()


async def test_an_adapter_of_zeros_may_change_nothing(make_adapter):
    adapters = Adapters(Holder(), 1)
    async with adapters.use(str(make_adapter(value=0.0))) as identity:
        assert identity.is_zero
    assert adapters.effects == {identity.digest: 0.0}


async def test_one_that_cannot_be_loaded_leaves_its_place_to_others(make_adapter):
    bad, good = make_adapter("bad", value=1.0), make_adapter("good", value=2.0)
    holder = Holder(room=1)
    holder.refuses.add(identify(str(bad)).digest)
    adapters = Adapters(holder, 1)
    with pytest.raises(CallFailedError, match="does not fit"):
        async with adapters.use(str(bad)):
            pass
    async with adapters.use(str(good)) as identity:
        assert identity.folder == good


async def test_weights_that_changed_on_disk_are_another_adapter(make_adapter):
    adapters = Adapters(Holder(), 2)
    async with adapters.use(str(make_adapter(value=1.0))) as before:
        pass
    folder = make_adapter(value=2.0, extra="longer")
    weights = folder / "adapter_model.safetensors"
    import os

    os.utime(weights, ns=(1, 1))
    async with adapters.use(str(folder)) as now:
        assert now.digest != before.digest
        assert now.name != before.name


async def test_no_adapter_needs_no_place():
    async with Adapters(Holder(room=0), 1).use(None) as identity:
        assert identity is None


def test_what_is_no_adapter_is_said(tmp_path, make_adapter):
    with pytest.raises(CallFailedError, match="is no adapter"):
        identify(str(tmp_path / "nowhere"))
    with pytest.raises(CallFailedError, match="is IA3, not LoRA"):
        identify(str(make_adapter(peft_type="IA3")))
    with pytest.raises(CallFailedError, match=r"rank 32, more than there is room for: set -o max_lora_rank"):
        identify(str(make_adapter(rank=32)), 16)
    with pytest.raises(CallFailedError, match="rank 64"):
        identify(str(make_adapter(rank=8, rank_pattern={"q_proj": 64})), 16)


@pytest.mark.parametrize("raw", [b"", b"short", b"\xff" * 16, (2**40).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_safetensors_are_said(make_adapter, raw):
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(raw)
    with pytest.raises(CallFailedError, match="cannot be read"):
        identify(str(folder))


def test_zeros_are_told_from_values_by_the_second_factor(make_adapter):
    assert adds_nothing(make_adapter(value=0.0) / "adapter_model.safetensors")
    assert not adds_nothing(make_adapter(value=1e-30) / "adapter_model.safetensors")
    assert json.loads((make_adapter() / "adapter_config.json").read_text())["r"] == 8
