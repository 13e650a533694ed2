"""``influence train``: an adapter is spoken with only once it is proved to be what was trained, and to be used."""

import shutil

import pytest

from influence_cli.backends.scripted import ScriptedBackend
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.adapters import adapter_digest
from influence_cli.training.scripted import ScriptedLearner

from .conftest import BRIEF


def test_training_that_changes_nothing_is_an_error_and_the_run_can_go_on(train, influence, place, monkeypatch):
    real = ScriptedLearner.train

    def idle(self, job, told):
        outcome = real(self, job, told)
        if job.iteration == 1:
            shutil.rmtree(outcome.adapter)
            shutil.copytree(job.adapter, outcome.adapter)
            outcome = outcome.model_copy(update={"digest": adapter_digest(place / "made/adapters/1")})
        return outcome

    monkeypatch.setattr(ScriptedLearner, "train", idle)
    answer = train("--out", "made")
    assert answer.code == 2
    assert "Training changed nothing: the weights are still " in answer.stderr
    monkeypatch.setattr(ScriptedLearner, "train", real)
    assert influence("train", "--resume", "made", "-q").code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "0" * 64}, "is not what was trained"),
        ({"moved": 0.0}, "Training moved nothing"),
        ({"moved": None, "steps": 0}, "Training changed nothing: "),
    ],
)
def test_an_outcome_that_cannot_be_true_is_refused(train, monkeypatch, change, said):
    real = ScriptedLearner.train
    monkeypatch.setattr(ScriptedLearner, "train", lambda *args: real(*args).model_copy(update=change))
    answer = train("--out", "made")
    assert answer.code == 2
    assert said in answer.stderr
    assert len([line for line in answer.stderr.splitlines() if "error:" in line]) == 1


def test_imitation_that_makes_its_own_replies_less_likely_is_told(train, monkeypatch):
    real = ScriptedLearner.train
    monkeypatch.setattr(ScriptedLearner, "train", lambda *args: real(*args).model_copy(update={"moved": -0.25}))
    answer = train("--algo-option", "wants=best", "--iterations", "1", more=BRIEF)
    assert answer.code == 0
    assert "iteration 0 made its own replies less likely (log-probability -0.250 a token)" in " ".join(
        answer.stderr.split()
    )


def test_an_adapter_that_was_changed_is_not_spoken_with(train, influence, trained, place):
    with RunReader(open_run(place / "made")) as run:
        used = run.rows(
            "SELECT sum(prompt_tokens + completion_tokens) FROM call c JOIN episode e ON e.id = c.episode_id"
            " WHERE e.iteration = 0"
        )[0][0]
    assert train("--max-tokens", used + 100, "--out", "less").code == 3
    file = place / "less/adapters/1/scripted.json"
    file.write_text(file.read_text().replace("0.", "0.0", 1))
    answer = influence("train", "--resume", "less", "--max-tokens", "100000000")
    assert answer.code == 2
    assert "is not the adapter that was trained" in answer.stderr
    shutil.rmtree(file.parent)
    answer = influence("train", "--resume", "less", "--max-tokens", "100000000")
    assert "is gone, and the agent of this iteration with it" in answer.stderr


def test_a_backend_that_ignores_the_adapter_is_found_out(train, monkeypatch):
    monkeypatch.setattr(ScriptedBackend, "_adapter", lambda *_: None)
    answer = train("--out", "made")
    assert answer.code == 2
    assert "The backend does not use the adapter " in answer.stderr
