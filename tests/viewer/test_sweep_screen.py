"""A sweep in the viewer: as it was when somebody last looked, live, and a way into each run."""

from pathlib import Path

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.viewer.screens.run import RunScreen
from influence_cli.viewer.screens.sweep import SweepScreen
from influence_cli.viewer.sweep_lines import sweep_lines
from influence_cli.viewer.themes import NAMES
from influence_cli.viewer.widgets.virtual_table import VirtualTable

from . import screens
from .conftest import NASTY, looking, screen_text

SPACE = [
    {"name": "lr", "setting": "algorithm.options.learning_rate", "space": "log(1e-06,0.0001)"},
    {"name": "samples", "setting": "samples", "space": [1, 4, 16]},
]
OBJECTIVES = [
    {"name": "heldout_reward", "title": "held-out reward", "direction": "maximize"},
    {"name": "harm", "title": "harm (mean veto)", "direction": "minimize"},
]
WORTH = ((5.1, 0.20), (5.6, 0.31), (4.9, 0.05), (6.2, 0.44), (5.9, 0.29), (5.5, 0.35), (6.4, 0.61), (5.0, 0.11))


def trial(number, state="done", **changes):
    values = [
        {
            "objective": "heldout_reward",
            "value": WORTH[number][0],
            "low": WORTH[number][0] - 0.4,
            "high": WORTH[number][0] + 0.4,
            "over": "scenarios",
        },
        {"objective": "harm", "value": WORTH[number][1], "low": None, "high": None, "over": "scenarios"},
    ]
    return {
        "number": number, "state": state, "reason": None, "parameters": {"lr": 1e-6 * 1.7**number, "samples": (1, 4, 16)[number % 3]},
        "values": values if state == "done" else [], "steps": {}, "pareto": state == "done" and number in (2, 3, 4, 6, 7),
        "runs": [f"runs/sweep/trials/{number:03d}"], "again": "influence train", "seconds": 61.5, "tokens": 12_345, "cost": None, **changes,
    }  # fmt: skip


def document(**changes):
    trials = [trial(number) for number in range(8)]
    trials[1] = trial(1, state="failed", reason="The loss is no number.")
    trials[5] = trial(5, state="pruned", reason="heldout_reward 4.1 after iteration 1")
    shares = [{"parameter": "samples", "share": 0.71}, {"parameter": "lr", "share": 0.29}]
    facts = {
        "schema": "influence.sweep.show/1", "sweep": "bon", "path": "runs/sweep", "state": "done", "created": "2026-01-01", "command": "train",
        "searcher": "tpe", "seeds": 1, "space": SPACE, "objectives": OBJECTIVES,
        "counts": {"wanted": 8, "done": 6, "pruned": 1, "failed": 1, "running": 0}, "trials": trials, "best": 6, "pareto": [2, 3, 4, 6, 7],
        "importance": {"method": "ped-anova", "trials": 6, "few": True, "by_objective": {"heldout_reward": shares, "harm": []}},
        "tokens": 98_760, "cost": None,
    }  # fmt: skip
    return {**facts, **changes}


@pytest.mark.parametrize(
    ("theme", "size"), [("dark", (140, 45)), ("light", (140, 45)), ("dark", (80, 24)), ("contrast", (60, 20))]
)
async def test_the_screen_is_as_it_was(request, theme, size):
    async with looking(size, sweep=document, theme=NAMES[theme]) as (app, _press):
        name = f"sweep-{theme}-{size[0]}x{size[1]}"
        screens.compare(app, name, update=request.config.getoption("--update-screens"))


async def test_one_objective_names_the_best_trial():
    one = [{**each, "values": each["values"][:1]} for each in document()["trials"]]
    told = document(objectives=OBJECTIVES[:1], trials=one)
    async with looking(sweep=lambda: told) as (app, press):
        assert "best trial" in screen_text(app)
        await press("b")
        assert app.screen.query_one(VirtualTable).cursor == 6
        await press("s")
        assert [each["number"] for each in app.screen.rows] == [6, 3, 4, 0, 7, 2, 1, 5]


async def test_enter_opens_the_run_of_a_trial(copied_run):
    told = document()
    told["trials"][0]["runs"] = [str(copied_run / "first")]
    async with looking(sweep=lambda: told) as (app, press):
        await press("j", "enter")
        assert isinstance(app.screen, SweepScreen)
        await press("k", "enter")
        assert isinstance(app.screen, RunScreen)
        await press("escape")
        assert isinstance(app.screen, SweepScreen)


async def test_a_running_sweep_is_read_again():
    answers = [document(state="running", trials=[], best=None, pareto=[]), document()]

    async with looking(sweep=lambda: answers.pop(0) if len(answers) > 1 else answers[0]) as (app, press):
        assert "No trial has begun" in screen_text(app)
        await press("r")
        assert "done" in screen_text(app)
        assert len(app.screen.rows) == 8


async def test_a_sweep_that_cannot_be_read_says_why():
    def broken():
        raise InfluenceError("runs/sweep/sweep.db: it is damaged.")

    async with looking(sweep=broken) as (app, _press):
        assert isinstance(app.screen, SweepScreen)


@pytest.mark.parametrize("text", [value[:300] for value in NASTY.values()], ids=NASTY)
def test_hostile_texts_stay_in_their_lines(text):
    told = document(sweep=text, trials=[trial(2, parameters={"lr": text, "samples": text})])
    told["importance"]["by_objective"]["heldout_reward"] = [{"parameter": text, "share": 0.5}]
    for line in sweep_lines(told, 60):
        joined = "".join(piece for piece, _ in line)
        assert "\x1b" not in joined
        assert "\n" not in joined


async def test_view_opens_a_sweep_by_its_folder(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from influence_cli.cli.app import build_app
    from influence_cli.viewer import picture

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sweep.yaml").write_text(
        "sweep_id: a\ncreated: '2026'\nkeys: {samples: samples}\n"
        "config: {search: {samples: [1, 2]}, objectives: ['heldout_reward:max'], searcher: {name: grid}}\n"
    )
    (tmp_path / "mine" / "base.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    seen = {}
    monkeypatch.setattr(picture, "save_picture", lambda options, path, **more: seen.update(options.sweep()))
    result = CliRunner().invoke(build_app(), ["view", "mine", "--export-svg", "x.svg"])
    assert result.exit_code == 0, result.stderr
    assert seen["sweep"] == "mine"
    assert Path("mine/sweep.yaml").is_file()
