"""What a training stage does with its rows, in this process."""

import json
import shutil
from pathlib import Path

import pytest

from influence_cli.errors import InfluenceError
from influence_trl.failures import NotANumberError, StoppedError
from influence_trl.stage import StageFolder, digest_of

from .conftest import make_row, make_rows, rows_for, train_here

ALGORITHMS = ("expert-iteration", "kto", "dpo", "rloo")


def tensors(folder) -> dict:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_job_gives_the_same_weights(make_job, algorithm):
    outcomes = [train_here(algorithm, make_job(rows_for(algorithm, 8), name)) for name in ("a", "b")]
    assert outcomes[0].digest == outcomes[1].digest == digest_of(Path(outcomes[1].adapter))
    assert outcomes[0].losses == outcomes[1].losses
    assert outcomes[0].moved != 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stage_stopped_and_taken_up_ends_as_if_it_had_not_been(make_job, algorithm):
    rows = rows_for(algorithm, 16)
    whole = train_here(algorithm, make_job(rows, "whole"), epochs=2)
    job = make_job(rows, "broken")
    steps = []

    def stop_after_two() -> bool:
        steps.append(1)
        return len(steps) == 2

    with pytest.raises(StoppedError):
        train_here(algorithm, job, stopping=stop_after_two, epochs=2)
    assert StageFolder(job.folder).whole_checkpoint().name == "checkpoint-2"
    heard = []
    again = train_here(algorithm, job, epochs=2, told=lambda share, words: heard.append(words))
    assert not [words for words in heard if words.startswith("step 1 of")]
    assert again.digest == whole.digest
    assert again.losses == whole.losses
    assert again.moved == whole.moved


def test_no_checkpoint_is_written_where_the_adapter_follows_at_once(make_job):
    job = make_job(rows_for("expert-iteration", 8), "whole")
    assert train_here("expert-iteration", job, checkpoint_steps=1000).steps > 0
    assert not list(StageFolder(job.folder).checkpoints.glob("*"))


def test_a_checkpoint_without_its_mark_is_not_trusted(make_job):
    rows = rows_for("expert-iteration", 16)
    whole = train_here("expert-iteration", make_job(rows, "whole"))
    job = make_job(rows, "broken")
    with pytest.raises(StoppedError):
        train_here("expert-iteration", job, stopping=lambda: True)
    checkpoint = StageFolder(job.folder).checkpoints / "checkpoint-1"
    (checkpoint / "whole.json").unlink()
    (checkpoint / "adapter_model.safetensors").write_bytes(b"torn")
    assert train_here("expert-iteration", job).digest == whole.digest


def test_checkpoints_of_other_rows_are_not_taken_up(make_job):
    rows = rows_for("expert-iteration", 16)
    job = make_job(rows, "stage")
    with pytest.raises(StoppedError):
        train_here("expert-iteration", job, stopping=lambda: True)
    other = make_job(rows[:-1], "stage")
    fresh = train_here("expert-iteration", make_job(rows[:-1], "fresh"))
    assert train_here("expert-iteration", other).digest == fresh.digest


def test_imitation_makes_the_replies_likelier_and_nothing_else_is_counted(make_job):
    outcome = train_here("expert-iteration", make_job(rows_for("expert-iteration", 8)))
    assert outcome.moved > 0.0
    assert outcome.rows == 4
    assert outcome.steps == 1
    # Of each row, two replies in bytes (with a few merges), and their ends.
    assert 4 * 40 < outcome.tokens < 4 * 90


def test_the_loss_is_the_mean_over_learnt_tokens(make_job, model):
    """Computed here from the base's logits, without TRL; LoRA changes nothing before the first step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from influence_cli.backends.prompts import Prompts
    from influence_trl.tokens import encode_row

    rows = rows_for("expert-iteration", 8)
    outcome = train_here("expert-iteration", make_job(rows), lora_dropout=0.0)
    base = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], "tiny")
    losses = []
    for row in rows:
        (sequence,) = encode_row(row, prompts)
        with torch.no_grad():
            logits = base(torch.tensor([sequence.ids])).logits[0].log_softmax(-1)
        losses += [-logits[i - 1, t].item() for i, t in enumerate(sequence.ids) if sequence.learnt[i]]
    assert outcome.losses[0] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_next_iteration_goes_on_from_the_adapter_and_learns_more_slowly(make_job):
    rows = rows_for("expert-iteration", 8)
    first = train_here("expert-iteration", make_job(rows, "first"), lora_dropout=0.0)
    second = train_here(
        "expert-iteration", make_job(rows, "second", adapter=first.adapter, iteration=1), lora_dropout=0.0
    )
    assert second.losses[0] < first.losses[0]
    assert second.digest != first.digest
    settings = json.loads((StageFolder(make_job(rows, "second").folder).stage).read_text())
    assert settings["job"]["iteration"] == 1


def test_learning_rate_decays_by_iteration(make_job):
    from influence_trl.options import TrainingOptions
    from influence_trl.stage import Stage
    from influence_trl.training import _arguments

    rates = []
    for iteration in (0, 2):
        job = make_job(make_rows(4), iteration=iteration)
        stage = Stage(algorithm="expert-iteration", options={}, job=job, model="m", micro_batch=4, fingerprint="f")
        rates.append(_arguments(stage, TrainingOptions(device="cpu"), StageFolder(job.folder))["learning_rate"])
    assert rates == [2e-5, pytest.approx(2e-5 * 0.81)]


@pytest.mark.parametrize("algorithm", ["kto", "dpo"])
def test_the_reference_is_the_adapter_of_the_iteration_before(make_job, algorithm):
    """At the first step the model is its reference, so the losses are those of no preference: 1/2 and log 2."""
    rows = rows_for(algorithm, 8)
    first = train_here(algorithm, make_job(rows, "first"))
    second = (
        train_here(algorithm, make_job(rows, "second", adapter=first.adapter, iteration=1), target_ratio=1.0)
        if (algorithm == "kto")
        else train_here(algorithm, make_job(rows, "second", adapter=first.adapter, iteration=1))
    )
    expected = {"kto": 0.5, "dpo": 0.693147}[algorithm]
    assert second.losses[0] == pytest.approx(expected, rel=1e-3)


def test_a_long_beginning_is_cut_and_counted(make_job):
    outcome = train_here("expert-iteration", make_job(rows_for("expert-iteration", 8)), max_length=96)
    assert outcome.truncated == 4
    assert outcome.dropped == 0


def test_rows_that_the_template_refuses_are_dropped_and_counted(make_job, tmp_path, model):
    short = tmp_path / "short"
    shutil.copytree(model, short)
    template = (short / "chat_template.jinja").read_text()
    (short / "chat_template.jinja").write_text(
        "{% if messages | length > 4 %}{{ raise_exception('That is too long a talk.') }}{% endif %}" + template
    )
    good = [make_row(n, messages=make_row(n).messages[3:], learnt=(1, 3)) for n in range(4)]
    job = make_job([*good, make_row(4)], base=f"transformers:{short}")
    outcome = train_here("expert-iteration", job)
    assert (outcome.rows, outcome.dropped) == (4, 1)
    with pytest.raises(InfluenceError, match="nothing to learn: 1 of 1 rows"):
        train_here("expert-iteration", make_job([make_row(4)], base=f"transformers:{short}"))


def test_a_loss_that_is_no_number_ends_training(make_job, tmp_path, model):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(NotANumberError, match="step 1"):
        train_here("expert-iteration", make_job(rows_for("expert-iteration", 8), base=f"transformers:{broken}"))


def test_training_that_changes_nothing_is_an_error(make_job):
    with pytest.raises(InfluenceError, match="changed nothing"):
        train_here("expert-iteration", make_job(rows_for("expert-iteration", 8)), learning_rate=1e-30)


def test_kto_by_turn_with_weights_by_the_target_ratio(make_job):
    from influence_trl.options import KtoOptions
    from influence_trl.tokens import Sequence
    from influence_trl.trainers import kto_rows, kto_weights

    def sequence(number: int, good: bool) -> Sequence:
        return Sequence((number, 100 + number), (False, True), good)

    mixed = [sequence(n, n < 3) for n in range(8)]
    assert kto_weights(mixed, KtoOptions()) == (1.0, pytest.approx(3 / (5 * 1.05)))
    assert kto_weights(mixed, KtoOptions(undesirable_weight=0.7)) == (1.0, 0.7)
    rows = kto_rows(mixed[:5], 2)
    assert [row["KL_completion_ids"] for row in rows] == [[101], [100], [103], [102], [103]]
    assert [row["prompt_ids"] for row in rows] == [[n] for n in range(5)]
    outcome = train_here("kto", make_job(make_rows(8)))
    assert outcome.rows == 8
    assert outcome.steps == 4  # two replies of each row, four in a batch


def test_kto_refuses_a_batch_of_one(make_job):
    with pytest.raises(InfluenceError, match="needs two rows at once"):
        train_here("kto", make_job(make_rows(8)), batch=1)


def test_the_policy_gradient_makes_the_better_reply_likelier(make_job):
    """What is measured are the replies with an advantage."""
    said = {True: "Yes!", False: "I would rather not."}
    rows = [
        make_row(
            n,
            messages=(*make_row(n).messages[:-1], {"role": "assistant", "content": said[n % 4 == 1]}),
            learnt=(6,),
            turn_reward=10.0 if n % 4 == 1 else 1.0,
            desirable=None,
        )
        for n in range(8)
    ]
    assert train_here("rloo", make_job(rows), learning_rate=1e-3).moved > 0.0


def test_a_policy_gradient_needs_ratings_that_differ(make_job):
    rows = [make_row(n, turn_reward=5.0, reward=5.0) for n in range(8)]
    with pytest.raises(InfluenceError, match="rated alike"):
        train_here("rloo", make_job(rows))


def test_advantages_leave_the_own_conversation_out():
    from influence_trl.rows import with_advantages
    from influence_trl.tokens import Sequence

    def reply(group: str, episode: int, reward: float) -> Sequence:
        return Sequence((1,), (True,), None, reward, (group,), episode)

    made = with_advantages(
        [reply("a", 1, 8.0), reply("a", 1, 6.0), reply("a", 2, 4.0), reply("a", 3, 2.0), reply("b", 4, 9.0)]
    )
    assert [s.reward for s in made] == [8.0 - 3.0, 6.0 - 3.0, 4.0 - 16 / 3, 2.0 - 6.0]
    assert [s.desirable for s in made] == [True, True, False, False]


def test_an_advantage_is_over_conversations_with_the_same_kind_of_user():
    from influence_cli.backends.prompts import Prompts
    from influence_trl.rows import encode_rows

    from .conftest import make_tokenizer

    tokenizer = make_tokenizer("smollm2")
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], "tiny")
    kinds = ("gameable", "gameable", "resilient", "resilient")
    ratings = (9.0, 7.0, 3.0, 1.0)
    rows = [make_row(n, learnt=(6,), population=kinds[n], turn_reward=ratings[n]) for n in range(4)]
    learnt = encode_rows(rows, prompts, 4096, by_turn=True, keep_reward=True)
    assert [s.reward for s in learnt.sequences] == [2.0, -2.0, 2.0, -2.0]


def test_the_policy_loss_is_the_clipped_gain_over_learnt_tokens(make_job, tmp_path):
    """With old probabilities as they are now, the first loss is minus the mean advantage of a token."""
    from influence_cli.backends.prompts import Prompts
    from influence_trl.tokens import encode_row

    from .conftest import make_tokenizer

    rows = [make_row(n, learnt=(6,)) for n in range(4)]
    outcome = train_here("rloo", make_job(rows), batch=4)
    tokenizer = make_tokenizer("smollm2")
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], "tiny")
    sizes = [sum(encode_row(row, prompts)[0].learnt) for row in rows]
    advantages = [r - (6.0 - r) / 3 for r in (0.0, 1.0, 2.0, 3.0)]
    expected = -sum(a * n for a, n in zip(advantages, sizes, strict=True)) / sum(sizes)
    assert outcome.losses[0] == pytest.approx(expected, rel=1e-4)


def test_the_finished_stage_is_not_done_again(make_job, model):
    from influence_cli.plugins.registry import make_registry

    from .conftest import FAST

    job = make_job(rows_for("expert-iteration", 8))
    outcome = train_here("expert-iteration", job)
    component = make_registry().component("algorithm", "expert-iteration")
    heard = []
    algorithm = component.load()(component.options(**FAST))
    assert algorithm.train(job, lambda share, words: heard.append((share, words))) == outcome
    assert heard == [(1.0, "done before")]
