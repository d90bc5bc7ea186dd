"""Counts that decide the speed and need no GPU: arithmetic per stage, and how often each stage runs."""

from __future__ import annotations

import socket

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blip3o import flops
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny, released_config_values
from blip3o.released import config_from_released
from blip3o.unified import Blip3oModel

# Prompt of 60 tokens, the image start token and 64 queries; GFLOP of one row.
POSITIONS = 125
REAL = {"blip3o-4b": (698.2, 152.9), "blip3o-8b": (1637.6, 153.2)}


def count(function) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", REAL)
def test_backbone_and_transformer_cost_what_the_formulas_say(name) -> None:
    values = released_config_values(name)
    with torch.device("meta"):
        model = Blip3oModel(config_from_released(values))
        hidden = values["hidden_size"]
        prompt, positions = torch.empty(1, POSITIONS, hidden), torch.arange(POSITIONS)[None]
        counted = count(lambda: model.backbone(prompt, None, positions))
        # Older transformers make the rotary angles by a matrix product: 48,000 operations of 1.6e12.
        assert counted == pytest.approx(flops.backbone_flops(values, POSITIONS), rel=1e-7)
        assert counted / 1e9 == pytest.approx(REAL[name][0], abs=0.05)
        features, condition = torch.empty(1, 1792, 8, 8), torch.empty(1, 64, hidden)
    condition_flops = count(lambda: model.dit.encode_condition(condition))
    encoded = model.dit.encode_condition(condition)
    one = count(lambda: model.dit(features, torch.empty(1, device="meta"), encoded))
    assert one + condition_flops == flops.dit_flops(model.config.dit, 64)
    assert (one + condition_flops) / 1e9 == pytest.approx(REAL[name][1], abs=0.05)
    # Encoding the condition once saves this share of every later step.
    assert condition_flops / (one + condition_flops) == pytest.approx(0.135, abs=0.003)


def test_the_decoder_of_the_released_size_costs_what_is_stated() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**flops.RELEASED_UNET)
        added = {"text_embeds": torch.empty(1, 1792), "time_ids": torch.empty(1, 6)}
        row, tokens = torch.empty(1, 4, 128, 128), torch.empty(1, 64, 1792)
        step = torch.empty((), device="meta")
        counted = count(lambda: unet(row, step, encoder_hidden_states=tokens, added_cond_kwargs=added))
        assert sum(p.numel() for p in unet.parameters()) == pytest.approx(2.526e9, rel=1e-3)
        assert counted == pytest.approx(flops.UNET_FLOPS, rel=1e-3)
        vae = AutoencoderKL(**flops.RELEASED_VAE)
        assert count(lambda: vae.decode(row)) == pytest.approx(flops.VAE_DECODE_FLOPS, rel=1e-3)


def test_the_target_encoder_of_the_released_size_costs_what_the_formula_says() -> None:
    from blip3o.vision.encoders import EvaConfig, EvaEncoder

    with torch.device("meta"):
        encoder = EvaEncoder(EvaConfig())
        counted = count(lambda: encoder(torch.empty(1, 3, 448, 448)))
    assert sum(p.numel() for p in encoder.parameters()) == 4_350_208_256
    assert counted == flops.eva_flops(EvaConfig())
    assert counted / 1e12 == pytest.approx(9.392, abs=0.005)


def test_a_picture_is_nearly_all_decoder() -> None:
    values = released_config_values("blip3o-4b")
    stages = flops.picture_flops(
        values, config_from_released(values).dit, positions=POSITIONS, queries=64, steps=30, decoder_steps=50,
        images_per_prompt=4,
    )  # fmt: skip
    assert sum(stages.values()) / 1e12 == pytest.approx(694.0, abs=0.1)
    assert stages["decoder"] / sum(stages.values()) == pytest.approx(0.971, abs=0.001)


# How often each stage runs


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return build_tiny()


def calls(monkeypatch, owner, name: str) -> list[tuple]:
    """Arguments of every call of a method."""
    seen, original = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: seen.append(a) or original(*a, **k))
    return seen


def test_generation_runs_each_stage_as_rarely_as_possible(pipe, monkeypatch) -> None:
    model = pipe.model
    prefills = calls(monkeypatch, type(model.backbone), "forward")
    steps = calls(monkeypatch, type(model.dit), "forward")
    conditions = calls(monkeypatch, type(model.dit), "encode_condition")
    head = model.backbone.vlm.lm_head
    hook = head.register_forward_pre_hook(lambda *a: pytest.fail("no words are asked for"))
    try:
        assert len(pipe(["a dog", "a cat"], num_images_per_prompt=3).images) == 6
    finally:
        hook.remove()
    assert len(prefills) == 1 and prefills[0][1].shape[0] == 2  # one forward, one row per prompt
    assert len(steps) == model.config.flow.num_inference_steps
    assert all(a[1].shape[0] == 12 for a in steps)  # both halves of guidance in one batch
    assert len(conditions) == 1


def test_nothing_reaches_for_the_network(pipe, monkeypatch, tmp_path) -> None:
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail(f"connects to {a[1:]}"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail(f"looks up {a[0]}"))
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    assert len(loaded("a dog").images) == 1


def test_noise_levels_are_not_drawn_from_a_scheduler_on_the_hub(pipe, monkeypatch) -> None:
    """Upstream reads a scheduler's file at every call; here the sampler knows its levels."""
    from diffusers import SchedulerMixin

    monkeypatch.setattr(SchedulerMixin, "from_pretrained", lambda *a, **k: pytest.fail("loads a scheduler"))
    assert len(pipe("a dog").images) == 1


def test_a_transformer_step_starts_no_more_kernels_than_counted() -> None:
    """Operations that are no views, of the released depth in bfloat16; widths do not matter, so they are small."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from blip3o.dit import DiT, DiTConfig

    class Kernels(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.number += not (function.is_view or "view" in function.name())
            return function(*args, **(kwargs or {}))

    config = DiTConfig(dim=64, num_heads=4, in_channels=8, condition_dim=16)
    dit = DiT(config).to(torch.bfloat16)
    features, time = torch.randn(2, 8, 8, 8).bfloat16(), torch.ones(2)
    with torch.no_grad(), Kernels() as whole:
        encoded = dit.encode_condition(torch.randn(2, 64, 16).bfloat16())
        dit(features, time, encoded)
    with torch.no_grad(), Kernels() as step:
        dit(features, time, encoded)
    assert whole.number <= 2199  # upstream's forward, which encodes the condition at every step
    assert step.number <= 2000
