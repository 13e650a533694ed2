"""A pass as tables: every row sees what the plan says, each position once, whatever the sizes."""

import asyncio
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402

from influence_cli.schemas.messages import ChatMessage  # noqa: E402
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling  # noqa: E402
from influence_transformers.backend import TransformersBackend  # noqa: E402
from influence_transformers.engine import recordings, tabled  # noqa: E402
from influence_transformers.engine.calls import Calls  # noqa: E402
from influence_transformers.engine.tables import COLUMNS, Item, Maker, Sizes  # noqa: E402
from influence_transformers.options import TransformersOptions  # noqa: E402
from influence_transformers.trial import try_packed  # noqa: E402

from . import plain_kernels  # noqa: E402
from .conftest import make_model  # noqa: E402
from .plans import HEADS, LAYERS, SHAPE, WIDTH, plans  # noqa: E402


def expected_reads(plan):
    """Return for each row what it sees, by segment and position, and how many positions of a pass's own rows besides."""
    seen = [set() for _ in range(plan.rows)]
    beside = [0] * plan.rows
    for row, (segment, at) in enumerate(plan.singles):
        seen[row] |= {(segment.address, p) for p in range(at + 1)}
    for segment, at, start, stop in plan.writes:
        for row in range(start, stop):
            seen[row] |= {(segment.address, p) for p in range(at, at + row - start + 1)}
    for read in plan.reads:
        for row in read.rows:
            seen[row] |= {(s.segment.address, p) for s in read.spans for p in range(s.start, s.stop)}
    for start, stop, mask in plan.among:
        for row in range(start, stop) if mask is not None else ():
            beside[row] = int(mask[row - start].sum())
    return seen, beside


@settings(deadline=None, max_examples=60)
@given(plan=plans(), repeat=st.sampled_from([1, 3, 4, 20]), seed=st.integers(0, 99))
def test_items_show_every_row_what_the_plan_says_once(plan, repeat, seed):
    tokens = list(range(seed, seed + plan.rows))
    tables = Maker(SHAPE, repeat, 0).make(plan, tokens, tokens, [0])
    bigger = tables.sizes._replace(
        rows=plan.rows + 3, few=tables.sizes.few + 2, parts=tables.sizes.parts + 1, listed=len(tables.listed) + 5
    )
    whole = tables.packed(bigger)
    view = {name: whole[place] for name, place in bigger.places.items()}
    assert view["tokens"].tolist() == [*tokens, 0, 0, 0]
    parts = view["parts"].reshape(bigger.rows, bigger.parts)
    assert (parts[plan.rows :] == -1).all()
    owner = {int(part): row for row, mine in enumerate(parts) for part in mine if part >= 0}
    assert len(owner) == (parts >= 0).sum() == tables.results  # each partial result is added to one row
    seen, beside, written = [[] for _ in range(plan.rows)], [0] * plan.rows, set()
    for name in ("few", "many", "masked"):
        for row in view[name].reshape(-1, COLUMNS):
            item = Item(*map(int, row))
            for i in range(item.rows):
                who = int(view["listed"][item.listed + i])
                assert owner[item.result + i] == who
                written.add(item.result + i)
                if item.words:
                    bits = view["masks"][item.mask + i * item.words : item.mask + (i + 1) * item.words]
                    beside[who] += sum(int(word).bit_count() for word in bits)
                else:
                    stop = min(item.stop, item.limit + i * item.step)
                    seen[who] += [(4 * item.base, p) for p in range(item.start, stop)]
    expected, expected_beside = expected_reads(plan)
    assert written == set(range(tables.results))
    assert [set(s) for s in seen] == expected
    assert [len(s) for s in seen] == [len(s) for s in expected]
    assert beside == expected_beside
    if tables.sizes.masked == 0:
        assert tables.sizes.masks == 0


def test_recorded_sizes_are_few_and_hold_the_pass():
    found = set()
    for rows in range(1, 1025):
        sizes = tabled.Sizes(rows, min(rows, 64), min(rows, 64), rows // 16, 0, 3 * rows, 4, 3 * rows, 0)
        recorded = recordings.recorded_sizes(sizes, 1024)
        assert recorded is not None
        assert all(ours >= own for ours, own in zip(recorded, sizes, strict=True))
        found.add(recorded)
    assert len(found) == sum(step <= 1024 for step in recordings.STEPS)
    assert recordings.recorded_sizes(sizes._replace(rows=1025), 1024) is None


def compare(plan, repeat, kernels):
    """Compare a plan's attention from tables with what a kernel call for each part gives."""
    origin = torch.empty(16)
    maker = Maker(SHAPE, repeat, origin.data_ptr())  # it holds memory that its tables name
    tables = maker.make(plan, [0] * plan.rows, [0] * plan.rows, [0])
    sizes = tables.sizes._replace(parts=8, rows=plan.rows + 1)
    packed = torch.from_numpy(tables.packed(sizes))
    ours = tabled.Pass(
        kernels(HEADS, repeat, WIDTH, origin), SHAPE.places, {n: packed[p] for n, p in sizes.places.items()}, sizes
    )
    calls = Calls(plan, SHAPE.device)
    for layer in range(LAYERS):
        q = torch.randn(plan.rows + 1, HEADS * repeat, WIDTH)
        k, v = (torch.randn(plan.rows + 1, HEADS, WIDTH) for _ in range(2))
        found = ours.attend(layer, q, k, v, 0.3)
        expected = calls.attend(layer, *(t[: plan.rows] for t in (q, k, v)), 0.3)
        np.testing.assert_allclose(found[: plan.rows], expected, rtol=1e-4, atol=1e-4)
        assert not found[plan.rows :].any()


@settings(deadline=None, max_examples=15)
@given(plan=plans(), repeat=st.sampled_from([1, 3, 4, 7, 20]))
def test_tables_say_what_calls_compute(plan, repeat):
    compare(plan, repeat, plain_kernels.Shape)


@pytest.mark.skipif(tabled.find_spec("triton") is None, reason="Triton comes with torch's builds for GPUs")
@settings(deadline=None, max_examples=8)
@given(plan=plans(), repeat=st.sampled_from([1, 3, 7]))
def test_kernels_compute_what_calls_do(plan, repeat):
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("TRITON_INTERPRET=1 interprets the kernels on a processor: nox -s kernels")
    from influence_transformers.engine.kernels import Shape

    compare(plan, repeat, Shape)


async def test_the_engine_answers_alike_from_tables(splitting, monkeypatch):
    """Replies and choices of requests that share prefixes, in one company, served from tables and by calls."""
    answers, served = [], []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(tabled, "DEVICES", devices)
        monkeypatch.setattr(tabled, "find_spec", lambda name: name)
        monkeypatch.setitem(sys.modules, "influence_transformers.engine.kernels", plain_kernels)
        options = TransformersOptions(dtype="float32", max_rows=48 + len(devices), native=False)
        backend = TransformersBackend(str(splitting), options)
        served.append(type(backend._engine.runner).__name__)
        system = ChatMessage(role="system", content="You are kind. " * 4)
        chats = [(system, ChatMessage(role="user", content=f"Question {i}?" * (1 + i % 3))) for i in range(6)]
        sampling = Sampling(temperature=0.8, max_tokens=7)
        asked = [backend.generate(GenerateRequest(role="agent", messages=c, sampling=sampling, seed=3)) for c in chats]
        asked += [
            backend.choose(ChoiceRequest(role="preference", messages=c, choices=("1", "10", "no"))) for c in chats
        ]
        replies = await asyncio.gather(*asked)
        await backend.aclose()
        answers.append(([r.text for r in replies[:6]], np.array([r.probabilities for r in replies[6:]])))
    assert served == ["Runner", "TableRunner"]
    assert answers[0][0] == answers[1][0]
    np.testing.assert_allclose(answers[0][1], answers[1][1], atol=1e-5)


@pytest.mark.parametrize("broken", ["few", "many", "masked", None])
@pytest.mark.parametrize("heads", [2, 8])
def test_a_kernel_that_is_wrong_is_not_taken(broken, heads, tmp_path, monkeypatch):
    class Broken(plain_kernels.Shape):
        def read(self, q, out, lse, items, *rest, few=False, masked=False):
            super().read(q, out, lse, items, *rest, few=few, masked=masked)
            if broken == ("few" if few else "masked" if masked else "many"):
                for row in items.view(-1, COLUMNS).tolist():
                    item = Item(*row)
                    out[item.result : item.result + item.rows] = 7.0

    monkeypatch.setattr(tabled, "DEVICES", ("cpu",))
    monkeypatch.setattr(tabled, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "influence_transformers.engine.kernels", SimpleNamespace(Shape=Broken))
    folder = make_model(tmp_path / "model", num_attention_heads=heads, head_dim=8)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    packed = try_packed(model, 2048, native=False)
    assert packed is not None
    assert type(packed.runner).__name__ == ("TableRunner" if broken is None else "Runner")


class Graph:
    """A recording that counts how often it is played."""

    def __init__(self):
        self.played = 0

    def replay(self):
        self.played += 1


class Recorder(recordings.Recordings):
    """Records nothing for real: there is no GPU."""

    def __init__(self):
        super().__init__(lambda _, sizes: torch.zeros(sizes.wanted, 5), torch.device("cpu"))
        self.graphs = {}

    def _record(self, sizes, packed):
        graph = self.graphs[sizes] = Graph()
        return recordings._Recording(graph, packed, self._room(sizes.wanted))


def sizes_of(rows):
    return recordings.recorded_sizes(Sizes(rows, 1, 1, 0, 0, rows, 1, rows, 0), 8192)


def test_what_comes_often_is_recorded_and_what_was_played_longest_ago_makes_room(monkeypatch):
    monkeypatch.setattr(recordings, "_MOST_RECORDED", 2)
    recorder = Recorder()
    small, other, third, large = (sizes_of(rows) for rows in (8, 16, 32, 2000))
    table = np.zeros(4, np.int64)
    for sizes, least in ((small, 2), (large, 3)):
        for count in range(1, 5):
            assert recorder.play(None, sizes, table).shape == (sizes.wanted, 5)
            assert (sizes in recorder.graphs) == (count >= least)
    assert recorder.graphs[small].played == 3
    recorder.play(None, small, table)  # so that the large one was played longest ago
    for sizes in (other, other):
        recorder.play(None, sizes, table)
    assert {key[1] for key in recorder._made} == {small, other}
    recorder.play("an adapter", small, table)  # another's passes are not its own
    assert recorder.graphs[small].played == 4
    recorder.stop("for the test")
    assert recorder.play(None, small, table) is None
    assert not recorder._made
    assert third not in recorder.graphs
