"""One conversation kept in memory is the one that a run would store."""

import pytest

from influence_cli.environments.sampling import episodes
from influence_cli.schemas.configs import Budget, RunManifest, SimulationConfig
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.rubric_files import pick_rubrics
from influence_cli.scoring.single import score_conversation
from influence_cli.simulation.single import converse
from influence_cli.store.conversation import read_conversation
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run

MANIFEST = RunManifest(run_id="", command="simulate", created="2026-01-01T00:00:00+00:00", config=SimulationConfig())


@pytest.fixture
def models(make_runner):
    return make_runner(n=1)._run.models


async def test_it_is_what_a_run_stores(make_runner, models, tiny, tmp_path):
    settings = {"n": 8, "turns": 3, "seed": 4}
    directory = create_run(tmp_path / "run", MANIFEST)
    with directory.writer() as writer:
        await make_runner(into=writer, speculate=True, **settings).simulate()
    with RunReader(directory) as run:
        stored = {(t["scenario"], t["initial_state"], t["sample"]): t for t in run.trajectories()}
        calls = {
            read_conversation(run, i).record.key: read_conversation(run, i)
            for i in run.column("SELECT id FROM episode")
        }
    config = SimulationConfig(speculate=False, **settings)
    for episode in episodes([tiny], config):
        kept = await converse(episode, models, config)
        key = episode.record.key
        wanted = stored[key.scenario, key.initial_state, key.sample]
        found = kept.trajectory()
        by_turn = sorted(found["judgements"], key=lambda each: each["turn"])
        assert by_turn == wanted["judgements"]
        assert {**found, "judgements": None} == {**wanted, "judgements": None}
        assert kept.record == calls[key].record
        assert {c.role for c in kept.calls} == {c.role for c in calls[key].calls if c.error != "cancelled"}


async def test_a_budget_that_is_used_up_leaves_no_end(models, tiny):
    config = SimulationConfig(budget=Budget(tokens=1))
    kept = await converse(next(iter(episodes([tiny], config))), models, config)
    assert kept.end is None
    assert kept.trajectory()["status"] == "running"
    assert kept.calls


async def test_it_can_be_scored_as_it_is(models, tiny):
    config = SimulationConfig(turns=2)
    kept = await converse(next(iter(episodes([tiny], config))), models, config)
    plan = Plan(rubrics=pick_rubrics(["sycophancy"]), judges=[models["veto"]])
    found = await score_conversation(kept.trajectory(), plan, Asking())
    assert {score.rubric for score in found.scores} == {"sycophancy"}
    assert len(found.calls) == len(found.scores) > 0
    assert all(score.usable for score in found.scores)
