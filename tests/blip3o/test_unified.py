"""The unified model on the tiny preset: batches, padding, gradients, saving."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from blip3o.config import Blip3oConfig
from blip3o.errors import ConfigError, DataError, ShapeError, WeightsError
from blip3o.presets import build_tiny
from blip3o.unified import Blip3oModel


@pytest.fixture(scope="module")
def model() -> Blip3oModel:
    return build_tiny().model


@pytest.fixture(scope="module")
def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Three prompts of 9, 6 and 5 tokens, padded right, right and left."""
    ids = torch.randint(20, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, :4] = 0
    return ids, mask


def pictures(count: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(count * 16, 3 * 2 * 8 * 8, generator=g)
    return {"pixel_values": rows, "image_grid_thw": torch.tensor([[1, 4, 4]]).repeat(count, 1)}


def test_padding_on_either_side_changes_nothing(model, prompts) -> None:
    ids, mask = prompts
    with torch.no_grad():
        together = model.encode_condition(ids, mask)
        for row in range(3):
            alone = model.encode_condition(ids[row : row + 1, mask[row].bool()])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(model, prompts) -> None:
    ids, mask = prompts
    other = ids.masked_fill(mask == 0, model.backbone.image_token_id)
    with torch.no_grad():
        assert torch.equal(model.encode_condition(ids, mask), model.encode_condition(other, mask))


def test_states_are_those_of_the_plain_causal_sequence(model, prompts) -> None:
    ids = prompts[0][:1]
    start = torch.tensor([[model.config.tokens.image_start]])
    with torch.no_grad():
        embeddings = torch.cat(
            [model.backbone.embed(torch.cat([ids, start], dim=1)), model.queries(1)], dim=1
        )
        positions = torch.arange(embeddings.shape[1])[None, None].expand(3, 1, -1)
        hidden = model.backbone.vlm.model.language_model(
            inputs_embeds=embeddings, position_ids=positions
        ).last_hidden_state
        expected = hidden[:, -model.config.num_queries :]
        torch.testing.assert_close(model.encode_condition(ids), expected, atol=1e-5, rtol=1e-5)


def test_query_only_backward_is_exact(model, prompts) -> None:
    ids, mask = prompts
    double = copy.deepcopy(model).double()
    states, gradients = [], []
    for query_only in (True, False):
        double.zero_grad()
        condition = double.encode_condition(ids, mask, query_only_backward=query_only)
        condition.cos().sum().backward()
        states.append(condition.detach())
        gradients.append(double.queries.latent_queries.grad.clone())
        has_backbone_gradient = any(p.grad is not None for p in double.backbone.parameters())
        # Weights of the backbone still get gradients from the query positions, but only the full pass is exact.
        assert has_backbone_gradient
    torch.testing.assert_close(states[0], states[1], atol=1e-13, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-13, rtol=0)
    assert gradients[0].abs().max() > 1e-4


def test_query_only_backward_is_chosen_for_a_frozen_backbone(model, prompts, monkeypatch) -> None:
    frozen = copy.deepcopy(model)
    frozen.backbone.requires_grad_(False)
    lengths = []
    forward = type(frozen.backbone).forward
    monkeypatch.setattr(
        type(frozen.backbone), "forward",
        lambda self, x, *a, **k: lengths.append((x.shape[1], torch.is_grad_enabled())) or forward(self, x, *a, **k),
    )  # fmt: skip
    frozen.encode_condition(*prompts)
    assert lengths == [(10, False), (4, True)]


def test_pictures_in_prompts_are_batched_like_text(model) -> None:
    pad = model.backbone.image_token_id
    ids = torch.randint(20, 200, (2, 11), generator=torch.Generator().manual_seed(2))
    ids[0, 3:7], ids[1, 5:9] = pad, pad
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    inputs = pictures(2)
    with torch.no_grad():
        together = model.encode_condition(ids, mask, **inputs)
        second = {"pixel_values": inputs["pixel_values"][16:], "image_grid_thw": inputs["image_grid_thw"][1:]}
        alone = model.encode_condition(ids[1:], mask[1:], **second)
        swapped = model.encode_condition(
            ids[1:], mask[1:], pixel_values=inputs["pixel_values"][:16], image_grid_thw=inputs["image_grid_thw"][1:]
        )
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, swapped, atol=1e-3)


def test_placeholders_and_pictures_must_agree(model) -> None:
    ids = torch.full((1, 3), model.backbone.image_token_id)
    with pytest.raises(DataError, match="3 image placeholder tokens, the pictures give 4"):
        model.encode_condition(ids, **pictures(1))
    with pytest.raises(DataError, match="need image_grid_thw"):
        model.encode_condition(ids, pixel_values=pictures(1)["pixel_values"])
    with pytest.raises(ShapeError, match="4 query placeholders, got \\[0\\]"):
        model.embed_inputs(torch.zeros(1, 5, dtype=torch.long))


def test_training_forward_repeats_injected_draws(model, prompts) -> None:
    target = torch.randn(3, *model.feature_shape, generator=torch.Generator().manual_seed(3))
    draws = {"u": torch.tensor([0.1, 0.5, 0.9]), "noise": torch.randn_like(target), "drop": torch.tensor([0, 1, 0])}
    first, second = (model(*prompts, target, **draws) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert first.condition[1].abs().max() == 0 and first.condition[0].abs().max() > 0
    by_condition = model(target=target, condition=model.encode_condition(*prompts), **draws)
    torch.testing.assert_close(by_condition.loss, first.loss)
    a, b = (model(*prompts, target, generator=torch.Generator().manual_seed(s)).loss for s in (1, 2))
    assert a != b


def test_autocast_trains_queries_and_transformer(model, prompts) -> None:
    trained = copy.deepcopy(model)
    trained.backbone.requires_grad_(False)
    target = torch.randn(3, *model.feature_shape)
    with torch.autocast("cpu", torch.bfloat16):
        trained(*prompts, target).loss.backward()
    assert trained.queries.latent_queries.grad.abs().max() > 0
    assert all(p.grad is not None for p in trained.dit.parameters())


def test_a_sample_does_not_depend_on_its_batch_or_on_guidance_being_one(model, prompts) -> None:
    with torch.no_grad():
        condition = model.encode_condition(*prompts)

    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = model.sample_features(condition, generators=generators(1, 2, 3))
    alone = model.sample_features(condition[1:2], generators=generators(2))
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    other = model.sample_features(condition[1:2], generators=generators(4))
    assert (other - alone).abs().max() > 0.1
    unguided = model.sample_features(condition[1:2], generators=generators(2), guidance_scale=1.0)
    almost = model.sample_features(condition[1:2], generators=generators(2), guidance_scale=1 + 1e-6)
    torch.testing.assert_close(unguided, almost, atol=1e-4, rtol=1e-4)


def test_released_compat_shows_whole_timesteps(model, prompts, monkeypatch) -> None:
    seen: dict[str, list[float]] = {}
    forward = type(model.dit).forward
    for compat in ("default", "released"):
        copied = copy.deepcopy(model)
        copied.config.compat = compat
        steps = seen.setdefault(compat, [])
        monkeypatch.setattr(
            type(copied.dit), "forward",
            lambda self, x, t, c, steps=steps: steps.append(float(t[0])) or forward(self, x, t, c),
        )  # fmt: skip
        noise = torch.zeros(1, *model.feature_shape)
        copied.sample_features(torch.zeros(1, 4, 32), noise=noise, num_inference_steps=3)
    assert seen["released"] == [1000, 666, 333]
    assert seen["default"][1] == pytest.approx(666.67, abs=0.01)


def test_saved_is_loaded(model, prompts, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for loaded in (Blip3oModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, Blip3oModel)
        state = loaded.state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name]), name
    assert isinstance(AutoConfig.from_pretrained(tmp_path), Blip3oConfig)
    assert AutoConfig.from_pretrained(tmp_path).dit == model.config.dit


def test_weights_that_do_not_fit_are_refused(model, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    # Copies: the loaded tensors are a view of the file, which is overwritten below.
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="is damaged or cut short"):
        Blip3oModel.from_pretrained(tmp_path)
    path.write_bytes(b"\x01" * 4096)
    with pytest.raises(WeightsError, match="is damaged or cut short"):
        Blip3oModel.from_pretrained(tmp_path)
    name = "dit.layers.0.gate"
    save_file({k: v for k, v in tensors.items() if k != name}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"lack {name}"):
        Blip3oModel.from_pretrained(tmp_path)
    save_file({**tensors, "dit.extra": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="have unknown dit.extra"):
        Blip3oModel.from_pretrained(tmp_path)
    save_file({**tensors, name: torch.zeros(9)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=name):
        Blip3oModel.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        Blip3oModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_querys": 3}, "unknown key num_querys .*did you mean num_queries"),
        ({"dit_config": {"in_chanels": 3}}, "unknown key dit_config.in_chanels; did you mean in_channels"),
        ({"flow_config": {"sigma_rule": "cosine"}}, "'cosine' is unknown"),
        ({"flow_config": {"condition_dropout": 1.0}}, "condition_dropout .* got 1.0"),
        ({"compat": "upstream"}, "compat 'upstream' is unknown"),
        ({"num_queries": 0}, "num_queries must be at least 1"),
        ({"backbone_config": {"hidden_size": 3}}, "needs a model_type"),
        ({"backbone_config": {"model_type": "qwen2_5_vl", "hidden_size": 64}}, "condition_dim 2048 .* size 64"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(values, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Blip3oConfig(**values)


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type 'bert' is not supported"):
        Blip3oModel(Blip3oConfig(backbone_config={"model_type": "bert"}))
