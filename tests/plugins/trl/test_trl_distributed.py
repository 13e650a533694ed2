"""Several processes, for real: two on this machine's CPU, talking through gloo."""

from pathlib import Path

import pytest

from influence_trl.launching import carry_out
from influence_trl.options import ExpertIterationOptions, RlooOptions
from influence_trl.stage import Stage

from .conftest import FAST, make_row, rows_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def outcome(make_job, model, rows, name: str, algorithm="expert-iteration", kind=ExpertIterationOptions, **options):
    made = kind(**{**FAST, "batch": 8, "lora_dropout": 0.0, **options})
    stage = Stage(
        algorithm=algorithm,
        options=made.model_dump(mode="json"),
        job=make_job(rows, name),
        model=str(model),
        micro_batch=made.micro_batch,
        fingerprint=name,
    )
    return carry_out(stage, made, lambda *_: None)


def test_two_processes_give_the_loss_curve_of_one(make_job, model):
    """The rows do not divide evenly: the last batch is filled up with rows that have no loss."""
    rows = rows_for("expert-iteration", 47)
    one = outcome(make_job, model, rows, "one", epochs=2)
    two = outcome(make_job, model, rows, "two", epochs=2, launch="ddp", processes=2)
    assert len(one.losses) == len(two.losses) == one.steps == 6
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    assert two.moved == pytest.approx(one.moved, rel=1e-2)
    assert (two.rows, two.tokens) == (one.rows, one.tokens)
    log = (Path(two.adapter).parent / "training.log").read_text()
    assert "Process 0 of 2." in log
    assert "Process 1 of 2." in log


def test_two_processes_share_a_policy_gradient(make_job, model):
    rows = [make_row(n, learnt=(6,)) for n in range(12)]
    settings = {"algorithm": "rloo", "kind": RlooOptions, "learning_rate": 1e-3}
    one = outcome(make_job, model, rows, "one", **settings)
    two = outcome(make_job, model, rows, "two", launch="ddp", processes=2, **settings)
    assert two.losses == pytest.approx(one.losses, rel=1e-3, abs=1e-3)
