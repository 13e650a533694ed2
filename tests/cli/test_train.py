"""``influence train``: the loop as a user has it, with the scripted model and the scripted learner."""

import io
import json
import os
import shutil

import pytest
from rich.console import Console

from influence_cli.backends.scripted import ScriptedBackend
from influence_cli.cli.train import FLAGS
from influence_cli.cli.training_tables import iterations_table
from influence_cli.schemas.configs import TrainConfig
from influence_cli.settings import setting_names
from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.adapters import adapter_digest
from influence_cli.training.scripted import ScriptedLearner

RATES_SHORT = """
choices:
  - {role: preference, reply: '(?s)^(?:\\S+\\s+){0,19}\\S+$', weights: {"10": 1}}
  - {role: preference, weights: {"2": 1}}
  - {role: veto, weights: {"0": 1}}
"""
"""A rater with a known optimum: replies of at most twenty words."""
BRIEF = ("--samples", "4", "--turns", "1", "--no-veto", "--set", "evaluation.samples=8")
ALONE = "Each initial state has one conversation: there is nothing to compare it with."
SMALL = (*BRIEF, "--iterations", "3")


@pytest.fixture
def train(influence, tiny_folder, script):
    """Train in the tiny environment by heart; it is over in a moment."""
    rater = script(RATES_SHORT, "rater.yaml")

    def run(*arguments: object, algo="scripted", more=SMALL):
        fixed = ("--env", tiny_folder, "-m", "scripted:demo", "--preference", rater, "--algo", algo, *more)
        return influence("train", *fixed, *arguments)

    return run


@pytest.fixture
def trained(train, place):
    answer = train("--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    return answer.document


def test_the_agent_learns_what_the_rater_likes_on_people_it_never_met(trained):
    rewards = [row["heldout"]["reward"]["mean"] for row in trained["iterations"]]
    assert len(rewards) == 4
    assert rewards[0] + 2 < rewards[3]
    assert rewards[0] < rewards[2]


def test_the_agent_is_one_row_of_calls_whatever_was_on_top_of_it_with_iterations_below(trained, influence):
    document = influence("runs", "show", "made", "--json").document
    (agent,) = [row for row in document["calls"] if row["role"] == "agent"]
    assert (agent["model"], agent["adapters"]) == ("scripted:demo", 3)
    by_iteration = document["agent_calls"]
    assert [row["iteration"] for row in by_iteration] == [0, 1, 2, 3]
    assert [row["model"].partition("@")[2].rpartition("/")[2] for row in by_iteration] == ["", "1", "2", "3"]
    for figure in ("calls", "prompt_tokens", "completion_tokens"):
        assert sum(row[figure] for row in by_iteration) == agent[figure]
    shown = influence("runs", "show", "made").stdout
    assert shown.count("\nagent (3) ") == 1
    below = shown.partition("agent in ")[2].splitlines()[2:]
    assert [line.split()[0] for line in below if line.strip()] == ["0", "1", "2", "3"]
    report = influence("report", "made", "--md").stdout
    assert "scripted:demo with 3 adapters" in report


def test_a_control_that_learns_at_random_does_not(train, trained):
    control = train("--random", "--out", "control", "--json").document
    last = [found["iterations"][-1]["heldout"]["reward"]["mean"] for found in (trained, control)]
    assert last[1] < last[0] - 2


def test_training_never_sees_held_out_people(trained, place):
    with RunReader(open_run(place / "made")) as run:
        learnt = {(row["split"], row["iteration"]) for _, row in run.numbered() if row["split"] == "train"}
        splits = {}
        for _, t in run.numbered():
            splits.setdefault(t["split"], set()).add((t["scenario"], t["initial_state"]))
    assert learnt == {("train", 0), ("train", 1), ("train", 2)}
    assert splits["train"] & splits["heldout"] == set()
    for iteration in range(3):
        for line in (place / f"made/training/{iteration}/rows.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert (row["scenario"], row["initial_state"]) in splits["train"]


def test_held_out_conversations_differ_by_the_agent_alone(trained, place):
    with RunReader(open_run(place / "made")) as run:
        asked = {}
        for _, t in run.numbered(split="heldout"):
            asked.setdefault(t["iteration"], set()).add((t["scenario"], t["initial_state"], t["population"], t["seed"]))
    assert set(asked) == {0, 1, 2, 3}
    assert all(each == asked[0] for each in asked.values())


def test_the_report_stands_in_runs_show_and_at_the_end(influence, train, place):
    answer = train("--out", "made")
    assert "held-out (95 %)" in answer.stdout
    shown = influence("runs", "show", "made")
    assert "held-out (95 %)" in shown.stdout
    figures = influence("runs", "show", "made", "--json").document
    assert [row["iteration"] for row in figures["iterations"]] == [0, 1, 2, 3]
    first = figures["iterations"][0]
    assert first["stages"]["select"]["rows"] == first["stages"]["train"]["rows"] > 0
    assert first["stages"]["train"]["digest"] == adapter_digest(place / "made/adapters/1")
    assert figures["iterations"][1]["stages"]["prove"]["served"] is True
    assert figures["iterations"][1]["stages"]["prove"]["difference"] > 0
    assert figures["iterations"][1]["change"]["mean"] != 0


def test_no_figure_of_the_report_is_cut_at_eighty_columns(trained):
    console = Console(width=80, record=True, file=io.StringIO())
    rows = trained["iterations"]
    rows[1]["change"] |= {"mean": -12.25, "low": -20.5, "high": 13.75}
    console.print(iterations_table(rows))
    shown = console.export_text()
    assert "…" not in shown
    assert all(figure in shown for figure in ("-12.25", "-20.50", "13.75", rows[0]["stages"]["train"]["digest"][:8]))


def test_a_run_that_is_done_does_nothing_more(influence, trained, place, monkeypatch):
    def asked(*_):
        raise AssertionError("a finished stage was repeated")

    monkeypatch.setattr(ScriptedBackend, "generate", asked)
    monkeypatch.setattr(ScriptedLearner, "train", asked)
    again = influence("train", "--resume", "made", "--json")
    assert again.document["iterations"] == trained["iterations"]


def test_more_iterations_go_on_from_the_last(influence, train, trained, place):
    more = influence("train", "--resume", "made", "--iterations", "4", "--json").document
    assert more["iterations"][:3] == trained["iterations"][:3]
    whole = train("--out", "whole", "--iterations", "4", "--json", more=BRIEF)
    assert adapter_digest(place / "made/adapters/4") == adapter_digest(place / "whole/adapters/4")
    assert whole.code == 0


@pytest.mark.parametrize("wants", ["best-and-worst", "pairs", "all"])
def test_every_kind_of_rows_can_be_learnt_from(train, wants, place):
    answer = train("--algo-option", f"wants={wants}", "--samples", "8", "--top", "1/4", "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    lines = [json.loads(line) for line in (place / "made/training/0/rows.jsonl").read_text().splitlines()]
    if wants == "pairs":
        assert set(lines[0]) == {"chosen", "rejected"}
    else:
        expected = {None} if wants == "all" else {True, False}
        assert {line["desirable"] for line in lines} == expected


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


@pytest.mark.parametrize("algo", ["kto", "openai-finetune"])
def test_a_model_that_cannot_be_trained_is_refused_before_anybody_talks_with_it(train, algo, place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    answer = train("--out", "made", algo=algo)
    assert answer.code == 2
    assert "scripted:demo" in answer.stderr
    assert not (place / "made").exists()


def test_conversations_that_nobody_could_veto_are_counted(influence, tiny_folder, script):
    mute = script('choices: [{role: veto, weights: {"1": 1}, mass: 0.1}]', "mute.yaml")
    asked = ("--env", tiny_folder, "-m", "scripted:demo", "--algo", "scripted", "--samples", "4", "--iterations", "1")
    answer = influence("train", *asked, "--veto", mute, "--out", "made")
    assert answer.code == 0, answer.stderr
    assert "conversations have no usable veto" in answer.stderr
    again = influence("train", *asked, "--no-veto", "--out", "more")
    assert "usable veto" not in again.stderr


@pytest.mark.parametrize(
    ("reward", "of_turns"),
    [
        (("mean",), True),
        (("final",), False),
        (("mean", "--set", "selection.length_penalty=0.01"), False),
        (("score", "--set", "selection.rubric=reply-length"), False),
    ],
)
def test_turns_have_a_reward_of_their_own_only_where_the_reward_is_their_mean(train, place, reward, of_turns):
    answer = train("--algo-option", "wants=all", "--iterations", "1", "--out", "made", "--reward", *reward)
    assert answer.code == 0, answer.stderr
    lines = [json.loads(line) for line in (place / "made/training/0/rows.jsonl").read_text().splitlines()]
    assert {line["turn_reward"] is not None for line in lines} == {of_turns}


def test_learning_from_all_selects_nothing_and_counts_what_has_a_veto(influence, tiny_folder, script):
    harmful = script('choices: [{role: veto, weights: {"1": 1}}]', "harmful.yaml")
    asked = ("--env", tiny_folder, "-m", "scripted:demo", "--algo", "scripted", "--algo-option", "wants=all")
    answer = influence(
        "train", *asked, "--veto", harmful, "--samples", "4", "--iterations", "1", "--out", "made", "--json"
    )
    selected = answer.document["iterations"][0]["stages"]["select"]
    assert selected["vetoed"] == selected["candidates"] > 0
    assert "learns from all conversations: nothing is selected, and no veto counts" in answer.stderr


def test_a_computed_score_can_be_the_reward(train, place):
    answer = train("--reward", "score", "--set", "selection.rubric=reply-length", "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    rewards = [row["heldout"]["reward"]["mean"] for row in answer.document["iterations"]]
    assert rewards[-1] > rewards[0] > 10  # longer and longer replies, in words


@pytest.mark.parametrize(
    ("rubric", "judged"),
    [("reply-length", False), ("preference-first-person", False), ("preference-third-person", False), ("harm", True)],
)
def test_a_judge_is_loaded_only_where_one_is_asked_for_the_reward(train, place, rubric, judged):
    answer = train(
        "--reward", "score", "--set", f"selection.rubric={rubric}", "--judge", "scripted:no-such-script.yaml",
        "--iterations", "1", "--out", "made",
    )  # fmt: skip
    assert answer.code == (2 if judged else 0), answer.stderr
    assert ("no-such-script.yaml" in answer.stderr) == judged
    if not judged:
        assert "judge" not in open_run(place / "made").manifest.models


def test_what_any_scorer_computes_can_be_the_reward(train, place):
    rubric = "selection.rubric=tool-truth/tells-failure"
    answer = train("--reward", "score", "--set", rubric, "--set", "environments=[booking]", "--out", "made")
    with RunReader(open_run(place / "made")) as run:
        values = {row[0] for row in run.rows("SELECT value FROM score WHERE rubric = 'tells-failure' AND usable = 1")}
    assert values
    if answer.code:
        assert "have the same reward" in answer.stderr


def test_a_scorer_that_gives_no_such_score_is_told(train):
    answer = train("--reward", "score", "--set", "selection.rubric=took-action/nothing", "-q")
    assert answer.code == 2
    assert "conversations has a usable score 'nothing' to learn from." in answer.stderr


def test_a_rubric_can_be_the_reward(train, script, place):
    judge = script("choices:\n  - {role: judge, reply: '', weights: {'1': 1, '10': 2}}\n", "judge.yaml")
    answer = train(
        "--reward", "score", "--set", "selection.rubric=manipulation", "--judge", judge, "--set",
        "selection.length_penalty=0.01", "--out", "made", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.stderr
    with RunReader(open_run(place / "made")) as run:
        scored = run.rows("SELECT count(*) FROM score WHERE rubric = 'manipulation' AND usable = 1")[0][0]
        talked = run.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
    assert scored == talked


@pytest.mark.parametrize(
    ("reward", "score", "asked"),
    [
        (["--reward", "whole"], "preference-third-person", "preference"),
        (["--reward", "score", "--set", "selection.rubric=preference-first-person"], "preference-first-person", "user"),
    ],
)
def test_a_rating_of_the_whole_conversation_can_be_the_reward(train, place, reward, score, asked):
    answer = train(*reward, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    made = open_run(place / "made")
    with RunReader(made) as run:
        scored = run.rows("SELECT e.iteration, e.split, avg(s.value), count(*), min(s.judge), max(s.judge) FROM score s"
                          " JOIN episode e ON e.id = s.episode_id WHERE s.rubric = ? AND s.usable = 1 GROUP BY 1, 2", (score,))  # fmt: skip
        talked = run.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
    assert sum(row[3] for row in scored) == talked
    assert {name for row in scored for name in row[4:]} == {made.manifest.models[asked]}
    heldout = {row[0]: row[2] for row in scored if row[1] == "heldout"}
    shown = {row["iteration"]: row["heldout"]["reward"]["mean"] for row in answer.document["iterations"]}
    assert shown == pytest.approx(heldout)


def test_a_length_penalty_makes_replies_shorter(train, place):
    plain = train("--out", "plain", "--json", "--set", "selection.reward=final").document
    penalised = train("--out", "short", "--json", "--set", "selection.length_penalty=0.5").document
    for found in (plain, penalised):
        assert found["state"] == "done"
    lengths = []
    for name in ("plain", "short"):
        with RunReader(open_run(place / name)) as run:
            texts = [
                message["text"]
                for _, t in run.numbered(iteration=3)
                for message in t["messages"]
                if message["speaker"] == "agent" and message["turn"]
            ]
        lengths.append(sum(map(len, texts)) / len(texts))
    assert lengths[1] < lengths[0]


def test_measuring_every_other_iteration_always_measures_first_and_last(train):
    rows = train("--set", "evaluation.every=2", "--out", "made", "--json").document["iterations"]
    assert [row["heldout"] is not None for row in rows] == [True, False, True, True]


def test_the_agent_may_begin_with_an_adapter(train, trained, place):
    start = f"scripted:demo@{place}/made/adapters/3"
    rows = train("--agent", start, "--random", "--out", "further", "--json").document["iterations"]
    assert rows[0]["agent"] == start
    assert rows[0]["heldout"]["reward"] == trained["iterations"][3]["heldout"]["reward"]


# -- stopping and going on --------------------------------------------------------------------------------------------


def test_a_budget_stops_the_run_and_more_of_it_goes_on(train, influence, trained, place):
    stopped = train("--max-tokens", "3000", "--out", "less", "--json")
    assert stopped.code == 3
    assert stopped.document["state"] == "stopped"
    assert stopped.document["reason"] == "the budget of 3,000 tokens is used up"
    same = influence("train", "--resume", "less")
    assert (same.code, "influence train --resume less --max-tokens NUMBER" in same.stdout) == (3, True)
    done = influence("train", "--resume", "less", "--max-tokens", "100000000", "--json")
    assert done.code == 0, done.stderr
    assert adapter_digest(place / "less/adapters/3") == adapter_digest(place / "made/adapters/3")


def test_ctrl_c_while_training_leaves_a_run_that_goes_on(train, influence, trained, place, monkeypatch):
    real = ScriptedLearner.train

    def interrupted(self, job, told):
        if job.iteration == 1:
            raise KeyboardInterrupt
        return real(self, job, told)

    monkeypatch.setattr(ScriptedLearner, "train", interrupted)
    stopped = train("--out", "broken")
    assert stopped.code == 3
    assert "To go on: influence train --resume broken\n" in stopped.stdout
    monkeypatch.setattr(ScriptedLearner, "train", real)
    assert influence("train", "--resume", "broken", "-q").code == 0
    assert adapter_digest(place / "broken/adapters/3") == adapter_digest(place / "made/adapters/3")


def test_failed_conversations_beyond_the_share_stop_the_run_resumably(train, influence, script, place):
    broken = script("failures: [{role: agent, contains: tea, kind: server_error}]\n", "broken.yaml")
    answer = train("--agent", broken, "--out", "made")
    assert answer.code == 1
    assert "conversations failed" in answer.stderr
    assert "They are tried again with --resume." in answer.stderr
    (place / "broken.yaml").write_text("{}\n")
    answer = influence("train", "--resume", "made", "--json")
    assert answer.code == 0, answer.stderr
    with RunReader(open_run(place / "made")) as run:
        assert run.rows("SELECT count(*) FROM trajectory WHERE status != 'complete'")[0][0] == 0


def test_the_share_that_may_fail_is_of_all_conversations_also_when_only_the_failed_ones_are_tried_again(
    train, influence, script, place
):
    rules = [f"{{role: agent, contains: Question {n} about tea, kind: server_error}}" for n in (1, 2)]
    broken = script(f"failures: [{', '.join(rules)}]\n", "broken.yaml")
    assert train("--agent", broken, "--out", "made", "--set", "max_failed_share=0.2").code == 1
    (place / "broken.yaml").write_text(f"failures: [{rules[0]}]\n")
    answer = influence("train", "--resume", "made", "-q")
    assert answer.code == 0, answer.stderr


# -- proof of the adapter ---------------------------------------------------------------------------------------------


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


# -- the user's mistakes ----------------------------------------------------------------------------------------------


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


def test_one_conversation_each_is_compared_within_its_scenario_where_no_level_is_named(train, influence, place):
    more = ("--samples", "1", "--turns", "1", "--no-veto", "--iterations", "1", "--top", "1/2")
    planned = train("--dry-run", "--json", more=more)
    assert planned.document["config"]["selection"]["level"] == "scenario"
    made = train("--out", "made", more=more)
    assert made.code == 0, made.stderr
    for answer in (planned, made):
        (told,) = [line for line in answer.stderr.splitlines() if "selection.level" in line]
        assert told.startswith("Where each initial state has one conversation, the best of a scenario are looked for")
    assert open_run(place / "made").manifest.config.selection.level == "scenario"
    again = influence("train", "--resume", "made", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout.startswith("Nothing is left to do.\n")


def test_several_conversations_each_keep_their_level(train):
    planned = train("--samples", "2", "--dry-run", "--json", more=("--turns", "1"))
    assert planned.document["config"]["selection"]["level"] == "initial-state"
    assert "selection.level" not in planned.stderr


def test_all_vetoed_and_all_alike_are_told(train, script, influence):
    harsh = script("choices:\n  - {role: veto, weights: {'1': 1}}\n", "harsh.yaml")
    more = ("--samples", "4", "--iterations", "2", "--turns", "1")
    answer = train("--veto", harsh, "--out", "made", more=more)
    assert answer.code == 2
    assert "are vetoed: none has a mean veto below 0.5." in answer.stderr
    alike = script("choices:\n  - {role: preference, weights: {'7': 1}}\n", "alike.yaml")
    answer = train("--preference", alike, "--out", "alike")
    assert "have the same reward (7): nothing is better than anything." in answer.stderr


def test_a_run_of_another_kind_is_not_taken_up(train, influence, made_run, trained):
    answer = influence("train", "--resume", "made")
    assert answer.code == 0
    answer = influence("train", "--resume", "runs/made")
    assert "was made by `influence simulate`." in answer.stderr
    answer = influence("simulate", "--resume", "made")
    assert "was made by `influence train`. influence train --resume made" in answer.stderr


def test_a_setting_that_shapes_conversations_must_stay(influence, trained):
    answer = influence("train", "--resume", "made", "--samples", "5")
    assert answer.code == 2
    assert "was made with another value of '--samples'" in answer.stderr


def test_a_run_is_taken_up_with_its_environment_by_another_path(influence, trained, tiny_folder, place):
    near = os.path.relpath(tiny_folder, place)
    assert influence("train", "--resume", "made", "--env", near, "-q").code == 0


def test_what_could_not_be_selected_from_is_gone_on_with_under_another_selection(train, script, influence, place):
    harsh = script("choices:\n  - {role: veto, weights: {'1': 1}}\n", "harsh.yaml")
    more = ("--samples", "4", "--iterations", "2", "--turns", "1")
    assert train("--veto", harsh, "--out", "made", more=more).code == 2
    done = influence("train", "--resume", "made", "--set", "selection.veto_level=null", "--json")
    assert done.code == 0, done.stderr
    with RunReader(open_run(place / "made")) as run:
        (event,) = run.rows("SELECT data FROM event WHERE kind = 'resume'")
        talked = run.rows("SELECT count(*) FROM episode WHERE iteration = 0")[0][0]
    assert json.loads(event["data"])["changed_from"]["selection"]["veto_level"] == 0.5
    assert (
        talked
        == done.document["iterations"][0]["train"]["conversations"]
        + done.document["iterations"][0]["heldout"]["conversations"]
    )


# -- settings and estimates -------------------------------------------------------------------------------------------


def test_every_flag_sets_a_setting_that_there_is():
    known = set(setting_names(TrainConfig))
    for key in FLAGS:
        assert key in known or key.split(".")[0] in known, key


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


def test_a_run_is_whole_and_says_how_it_was_made(trained, place):
    assert check_run(open_run(place / "made")) == []
    manifest = open_run(place / "made").manifest
    assert isinstance(manifest.config, TrainConfig)
    assert manifest.command == "train"
    assert manifest.config.algorithm.name == "scripted"
