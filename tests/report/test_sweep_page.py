"""A sweep's page: self-contained, harmless whatever it is called, told in words, drawn for every kind of space."""

from xml.etree import ElementTree

import pytest

from influence_cli.report.sweep_charts import axes_of, importance_chart, parallel_chart, pareto_chart, slice_chart
from influence_cli.report.sweep_page import sweep_page

from .test_pages import HOSTILE, parsed

SPACE = [
    {"name": "lr", "setting": "algorithm.options.learning_rate", "space": "log(1e-06,0.0001)"},
    {"name": "samples", "setting": "samples", "space": [1, 4, 16]},
    {"name": "turns", "setting": "turns", "space": "int(1,4)"},
    {"name": "how", "setting": "selection.how", "space": ["reward", HOSTILE]},
]
OBJECTIVES = [
    {"name": "heldout_reward", "title": "held-out reward", "direction": "maximize"},
    {"name": "harm", "title": "harm (mean veto)", "direction": "minimize"},
]


def trial(number, state="done", **changes):
    parameters = {
        "lr": 10.0 ** -(4 + number % 3),
        "samples": (1, 4, 16)[number % 3],
        "turns": 1 + number % 4,
        "how": ("reward", HOSTILE)[number % 2],
    }
    values = [
        {"objective": "heldout_reward", "value": 4.0 + number / 3, "low": 3.5, "high": 8.5, "over": "scenarios"},
        {"objective": "harm", "value": number / 20, "low": None, "high": None, "over": "scenarios"},
    ]
    facts = {
        "number": number, "state": state, "reason": None, "parameters": parameters, "values": values if state == "done" else [],
        "steps": {}, "pareto": number > 8, "runs": [f"trials/{number:03d}"], "again": f"influence train {HOSTILE}", "seconds": 1.0,
        "tokens": 100, "cost": None,
    }  # fmt: skip
    return {**facts, **changes}


def document(*, objectives=OBJECTIVES, trials=None):
    shares = [{"parameter": each["name"], "share": 0.25} for each in SPACE]
    found = [trial(number) for number in range(12)] if trials is None else trials
    return {
        "schema": "influence.sweep.show/1", "sweep": f"sweep {HOSTILE}", "path": "runs/x", "state": "done", "created": "2026-01-01",
        "command": "train", "searcher": "tpe", "seeds": 1, "space": SPACE, "objectives": objectives,
        "counts": {"wanted": 12, "done": len(found), "pruned": 0, "failed": 0, "running": 0}, "trials": found,
        "best": found[-1]["number"] if found else None, "pareto": [9, 10, 11],
        "importance": {"method": "ped-anova", "trials": 12, "few": True, "by_objective": {o["name"]: shares if found else [] for o in objectives}},
        "tokens": 1_200, "cost": None,
    }  # fmt: skip


def test_the_page_is_sound_and_harmless():
    failed = trial(12, state="failed", reason=HOSTILE)
    page = sweep_page(
        document(
            trials=[*(trial(n) for n in range(12)), failed, trial(13, state="pruned", reason="5.1 after iteration 1")]
        )
    )
    reader = parsed(page)
    assert sorted(set(reader.ids)) == sorted(reader.ids)
    assert "script" not in reader.tags
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert not [
        value
        for name, value in reader.attributes
        if name in ("src", "href") and value and not value.startswith(("#", "data:"))
    ]
    assert {"parallel", "importance", "pareto", "slices", "trials", "method"} <= set(reader.ids)
    assert "which is few: take it for a hint" in page
    assert "5.1 after iteration 1" in page


def test_a_sweep_without_a_finished_trial_has_a_page():
    page = sweep_page(document(trials=[trial(0, state="running")]))
    assert 'id="trials"' in page
    assert 'id="parallel"' not in page


def test_every_figure_is_valid_and_says_in_words_what_it_shows():
    told = document()
    charts = [parallel_chart(told), pareto_chart(told), importance_chart(told, OBJECTIVES[0], 0)]
    charts += [slice_chart(told, place, index) for place in range(4) for index in range(2)]
    for chart in charts:
        root = ElementTree.fromstring(chart.svg)
        assert root.get("role") == "img"
        assert chart.alt
    assert "Trial 11: lr 1e-06" in charts[0].alt
    assert "lr 25%" in charts[2].alt


def test_one_objective_has_no_front_and_its_best_stands_out():
    told = document(objectives=OBJECTIVES[:1], trials=[trial(n, values=trial(n)["values"][:1]) for n in range(4)])
    assert pareto_chart(told) is None
    assert "Trial 3:" in parallel_chart(told).alt
    assert "Trial 2:" not in parallel_chart(told).alt


@pytest.mark.parametrize(
    ("place", "value", "at"),
    [
        (0, 1e-6, 0.0),
        (0, 1e-5, 0.5),
        (0, 1e-4, 1.0),
        (1, 1, 0.0),
        (1, 4, 0.5),
        (1, 16, 1.0),
        (2, 4, 1.0),
        (3, "reward", 0.0),
    ],
)
def test_values_lie_where_they_belong_on_their_axis(place, value, at):
    axis = axes_of(document())[place]
    assert axis.place(value) == pytest.approx(at)
    assert 2 <= len(axis.ticks()) <= 9


def test_objectives_that_are_all_alike_are_drawn():
    same = [
        trial(
            n,
            values=[
                {"objective": o["name"], "value": 5.0, "low": None, "high": None, "over": "nothing"} for o in OBJECTIVES
            ],
        )
        for n in range(3)
    ]
    assert ElementTree.fromstring(parallel_chart(document(trials=same)).svg) is not None
