"""The diffusion transformer beyond what the recordings cover."""

from __future__ import annotations

import copy

import pytest
import torch

from blip3o.dit import DiT, DiTConfig
from blip3o.errors import ConfigError, ShapeError
from blip3o.layers import attention

SMALL = {
    "input_size": 6, "patch_size": 2, "in_channels": 5, "dim": 32, "num_layers": 2, "num_heads": 4,
    "num_kv_heads": 2, "condition_dim": 12, "multiple_of": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    model = DiT(DiTConfig(**SMALL)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    x, condition = torch.randn(4, 5, 6, 6, generator=g), torch.randn(4, 7, 12, generator=g)
    return x, torch.tensor([1000.0, 700.0, 33.0, 1.0]), condition


def test_a_sample_does_not_depend_on_its_batch(dit, inputs) -> None:
    with torch.no_grad():
        together = dit(*inputs)
        alone = torch.cat([dit(*(t[i : i + 1] for t in inputs)) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_masked_condition_tokens_do_not_count(dit, inputs) -> None:
    x, timestep, condition = inputs
    mask = torch.ones(4, 7, dtype=torch.bool)
    mask[:, 5:] = False
    spoiled = condition.clone()
    spoiled[:, 5:] = 100.0
    for context in (torch.no_grad(), torch.enable_grad()):  # both forms of attention
        with context:
            masked = dit(x, timestep, spoiled, mask)
            cut = dit(x, timestep, condition[:, :5])
        torch.testing.assert_close(masked, cut, atol=2e-5, rtol=1e-5)
    assert not torch.allclose(cut, dit(x, timestep, condition), atol=1e-3)


def test_an_encoded_condition_gives_the_same_velocity(dit, inputs) -> None:
    x, timestep, condition = inputs
    with torch.no_grad():
        assert torch.equal(
            dit(x, timestep, dit.encode_condition(condition)), dit(x, timestep, condition)
        )


def test_checkpointing_changes_no_gradient(dit, inputs) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(dit)
        model.gradient_checkpointing = checkpointing
        model(*inputs).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_and_autocast_stay_close(dit, inputs, dtype) -> None:
    with torch.no_grad():
        exact = dit(*inputs)
        half = copy.deepcopy(dit).to(dtype)
        x, timestep, condition = inputs
        low = half(x.to(dtype), timestep, condition.to(dtype))
        assert low.dtype == dtype
        with torch.autocast("cpu", dtype):
            cast = dit(*inputs)
    scale = exact.abs().max()
    assert (low.float() - exact).abs().max() < 0.1 * scale
    assert (cast.float() - exact).abs().max() < 0.1 * scale


def test_a_model_built_on_meta_computes_after_loading(dit, inputs) -> None:
    with torch.device("meta"):
        empty = DiT(DiTConfig(**SMALL))
    empty.load_state_dict(dit.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(empty(*inputs), dit(*inputs))


def test_a_table_made_in_inference_mode_serves_training() -> None:
    model = DiT(DiTConfig(**{**SMALL, "input_size": 10}))  # a size that no other test uses
    x, z = torch.randn(1, 5, 10, 10), torch.randn(1, 3, 12)
    with torch.inference_mode():
        model(x, torch.ones(1), z)
    model(x, torch.ones(1), z).sum().backward()


@pytest.mark.parametrize("masked", [False, True])
def test_both_forms_of_attention_agree(masked: bool) -> None:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(2, 5, 6, 8, generator=g, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, 9, 3, 8, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, 9, generator=g) < 0.7 if masked else None
    with torch.no_grad():
        fused = attention(query, key, value, mask)
    torch.testing.assert_close(attention(query, key, value, mask), fused)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 1000, "num_heads": 16}, "1000 is not divisible by num_heads 16"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not divisible by num_kv_heads 3"),
        ({"input_size": 7}, "input_size 7 is not divisible by patch_size 2"),
        ({"dim": 24}, "head width 6"),
        ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiTConfig(**{**SMALL, **changes})


def test_wrong_shapes_are_refused(dit, inputs) -> None:
    x, timestep, condition = inputs
    with pytest.raises(ShapeError, match="5 channels"):
        dit(x[:, :3], timestep, condition)
    with pytest.raises(ShapeError, match=r"timestep must be \(4,\)"):
        dit(x, timestep[:1], condition)
    with pytest.raises(ShapeError, match=r"\(batch, tokens, 12\)"):
        dit(x, timestep, condition[..., :4])
    with pytest.raises(ShapeError, match="batch 4, its condition 2"):
        dit(x, timestep, condition[:2])


def test_the_released_width_rule() -> None:
    config = DiTConfig()
    assert (config.ffn_width, config.temb_width, config.head_dim, config.num_tokens) == (4864, 1024, 64, 64)
