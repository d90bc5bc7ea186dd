"""``compat=released``: the choices of the released inference code, each against a plain rewriting of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor

from blip3o.latent_decoder import LatentDecoder, LatentDecoderConfig
from blip3o.pipeline import Blip3oPipeline, PipelineCard
from blip3o.prompts import UNCONDITIONAL, Prompts


def released(dtype: torch.dtype = torch.float32, decoder=None) -> Blip3oPipeline:
    pipe = Blip3oPipeline.from_pretrained("tiny", compat="released", dtype=dtype)
    if decoder is None:
        return pipe
    return Blip3oPipeline(pipe.model, pipe.tokenizer, decoder, pipe.card)


@pytest.fixture(scope="module")
def latent() -> LatentDecoder:
    """An SDXL-type decoder of tiny's features: 6 channels on 4 x 4 cells, 16 px pictures."""
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, cross_attention_dim=6, attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 + 48,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    return LatentDecoder(unet, vae, LatentDecoderConfig(image_size=16, sampling_steps=3)).eval()


def condition_of(pipe: Blip3oPipeline, text: str) -> Tensor:
    ids = pipe.tokenizer([text], add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return pipe.model.encode_condition(ids)


def upstream_features(pipe: Blip3oPipeline, text: str, generator: torch.Generator, steps: int, scale: float) -> Tensor:
    """The released sampling loop in plain words, on diffusers' own scheduler and in the model's precision."""
    dtype = pipe.model.dtype
    condition = condition_of(pipe, text)
    both = torch.cat([torch.zeros_like(condition), condition])
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps, sigmas=np.linspace(1.0, 1 / steps, steps))
    x = torch.randn((1, *pipe.model.feature_shape), generator=generator, dtype=dtype)
    for t in scheduler.timesteps:
        whole = t.to(torch.long).expand(2)
        with torch.no_grad():
            null, wanted = pipe.model.dit(torch.cat([x, x]), whole, both).chunk(2)
        velocity = null + scale * (wanted - null)
        x = scheduler.step(velocity, t, x).prev_sample
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_are_those_of_the_released_loop(dtype: torch.dtype) -> None:
    pipe = released(dtype)
    text = Prompts(is_closed=False).generation("a dog")
    theirs = upstream_features(pipe, text, torch.Generator().manual_seed(3), 30, 3.0)
    made = pipe(
        "a dog", generator=[torch.Generator().manual_seed(3)], num_inference_steps=30, guidance_scale=3.0,
        output_type="latent",
    ).images  # fmt: skip
    # Both halves share a forward there and here; what is left is the encoding of the condition once, not per step.
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.06, torch.float16: 0.01}[dtype]
    assert torch.allclose(made, theirs.float(), atol=tolerance)


def test_the_assistant_turn_stays_open_and_the_default_is_the_models() -> None:
    closed = Blip3oPipeline.from_pretrained("tiny")
    assert closed.prompts.is_closed and not released().prompts.is_closed
    gap = condition_of(closed, closed.prompts.generation("a dog")) - condition_of(
        closed, released().prompts.generation("a dog")
    )
    assert gap.abs().max() > 1e-4


def test_the_first_picture_of_a_process_draws_the_empty_prompts_noise_from_its_own_stream(latent) -> None:
    pipe = released(decoder=latent)
    first, second = (
        pipe("a dog", generator=[torch.Generator().manual_seed(5)], output_type="pt").images for _ in range(2)
    )
    assert (first - second).abs().max() > 0.01  # one seed, two pictures: upstream's slip

    generator = torch.Generator().manual_seed(5)
    flow = pipe.model.config.flow
    features = upstream_features(
        pipe, Prompts(is_closed=False).generation("a dog"), generator, flow.num_inference_steps, flow.guidance_scale
    )
    null = upstream_features(pipe, UNCONDITIONAL, generator, flow.num_inference_steps, flow.guidance_scale)
    expected = latent.decode(features, generators=[generator], null_features=null)
    assert torch.allclose(first, expected, atol=1e-5)
    later = torch.Generator().manual_seed(5)
    torch.randn(pipe.model.feature_shape, generator=later)  # the picture's own features only
    expected = latent.decode(features, generators=[later], null_features=null)
    assert torch.allclose(second, expected, atol=1e-5)


def test_by_default_a_seed_means_one_picture_whatever_came_before(latent) -> None:
    tiny = Blip3oPipeline.from_pretrained("tiny")
    pipe = Blip3oPipeline(tiny.model, tiny.tokenizer, latent, PipelineCard())
    first = pipe("a dog", generator=[torch.Generator().manual_seed(5)], output_type="pt").images
    pipe("a cat")
    again = pipe("a dog", generator=[torch.Generator().manual_seed(5)], output_type="pt").images
    assert torch.equal(first, again)


def test_whole_timesteps_reach_the_network_only_in_compat(monkeypatch) -> None:
    seen: dict[str, list[float]] = {}
    for compat in ("default", "released"):
        pipe = Blip3oPipeline.from_pretrained("tiny", compat=compat)
        forward = type(pipe.model.dit).forward
        seen[compat] = []

        def spy(self, x, t, *a, _seen=seen[compat], _forward=forward, **k):
            _seen.append(float(t[0]))
            return _forward(self, x, t, *a, **k)

        with monkeypatch.context() as patch:
            patch.setattr(type(pipe.model.dit), "forward", spy)
            pipe("a dog", num_inference_steps=3, output_type="latent")
    assert seen["released"] == [1000.0, 666.0, 333.0]
    assert seen["default"] == pytest.approx([1000.0, 2000 / 3, 1000 / 3])
