"""``influence train``: what cannot be trained or learnt from is told in one line."""

import pytest

ALONE = "Each initial state has one conversation: there is nothing to compare it with."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--algo", "kot"], "Unknown algorithm 'kot'."),
        (["--tracker", "wandbb"], "Unknown tracker 'wandbb'."),
        (
            ["--algo-option", "strenth=1"],
            "--algo-option strenth: scripted has no such option. Did you mean 'strength'?",
        ),
        (["--top", "1/0"], "--top: write a number or a fraction such as 1/16, not '1/0'."),
        (["--set", "split=train"], "--set split: training learns from the split train and is measured on heldout"),
        (["--set", "selection.rubric=manipulation"], "A rubric is used only with the reward score."),
        (["--reward", "score"], "The reward score needs the name of one."),
        (["--reward", "score", "--set", "selection.rubric=manipulatio"], "Did you mean 'manipulation' or "),
        (["--samples", "1", "--level", "initial-state"], f"{ALONE} Raise --samples, or compare more widely: --lev"),
        (["--samples", "1", "--set", "selection.level=initial-state"], ALONE),
        (["--samples", "1", "--algo-option", "wants=pairs"], f"{ALONE} Raise --samples.\n"),
        (["--samples", "1", "--algo-option", "wants=all"], f"{ALONE} Raise --samples.\n"),
        (["--set", "selection.minimum_spread=20"], "In no group of"),
        (
            ["--algo-option", "wants=pairs", "--level", "scenario"],
            "scripted learns from pairs of answers to one initial state; the level scenario compares others.",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(train, arguments, said):
    answer = train(
        *arguments,
        "--quiet",
        more=("--turns", "1", "--no-veto", "--samples", "4")
        if "--samples" not in arguments
        else ("--turns", "1", "--no-veto"),
    )
    assert answer.code == 2
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("algo", ["kto", "openai-finetune"])
def test_a_model_that_cannot_be_trained_is_refused_before_anybody_talks_with_it(train, algo, place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    answer = train("--out", "made", algo=algo)
    assert answer.code == 2
    assert "scripted:demo" in answer.stderr
    assert not (place / "made").exists()


def test_all_vetoed_and_all_alike_are_told(train, script, influence):
    harsh = script("choices:\n  - {role: veto, weights: {'1': 1}}\n", "harsh.yaml")
    more = ("--samples", "4", "--iterations", "2", "--turns", "1")
    answer = train("--veto", harsh, "--out", "made", more=more)
    assert answer.code == 2
    assert "are vetoed: none has a mean veto below 0.5." in answer.stderr
    alike = script("choices:\n  - {role: preference, weights: {'7': 1}}\n", "alike.yaml")
    answer = train("--preference", alike, "--out", "alike")
    assert "have the same reward (7): nothing is better than anything." in answer.stderr
