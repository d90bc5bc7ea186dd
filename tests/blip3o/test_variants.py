"""Designs, backbones and heads as configuration: each samples, learns, saves, and is the same in any batch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from blip3o.backbone import build_backbone
from blip3o.config import Blip3oConfig
from blip3o.errors import ConfigError, DataError, ShapeError
from blip3o.heads import kinds
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import BACKBONES, PRESETS, build_tiny, is_random
from blip3o.unified import Blip3oModel

NAMES = [name for name in PRESETS if is_random(name)]


@pytest.fixture(scope="module")
def pipes() -> dict[str, Blip3oPipeline]:
    return {name: build_tiny(name=name) for name in NAMES}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def prompts(generator: int = 0) -> tuple[Tensor, Tensor]:
    """Three prompts of 9, 6 and 5 tokens, padded right, right and left."""
    ids = torch.randint(20, 200, (3, 9), generator=torch.Generator().manual_seed(generator))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, :4] = 0
    return ids, mask


@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_batch_or_padding(pipes, name) -> None:
    model = pipes[name].model
    ids, mask = prompts()
    with torch.no_grad():
        together = model.sample_features(model.encode_condition(ids, mask), generators=seeds(1, 2, 3))
        for row in range(3):
            condition = model.encode_condition(ids[row : row + 1, mask[row].bool()])
            alone = model.sample_features(condition, generators=seeds(row + 1))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    assert together.shape == (3, *model.feature_shape) and together.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_its_target(pipes, name) -> None:
    """A few steps on one batch with fixed draws bring the loss down, with the backbone frozen."""
    model = copy.deepcopy(pipes[name].model).train()
    model.backbone.requires_grad_(False)
    ids, mask = prompts()
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(3, *model.feature_shape, generator=generator)
    draws = {"u": torch.tensor([0.1, 0.5, 0.9]), "noise": torch.randn(target.shape, generator=generator),
             "drop": torch.zeros(3)}  # fmt: skip
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=3e-3)
    losses = []
    for _ in range(12):
        output = model(ids, mask, target, **draws)
        output.loss.backward()
        assert all(p.grad is not None for p in learning)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.9 * losses[0]
    torch.testing.assert_close(
        output.loss.detach(), (output.prediction - output.wanted).square().mean().detach()
    )
    if model.config.objective == "mse":
        assert torch.equal(output.wanted, target)


@pytest.mark.parametrize("name", NAMES)
def test_saved_is_loaded(pipes, name, tmp_path: Path) -> None:
    pipe = pipes[name]
    pipe.save_pretrained(tmp_path)
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    before, after = pipe.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    pictures = [np.asarray(p("a dog", generator=seeds(1)).images[0], dtype=int) for p in (pipe, loaded)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert loaded.model.config.objective == pipe.model.config.objective


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(pipes, name) -> None:
    model = pipes[name].model
    low = copy.deepcopy(model).to(torch.bfloat16)
    ids, mask = prompts()
    with torch.no_grad():
        exact = model.encode_condition(ids, mask)
        near = low.encode_condition(ids, mask).float()
        # Final hidden states are normalised, of the order of 1; bfloat16 keeps about 3 digits.
        assert (exact - near).abs().mean() < 0.03
        features = model.sample_features(exact, generators=seeds(1, 2, 3))
        lower = low.sample_features(exact.to(torch.bfloat16), generators=seeds(1, 2, 3))
        assert (features - lower).abs().mean() < 0.05 * features.abs().mean() + 0.02


def test_a_regression_has_one_answer_per_prompt(pipes) -> None:
    for name in ("tiny-clip-mse", "tiny-clip-mse-dit"):
        pipe = pipes[name]
        first, second = (pipe("a dog", generator=seeds(seed)).features for seed in (1, 2))
        assert torch.equal(first, second)
        assert not torch.equal(first, pipe("a cat", generator=seeds(1)).features)
        for setting, value in (("guidance_scale", 3.0), ("num_inference_steps", 30)):
            with pytest.raises(ConfigError, match=f"without guidance, got {setting} {value}"):
                pipe("a dog", generator=seeds(1), **{setting: value})
    flow = pipes["tiny"]
    features = [flow("a dog", generator=seeds(seed)).features for seed in (1, 2)]
    assert not torch.allclose(*features)


def test_vae_pictures_come_from_the_latents_alone(pipes) -> None:
    pipe = pipes["tiny-vae-flow"]
    assert pipe.model.feature_shape == (4, 8, 8) and pipe.image_size == 32
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(pipe.decoder.decode(latents), pipe.decoder.decode(latents, generators=seeds(1, 2)))
    again = pipe.decoder(pipe.decoder.decode(latents) * 2 - 1)  # the target encoder is the same VAE
    assert again.shape == latents.shape


def test_the_vae_that_draws_is_the_target_encoder(pipes, photo, tmp_path: Path) -> None:
    pipe = pipes["tiny-vae-flow"]
    prepared = pipe.target_encoder.preprocess([photo])
    with torch.no_grad():
        torch.testing.assert_close(pipe.target_encoder.encode([photo]), pipe.decoder(prepared))
    assert pipe.reconstruct(photo).images[0].size == (32, 32)
    pipe.save_pretrained(tmp_path)
    assert not (tmp_path / "target_encoder").exists()  # no second copy of the VAE
    assert pipes["tiny"].target_encoder is None


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3-siglip2"])
def test_text_backbones_hide_padding_and_keep_a_cache(pipes, name) -> None:
    backbone = pipes[name].model.backbone
    ids, mask = prompts()
    with torch.no_grad():
        whole = backbone(backbone.embed(ids[:1]), mask[:1], torch.arange(9)[None]).hidden_states
        first = backbone(backbone.embed(ids[:1, :5]), mask[:1, :5], torch.arange(5)[None], use_cache=True)
        rest = backbone(backbone.embed(ids[:1, 5:]), mask[:1], torch.arange(5, 9)[None], cache=first.cache)
        torch.testing.assert_close(rest.hidden_states, whole[:, 5:], atol=1e-5, rtol=1e-5)
        logits = backbone.text_logits(ids, mask)
        alone = backbone.text_logits(ids[2:, 4:], mask[2:, 4:])
        torch.testing.assert_close(logits[2:, 4:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3-siglip2"])
def test_query_only_backward_is_exact_for_text_backbones(pipes, name) -> None:
    model = copy.deepcopy(pipes[name].model).double()
    ids, mask = prompts()
    states, gradients = [], []
    for query_only in (True, False):
        model.zero_grad()
        condition = model.encode_condition(ids, mask, query_only_backward=query_only)
        condition.cos().sum().backward()
        states.append(condition.detach())
        gradients.append(model.queries.latent_queries.grad.clone())
    torch.testing.assert_close(states[0], states[1], atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=0)


def test_eager_attention_agrees_with_the_fused_kernel(pipes) -> None:
    ids, mask = prompts()
    for name in ("tiny", "tiny-llama", "tiny-qwen3-siglip2"):
        model = copy.deepcopy(pipes[name].model)
        with torch.no_grad():
            fused = model.encode_condition(ids, mask)
            language = getattr(model.backbone, "vlm", None) or model.backbone.lm
            language.set_attn_implementation("eager")
            torch.testing.assert_close(model.encode_condition(ids, mask), fused, atol=1e-5, rtol=1e-5)


def test_pictures_reach_a_language_model_through_siglip(pipes, photo) -> None:
    pipe = pipes["tiny-qwen3-siglip2"]
    white = Image.new("RGB", (20, 20), "white")
    made = [pipe("redraw it", image, generator=seeds(1)).features for image in (photo, white, photo)]
    assert torch.equal(made[0], made[2]) and not torch.allclose(made[0], made[1])
    backbone = pipe.model.backbone
    ids = torch.full((2, 24), backbone.image_token_id)
    ids[:, 20:] = 30
    grids = torch.tensor([[1, 4, 5], [1, 5, 4]])  # two pictures of unequal sides, positions interpolated
    rows = torch.randn(40, 3 * 8 * 8)
    with torch.no_grad():
        both = backbone.embed(ids, rows, grids)
        second = backbone.embed(ids[1:], rows[20:], grids[1:])
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=1e-5)
    with pytest.raises(DataError, match="40 image placeholder tokens, the pictures give 20"):
        backbone.embed(ids, rows[20:], grids[1:])
    with pytest.raises(DataError, match="no vision tower"):
        pipes["tiny-llama"].model.backbone.embed(ids, rows, grids)


@pytest.mark.parametrize(
    ("name", "text_parameters", "picture_tokens"),
    [
        ("smollm2-135m", 134_515_008, None),
        ("llama-3.2-1b", 1_235_814_400, None),
        ("qwen3-1.7b-siglip2", 1_720_574_976, 1024),
    ],
)
def test_backbones_of_public_sizes_are_those_models(name, text_parameters, picture_tokens) -> None:
    """Parameter counts as published; built without memory."""
    with torch.device("meta"):
        backbone = build_backbone(BACKBONES[name])
        assert sum(p.numel() for p in backbone.lm.parameters()) == text_parameters
        if picture_tokens is None:
            assert backbone.vision_config is None
            return
        rows, grid = torch.empty(1024, 3 * 16 * 16), torch.tensor([[1, 32, 32]], device="cpu")
        assert backbone.see(rows, grid).shape == (picture_tokens, 2048)


# Combinations


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": "vae", "objective": "mse"}, r"choose clip \+ flow, clip \+ mse, vae \+ flow"),
        ({"target": "dino"}, r"'dino' with objective 'flow' is not supported; choose clip \+ flow"),
        ({"head": "linear"}, "head 'linear' does not serve objective 'flow'; choose dit, sana"),
        ({"head": "gan"}, "head 'gan' is unknown; choose one of dit, linear, sana"),
        ({"objectve": "mse"}, "unknown key objectve .*did you mean objective"),
    ],
)
def test_combinations_that_do_not_exist_are_refused_with_those_that_do(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Blip3oConfig(**values)


def test_a_linear_head_needs_a_query_per_patch(pipes) -> None:
    config = copy.deepcopy(pipes["tiny-clip-mse"].model.config)
    config.num_queries = 5
    with pytest.raises(ConfigError, match="num_queries 5 must equal the 4 patches of a 4 x 4 grid"):
        Blip3oModel(config)
    with pytest.raises(ShapeError, match=r"condition must be \(batch, 4, 32\), got \(1, 3, 32\)"):
        pipes["tiny-clip-mse"].model.generator(torch.zeros(1, 3, 32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "'bert' is not supported; use one of qwen2_5_vl, llama, .*text_vision"),
        ({"model_type": "text_vision", "text_config": {}}, "needs .*; image_token_id is missing"),
    ],
)
def test_backbones_that_do_not_exist_are_refused(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Blip3oModel(Blip3oConfig(backbone_config=values))


# Room for other generators


class Double(nn.Module):
    """A velocity network of another kind: the condition's mean, broadcast. Stands for SANA and its like."""

    feature_shape = (3, 2, 2)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 3)

    @property
    def dtype(self) -> torch.dtype:
        return self.proj.weight.dtype

    def encode_condition(self, condition: Tensor) -> Tensor:
        return condition

    def encode_guided(self, condition: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(condition), condition])

    def forward(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return x * 0.1 + self.proj(condition.mean(dim=1))[:, :, None, None]


def test_another_generator_joins_by_name(pipes, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kinds, "_HEADS", dict(kinds._HEADS))
    kinds.register_head("double", lambda config: Double(config.condition_dim))
    with pytest.raises(ConfigError, match="'double' exists already"):
        kinds.register_head("double", lambda config: Double(1))
    values = pipes["tiny"].model.config
    config = Blip3oConfig(
        backbone_config=values.backbone_config, num_queries=4, head="double",
        flow_config=values.flow_config, token_config=values.token_config,
    )  # fmt: skip
    model = Blip3oModel(config).eval()
    assert model.feature_shape == (3, 2, 2)
    ids, mask = prompts()
    output = model(ids, mask, torch.randn(3, 3, 2, 2))
    output.loss.backward()
    assert model.generator.proj.weight.grad is not None
    features = model.sample_features(output.condition.detach(), generators=seeds(1, 2, 3))
    assert features.shape == (3, 3, 2, 2)
    model.save_pretrained(tmp_path)
    assert torch.equal(Blip3oModel.from_pretrained(tmp_path).generator.proj.weight, model.generator.proj.weight)


def test_a_sana_transformer_is_a_velocity_network(pipes) -> None:
    values = pipes["tiny"].model.config
    sana = {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
        "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
        "caption_channels": 12, "sample_size": 4,
    }  # fmt: skip
    config = Blip3oConfig(
        backbone_config=values.backbone_config, num_queries=4, target="vae", head="sana", head_config=sana,
        flow_config=values.flow_config, token_config=values.token_config,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Blip3oModel(config).eval()
    assert model.generator.connector_norm.weight.unique().item() == pytest.approx(5.5**0.5)
    ids, mask = prompts()
    model(ids, mask, torch.randn(3, 4, 4, 4)).loss.backward()
    assert model.generator.connector_in.weight.grad.abs().max() > 0
    with torch.no_grad():
        condition = model.encode_condition(ids, mask)
        together = model.sample_features(condition, generators=seeds(1, 2, 3))
        alone = model.sample_features(condition[1:2], generators=seeds(2))
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    config.head_config = {**sana, "layers": 1}
    with pytest.raises(ConfigError, match="head_config: .*'layers'"):
        Blip3oModel(config)


@pytest.mark.parametrize("name", ["tiny", "tiny-clip-mse", "tiny-vae-flow"])
def test_the_generation_stage_trains_every_design(pipes, name) -> None:
    from blip3o.train.feature_cache import FeatureBatch
    from blip3o.train.stages import GenerationStage

    model = copy.deepcopy(pipes[name].model)
    model.backbone.requires_grad_(False)
    batch = FeatureBatch(["0", "1", "2"], torch.randn(3, *model.feature_shape), ["a", "b", "c"])
    rows = []
    forward = Blip3oModel.forward
    stage = GenerationStage(model, lambda step: batch, lambda b: model.encode_condition(*prompts()), draws=2)
    stage.model = lambda **k: rows.append(len(k["condition"])) or forward(model, **k)
    stage.model.config = model.config
    loss, numbers = stage.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert model.queries.latent_queries.grad.abs().max() > 0
    if name == "tiny-clip-mse":
        assert rows == [3] and set(numbers) == {"unexplained"}
    else:
        assert rows == [6] and set(numbers) <= {"mse_noisy", "mse_clean"}
