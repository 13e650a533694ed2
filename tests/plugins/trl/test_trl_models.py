"""Which layers are trained, which adapters are taken, and what any causal chat model needs."""

import json
import shutil
from pathlib import Path

import pytest

from influence_cli.errors import InfluenceError
from influence_trl.models import check_adapter, compute_dtype, load_model, load_prompts, target_modules
from influence_trl.options import TrainingOptions
from influence_trl.stage import Stage

from .conftest import FAMILIES, make_model, make_rows, rows_for, train_here

torch = pytest.importorskip("torch")
OPTIONS = TrainingOptions(device="cpu", threads=1)


def stage_of(make_job, folder: Path, **job) -> Stage:
    made = make_job(make_rows(4), base=f"transformers:{folder}", **job)
    return Stage(algorithm="expert-iteration", options={}, job=made, model=str(folder), micro_batch=2, fingerprint="f")


def base_of(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model):
    from influence_cli.schemas.training import TrainingJob

    folder = tmp_path_factory.mktemp("trained")
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(row.model_dump_json() for row in rows_for("expert-iteration", 8)))
    job = TrainingJob(iteration=0, base=f"transformers:{model}", rows=str(rows), folder=str(folder), seed=1)
    return Path(train_here("expert-iteration", job).adapter)


def test_the_papers_layers_are_trained_where_a_model_has_them(model):
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert target_modules(base_of(model), (), "tiny") == expected


def test_other_architectures_get_the_linear_layers_of_their_blocks():
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=16))
    assert target_modules(gpt2, (), "gpt2") == {"c_attn", "c_proj", "c_fc"}
    neox = GPTNeoXForCausalLM(
        GPTNeoXConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=32)
    )
    assert target_modules(neox, (), "neox") == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}


def test_named_layers_must_exist(model):
    assert target_modules(base_of(model), ("q_proj",), "tiny") == {"q_proj"}
    with pytest.raises(InfluenceError, match=r"tiny has no linear layer called nose .*It has: down_proj"):
        target_modules(base_of(model), ("nose",), "tiny")


def test_the_adapter_has_the_papers_shape_and_names_its_base(trained, model):
    config = json.loads((trained / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["use_rslora"]) == (16, 32, 0.1, True)
    assert config["base_model_name_or_path"] == f"transformers:{model}"
    assert sorted(path.name for path in trained.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_backend_that_samples_takes_the_adapter(trained, model):
    from influence_transformers.adapters import Adapters

    base = base_of(model)
    ids = torch.tensor([[1, 2, 3]])
    before = base(ids).logits
    adapters = Adapters(base)
    adapters.switch(adapters.load(str(trained)))
    assert not torch.equal(base(ids).logits, before)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": 64}, "was trained on transformers:.*, not on transformers:other"),
        ({"num_hidden_layers": 1}, "was trained on"),
    ],
)
def test_an_adapter_for_another_base_is_refused_in_one_line(tmp_path, trained, changes, told):
    other = make_model(tmp_path / "other", **changes)
    copied = tmp_path / "adapter"
    shutil.copytree(trained, copied)
    for name in ("", "transformers:other"):  # by the weights' shapes, and by the name
        config = json.loads((copied / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = name or "transformers:other"
        (copied / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(InfluenceError, match="was trained on") as caught:
            check_adapter(copied, base_of(other), "transformers:other")
        assert "\n" not in str(caught.value)
    with pytest.raises(InfluenceError, match=told):
        check_adapter(trained, base_of(other), "transformers:other")


def test_an_adapter_of_the_same_shape_but_another_name_is_refused(trained, model):
    with pytest.raises(InfluenceError, match="not on transformers:stranger"):
        check_adapter(trained, base_of(model), "transformers:stranger")


def test_what_is_no_lora_is_refused(tmp_path, trained, model):
    with pytest.raises(InfluenceError, match="is no adapter"):
        check_adapter(tmp_path, base_of(model), "m")
    copied = tmp_path / "ia3"
    shutil.copytree(trained, copied)
    (copied / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(InfluenceError, match="is IA3, not LoRA"):
        check_adapter(copied, base_of(model), "m")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_any_chat_model_can_be_trained(tmp_path, make_job, family, tied):
    folder = make_model(tmp_path / family, family, tie_word_embeddings=tied)
    rows = rows_for("expert-iteration", 8)
    if family == "mistral":  # its tokenizer knows these letters only
        rows = [row.model_copy(update={"messages": row.messages}) for row in rows]
    outcome = train_here("expert-iteration", make_job(rows, base=f"transformers:{folder}"))
    assert outcome.moved > 0.0
    assert outcome.dropped == 0


def test_the_pad_token_is_one_that_is_there(tmp_path, make_job):
    for family, expected in (("gemma", "<pad>"), ("llama-3", "<|eot_id|>"), ("mistral", "</s>")):
        folder = make_model(tmp_path / family, family)
        prompts = load_prompts(stage_of(make_job, folder), OPTIONS)
        assert prompts.tokenizer.pad_token == expected
        assert prompts.tokenizer.pad_token_id < len(prompts.tokenizer)


def test_new_weights_depend_on_the_seed_alone(make_job, model):
    def first(seed: int) -> torch.Tensor:
        made = load_model(stage_of(make_job, model, seed=seed), OPTIONS)
        return next(p.detach() for n, p in made.named_parameters() if "lora_A" in n)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_only_lora_weights_are_trained(make_job, model):
    made = load_model(stage_of(make_job, model), OPTIONS)
    assert all("lora_" in name for name, p in made.named_parameters() if p.requires_grad)


def test_a_folder_without_a_model_is_told(tmp_path, make_job):
    stage = stage_of(make_job, tmp_path)
    with pytest.raises(InfluenceError, match="cannot be loaded") as caught:
        load_model(stage, OPTIONS)
    assert "\n" not in str(caught.value)
    with pytest.raises(InfluenceError, match="cannot be loaded"):
        load_prompts(stage, OPTIONS)


def test_a_model_without_template_cannot_be_trained(tmp_path, make_job, model):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(InfluenceError, match="has no chat template"):
        load_prompts(stage_of(make_job, bare), OPTIONS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_quantised_base_needs_a_gpu(make_job, model):
    with pytest.raises(InfluenceError, match="quantised base needs a GPU"):
        load_model(stage_of(make_job, model), TrainingOptions(quantize="4bit"))


def test_types_go_by_what_pays():
    assert compute_dtype(OPTIONS) is torch.float32
    assert compute_dtype(TrainingOptions(device="cpu", dtype="bfloat16")) is torch.bfloat16


def test_bfloat16_and_checkpointing_train_too(make_job):
    outcome = train_here(
        "expert-iteration", make_job(rows_for("expert-iteration", 8)), dtype="bfloat16", gradient_checkpointing=True
    )
    assert outcome.moved > 0.0


def test_checkpointing_changes_no_weight(make_job):
    rows = rows_for("expert-iteration", 8)
    digests = {
        train_here("expert-iteration", make_job(rows, f"c{int(on)}"), gradient_checkpointing=on).digest
        for on in (True, False)
    }
    assert len(digests) == 1
