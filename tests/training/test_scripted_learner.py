"""The scripted learner keeps every promise of an algorithm but that of a weights file."""

import math
from pathlib import Path

import pytest

from influence_cli.backends.scripted import ADAPTER_FILE, ScriptedAdapter
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.training import TrainingJob, TrainingRow
from influence_cli.training.adapters import adapter_digest
from influence_cli.training.scripted import ScriptedLearner, ScriptedLearnerOptions


def row(number, text, *, desirable=True, reward=5.0):
    return TrainingRow(
        episode_id=number,
        environment="e",
        scenario="s",
        initial_state=f"i{number}",
        sample=0,
        turn=1,
        messages=(ChatMessage(role="user", content="Hello."), ChatMessage(role="assistant", content=text)),
        learnt=(1,),
        reward=reward,
        desirable=desirable,
    )


@pytest.fixture
def learn(tmp_path):
    def run(rows, *, adapter=None, base="scripted:demo", name="job", **options):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f"{each.model_dump_json()}\n" for each in rows))
        (tmp_path / name).mkdir(exist_ok=True)
        job = TrainingJob(iteration=0, base=base, adapter=adapter, rows=str(path), folder=str(tmp_path / name), seed=0)
        return ScriptedLearner(ScriptedLearnerOptions(**options)).train(job, lambda share, words: None)

    return run


def read(outcome) -> ScriptedAdapter:
    return ScriptedAdapter.model_validate_json((Path(outcome.adapter) / ADAPTER_FILE).read_bytes())


def test_the_same_rows_give_the_same_adapter(learn):
    rows = [row(1, "Yes."), row(2, "No.")]
    first, second = learn(rows), learn(rows, name="again")
    assert first.digest == second.digest == adapter_digest(Path(first.adapter))
    assert first.moved > 0


def test_what_was_learnt_before_fades_and_what_is_undesirable_is_forgotten(learn):
    first = learn([row(1, "Yes."), row(2, "No.")])
    second = learn(
        [row(1, "Yes."), row(2, "No.", desirable=False)], adapter=first.adapter, name="next", wants="best-and-worst"
    )
    assert read(second).replies == (("Yes.", 1.5),)
    assert read(second).strength == 0.75


def test_rewards_are_weights_where_all_rows_are_learnt_from(learn):
    rows = [row(1, "Yes.", desirable=None, reward=9.0), row(2, "No.", desirable=None, reward=1.0)]
    adapter = read(learn(rows, wants="all"))
    assert adapter.replies == (("No.", 1.0), ("Yes.", 9.0))
    assert adapter.probability("Yes.") == pytest.approx(0.45, rel=1e-3)
    assert math.log(adapter.probability("Perhaps.")) < -10


def test_a_model_or_an_adapter_of_another_kind_is_refused(learn, tmp_path):
    with pytest.raises(InfluenceError, match="cannot train transformers:x"):
        learn([row(1, "Yes.")], base="transformers:x")
    with pytest.raises(InfluenceError, match="is no adapter of a scripted model"):
        learn([row(1, "Yes.")], adapter=str(tmp_path))
