"""``influence train --dry-run``: what training will take, and that it takes no more."""

import pytest

from influence_cli.schemas.configs import TrainConfig
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

from .conftest import BRIEF


def test_a_dry_run_states_calls_tokens_memory_and_time_and_does_nothing(train, place):
    before = set(place.iterdir())
    document = train("--dry-run", "--json", "--agent", "transformers:smollm2").document
    assert document["schema"] == "influence.train.dry-run/1"
    assert TrainConfig.model_validate(document["config"]).iterations == 3
    assert document["conversations"] == 3 * 4 * 6 + 4 * 8 * 2
    assert document["calls"] > document["conversations"]
    assert document["parameters"] == pytest.approx(134.5e6, rel=0.01)
    assert document["memory_gib"]["total"] > document["memory_gib"]["weights"] == pytest.approx(0.25, rel=0.1)
    assert document["hours"] > 0
    text = train("--dry-run", "--agent", "transformers:smollm2").stdout
    assert "GiB of an accelerator" in text
    assert text.splitlines()[0].split()[:4] == ["an", "iteration's", "role", "model"]
    assert "selection" not in text
    assert text.rstrip().endswith("With --json: all settings. Nothing was done.")
    assert "The size of scripted:demo is not known here" in train("--dry-run").stdout
    assert set(place.iterdir()) == before


@pytest.mark.parametrize("wants", ["best", "best-and-worst", "pairs", "all"])
@pytest.mark.parametrize("top", ["1/16", "1/2"])
def test_no_more_rows_are_learnt_from_than_a_dry_run_says(train, wants, top):
    asked = ("--algo-option", f"wants={wants}", "--top", top, "--iterations", "1", "--json")
    said = train(*asked, "--dry-run").document
    done = train(*asked, "--out", "made").document
    taken = done["iterations"][0]["stages"]["train"]
    assert 0 < taken["rows"] <= said["rows"]
    assert taken["tokens"] <= said["train_tokens"]


def test_a_dry_run_of_fine_tuning_needs_no_key(influence, tiny_folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asked = ("--env", tiny_folder, "-m", "openai:some-model", "--algo", "openai-finetune", "--samples", "1", "--n", "2")
    answer = influence("train", *asked, "--level", "environment", "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["rows"] > 0


@pytest.mark.parametrize(
    ("reward", "role"),
    [(("score", "--set", "selection.rubric=harm"), "judge"), (("whole",), "judge"),
     (("score", "--set", "selection.rubric=preference-first-person"), "probe")],
)  # fmt: skip
def test_a_dry_run_counts_the_asking_for_rewards(train, place, reward, role):
    more = (*BRIEF, "--iterations", "1", "--reward", *reward)
    planned = train("--dry-run", "--json", more=more).document["calls"]
    plain = train("--dry-run", "--json", more=(*BRIEF, "--iterations", "1")).document["calls"]
    assert train("--out", "made", more=more).code == 0
    with RunReader(open_run(place / "made")) as run:
        asked = run.rows("SELECT count(*) FROM call WHERE role = ?", (role,))[0][0]
    assert planned - plain == asked > 0


def test_a_reward_that_a_scorer_computes_asks_nobody(train):
    plain = train("--dry-run", "--json").document["calls"]
    scored = train("--dry-run", "--json", "--reward", "score", "--set", "selection.rubric=reply-length")
    assert scored.document["calls"] == plain
