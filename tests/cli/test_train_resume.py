"""``influence train`` stopped, and gone on with: what is done stays done, and what shaped it stays as it was."""

import json
import os

from influence_cli.backends.scripted import ScriptedBackend
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.adapters import adapter_digest
from influence_cli.training.scripted import ScriptedLearner

from .conftest import BRIEF


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
