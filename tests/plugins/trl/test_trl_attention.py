"""Whether attention without the mask of right padding is the same attention."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_trl.attention import pass_over_padding

from .conftest import make_model, rows_for, train_here

torch = pytest.importorskip("torch")
Masks = list[torch.Tensor | None]


@pytest.fixture
def masks(monkeypatch) -> Masks:
    """What attention is given as masks from now on."""
    seen: Masks = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, **more):
        seen.append(attn_mask)
        return attend(*args, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    return seen


@pytest.fixture
def cudnn_as_before() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


def base_of(folder, **more):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **more)


def gradients(base, ids, mask) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of what is not padding, and the gradients."""
    base.zero_grad()
    loss = base(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    loss.backward()
    return loss.detach(), {name: weight.grad.clone() for name, weight in base.named_parameters()}


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_right_padding_is_learnt_alike_with_and_without_its_mask(model, lengths, seed):
    torch.manual_seed(seed)
    ids = torch.randint(0, 100, (len(lengths), max(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    masked, bare = base_of(model), base_of(model)
    pass_over_padding(bare, gpu=False, dtype=torch.float32)
    (loss, wanted), (other, found) = gradients(masked, ids, mask), gradients(bare, ids, mask)
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["expert-iteration", "kto", "dpo", "rloo"])
def test_no_algorithm_gives_attention_a_mask(make_job, masks, algorithm):
    train_here(algorithm, make_job(rows_for(algorithm, 8)))
    assert masks
    assert all(mask is None for mask in masks)


@pytest.mark.parametrize("mask", [[[0, 1, 1], [1, 1, 1]], [[1, 0, 1], [1, 1, 1]]], ids=["left", "between"])
def test_masks_of_anything_but_right_padding_are_kept(model, masks, mask):
    base = base_of(model)
    pass_over_padding(base, gpu=False, dtype=torch.float32)
    base(input_ids=torch.ones(2, 3, dtype=torch.long), attention_mask=torch.tensor(mask))
    assert all(each is not None for each in masks)


@pytest.mark.parametrize("change", ["two-sided", "other-attention"])
def test_models_that_look_ahead_or_attend_otherwise_keep_the_mask(tmp_path, change):
    base = base_of(make_model(tmp_path), **({"attn_implementation": "eager"} if change == "other-attention" else {}))
    base.config.use_bidirectional_attention = change == "two-sided"
    pass_over_padding(base, gpu=False, dtype=torch.float32)
    assert not base.base_model._forward_pre_hooks


@pytest.mark.parametrize(("dtype", "hooks"), [(torch.bfloat16, 1), (torch.float32, 0)])
def test_on_a_gpu_no_plan_is_built_for_each_shape(model, cudnn_as_before, dtype, hooks):
    base = base_of(model)
    pass_over_padding(base, gpu=True, dtype=dtype)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert len(base.base_model._forward_pre_hooks) == hooks
