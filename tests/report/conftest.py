"""Runs with every kind of thing that a report speaks of, made through the store's own writer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from influence_cli.report.measures import Catalogue
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.environment import Metric
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.scoring.rubric_files import shipped_rubrics
from influence_cli.store.run_directory import RunDirectory, create_run

CUES = ("stated", "none")
METRICS = {
    "tiny": {
        "pleases": Metric(id="pleases", question="?", choices=("1", "2", "3", "4", "5"), harmful_direction="up"),
        "left": Metric(id="left", visits="left", harmful_direction="up"),
    }
}


def score(rubric: str, value: float | None, **changes) -> ScoreRecord:
    facts = {"rubric": rubric, "rubric_hash": f"h/{rubric}", "judge": "scripted:judge", "method": "distribution"}
    return ScoreRecord(**{**facts, "value": value, **changes})


def one_to_five(value: float) -> dict[str, float]:
    return {"1": 1 - (value - 1) / 4, "5": (value - 1) / 4, "2": 0.0, "3": 0.0, "4": 0.0}


def add(writer, state: int, population: str, cue: str, rating: float, *, iteration=0, scenario="tea", split="train",
        text="Of course.", harm=3.0, failed=False, environment="tiny", sample=0, before=2.0):  # fmt: skip
    """Store one conversation of one turn."""
    key = EpisodeKey(
        iteration=iteration, environment=environment, scenario=scenario, initial_state=f"{cue}-{population}-{state}",
        sample=sample,
    )  # fmt: skip
    record = EpisodeRecord(key=key, population=population, cue=cue, split=split, seed=state)
    messages = [
        MessageRecord(turn=0, speaker="user", text="Shall I?", state="talking", source="scenario"),
        MessageRecord(turn=1, speaker="agent", text=text, state="talking"),
    ]
    rated = round(rating)
    choices = tuple(str(n) for n in range(1, 11))
    judgements = [
        JudgementRecord(turn=1, role="preference", state="talking", choices=choices, mass=0.9, method="scripted",
                        probabilities=tuple(float(str(rated) == c) for c in choices), expected=rating),
        JudgementRecord(turn=1, role="veto", state="talking", choices=("0", "1"), probabilities=(0.75, 0.25), mass=0.1,
                        method="scripted", expected=0.25, usable=False),
    ]  # fmt: skip
    calls = [CallRecord(turn=1, role="agent", model="scripted:demo", prompt_tokens=50, completion_tokens=5, cost=0.001)]
    scores = [
        score("deception", harm),
        score("harm", None, usable=False, mass=0.01),
        score("manipulation", None, usable=False, failure="timeout"),
        score("pleases", 1 + harm / 3, distribution=one_to_five(1 + harm / 3)),
        score("reply-length", 2.0, judge="reply-length", method="computed", turn=1),
        score("visited:talking", 1.0, judge="visited", method="computed"),
        score("probe:plan:before", before), score("probe:plan:after", before + 1.0), score("probe:plan:shift", 1.0),
        score("probe:plan:variation", 0.4),
    ]  # fmt: skip
    if rating > 7:
        scores.append(score("visited:left", 1.0, judge="visited", method="computed"))
    end = TrajectoryEnd(
        status="failed" if failed else "complete", reason="failure" if failed else "turn_limit", state="talking",
        turns=1, mean_rating=None if failed else rating, final_rating=rating, mean_veto=0.25,
        failure="timeout" if failed else None,
    )  # fmt: skip
    writer.add_conversation(record, messages, judgements, calls, scores, end)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Make an empty run called ``name``."""

    def make(name: str, environment: str = "tiny") -> RunDirectory:
        config = SimulationConfig(environments=(environment,))
        created = "2026-01-01T00:00:00+00:00"
        manifest = RunManifest(
            run_id="", command="simulate", created=created, config=config, environments={environment: "d"}
        )
        return create_run(tmp_path / name, manifest)

    return make


@pytest.fixture
def trained(make_run) -> RunDirectory:
    """A run of two iterations in six scenarios: gameable users get more, and more so later; three conversations fail."""
    directory = make_run("trained")
    rng = np.random.default_rng(3)
    with directory.writer() as writer:
        for iteration in (0, 1):
            for scenario in range(6):
                for state in range(8):
                    cue = CUES[state % 2]
                    split = "heldout" if state >= 6 else "train"
                    for population, extra in (("gameable", 2.0 * iteration), ("resilient", 0.0)):
                        rating = float(np.clip(5.0 + extra + iteration + rng.normal(0, 0.7), 1, 10))
                        add(writer, state, population, cue, rating, iteration=iteration, scenario=f"s{scenario}",
                            split=split, harm=2.0 + extra)  # fmt: skip
        for state in range(3):
            add(writer, 100 + state, "gameable", "none", 1.0, failed=True, scenario="s0")
        writer.set_state("done")
    return directory


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(shipped_rubrics(), METRICS)
