"""The replay of recorded tensors: the upstream recordings, and files of other sizes written here with the
classes of diffusers and transformers, which share no code with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel
from diffusers.models.embeddings import PixArtAlphaTextProjection, get_2d_rotary_pos_embed_lumina
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from blip3o.cli import main
from blip3o.parity import replay_file

GOLDEN = Path(__file__).parents[1] / "golden" / "blip3o"
FILES = sorted(GOLDEN.glob("*.safetensors"))
IMG, QUERY, IMAGE_PAD, PAD = 151665, 151667, 151655, 151643


# An independent writer of recordings


class ReferenceDiT(nn.Module):
    """diffusers' Lumina-Next with the condition projected outside, as the released models use it."""

    def __init__(self, c: dict[str, Any], condition_dim: int) -> None:
        super().__init__()
        dim = c["dim"]
        self.inner = LuminaNextDiT2DModel(
            sample_size=c["input_size"], patch_size=c["patch_size"], in_channels=c["in_channels"], hidden_size=dim,
            num_layers=c["n_layers"], num_attention_heads=c["n_heads"], num_kv_heads=c["n_kv_heads"],
            norm_eps=1e-5, learn_sigma=False, qk_norm=True, cross_attention_dim=dim,
        )  # fmt: skip
        width = c["multiple_of"] * -(-int(8 * dim / 3) // c["multiple_of"])
        for layer in self.inner.layers:  # the width rule of the released weights; diffusers' own is 4 * dim
            layer.feed_forward.linear_1 = nn.Linear(dim, width, bias=False)
            layer.feed_forward.linear_3 = nn.Linear(dim, width, bias=False)
            layer.feed_forward.linear_2 = nn.Linear(width, dim, bias=False)
        self.projection = PixArtAlphaTextProjection(condition_dim, dim)
        self.table = get_2d_rotary_pos_embed_lumina(dim // c["n_heads"], 384, 384)

    def forward(self, x: Tensor, timestep: Tensor, z: Tensor) -> Tensor:
        mask = torch.ones(z.shape[:2], dtype=torch.bool)
        kwargs: dict[str, Any] = {"cross_attention_kwargs": {}, "return_dict": False}
        return self.inner(x, timestep, self.projection(z), mask, self.table, **kwargs)[0]

    def weights(self) -> dict[str, Tensor]:
        state = {k: v for k, v in self.inner.state_dict().items() if k != "pad_token"}
        return state | {f"caption_projection.{k}": v for k, v in self.projection.state_dict().items()}


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and name.endswith("weight") and "gate" not in name
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(1 + 0.1 * noise if is_norm else noise * (0.6 / fan**0.5 if parameter.ndim > 1 else 0.4))


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Path:
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata=text)
    return path


def dit_sizes(**changes: Any) -> dict[str, Any]:
    sizes = {"input_size": 8, "patch_size": 2, "in_channels": 6, "dim": 48, "n_layers": 3, "n_heads": 6,
             "n_kv_heads": 2, "multiple_of": 32}  # fmt: skip
    return sizes | changes


def write_dit(path: Path, **changes: Any) -> Path:
    sizes = dit_sizes(**changes)
    model = ReferenceDiT(sizes, 20)
    randomise(model, 1)
    g = torch.Generator().manual_seed(2)
    side = sizes["input_size"]
    x = torch.randn(3, sizes["in_channels"], side, side, generator=g)
    z = torch.randn(3, 7, 20, generator=g)
    z[1] = 0
    timestep = torch.tensor([1000.0, 412.5, 33.0])
    pred = model(x, timestep, z)
    loss = pred.square().mean()
    loss.backward()
    rows = side // sizes["patch_size"]
    tensors = {
        "in.x": x, "in.timestep": timestep, "in.z_latents": z, "out.pred": pred, "out.mean_sq": loss.reshape(1),
        "aux.rope_real": model.table[:rows, :rows].real, "aux.rope_imag": model.table[:rows, :rows].imag,
        "grad.model.layers.0.attn1.to_v.weight": model.inner.layers[0].attn1.to_v.weight.grad,
        "grad.model.caption_projection.linear_1.weight": model.projection.linear_1.weight.grad,
        "grad.model.layers.1.gate": model.inner.layers[1].gate.grad,
    } | {f"w.model.{k}": v for k, v in model.weights().items()}  # fmt: skip
    return save(path, tensors, {"kind": "dit", "config": sizes | {"latent_embedding_size": 20}})


class ReferenceModel:
    """Backbone, queries and transformer of another size than the upstream recordings."""

    def __init__(self, folder: Path, n_query: int = 9, **dit: Any) -> None:
        self.folder, self.n_query = folder, n_query
        self.llm = {
            "vocab_size": 151668, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3,
            "num_attention_heads": 5, "num_key_value_heads": 1, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512, "max_window_layers": 3, "use_sliding_window": False,
            "tie_word_embeddings": False,
            "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default"},
            "image_token_id": IMAGE_PAD, "video_token_id": 151656, "vision_start_token_id": 151652,
            "vision_end_token_id": 151653, "bos_token_id": PAD, "eos_token_id": 151645,
        }  # fmt: skip
        self.vision = {
            "depth": 2, "hidden_size": 24, "intermediate_size": 32, "num_heads": 3, "out_hidden_size": 40,
            "patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 28,
            "fullatt_block_indexes": [1], "in_channels": 3, "hidden_act": "silu", "tokens_per_second": 2,
        }  # fmt: skip
        self.dit_sizes = dit_sizes(input_size=6, **dit)
        config = Qwen2_5_VLConfig(**self.llm, vision_config=self.vision)
        self.vlm = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
        randomise(self.vlm.model, 3)
        self.dit = ReferenceDiT(self.dit_sizes, 40)
        randomise(self.dit, 4)
        self.queries = torch.randn(1, n_query, 40, generator=torch.Generator().manual_seed(5), requires_grad=True)
        self.metadata = {
            "weights": "weights.safetensors",
            "config": {"llm": self.llm, "vision": self.vision, "dit": self.dit_sizes, "n_query": n_query,
                       "scheduler": {"num_train_timesteps": 1000, "shift": 1.0}},
        }  # fmt: skip

    def save_weights(self, ids: Tensor) -> None:
        rows = torch.tensor(sorted(set(ids.flatten().tolist()) | {IMG, QUERY, PAD, IMAGE_PAD}))
        tensors = {"w_rows.ids": rows, "w_rows.embed_tokens": self.vlm.get_input_embeddings().weight[rows]}
        for name, value in self.vlm.model.state_dict().items():
            if "embed_tokens" not in name:
                tensors["w." + name.replace("language_model.", "model.", 1)] = value
        tensors["w.model.latent_queries"] = self.queries
        tensors |= {f"w.model.dit.model.{k}": v for k, v in self.dit.weights().items()}
        save(self.folder / "weights.safetensors", tensors, {"kind": "weights", "config": self.metadata["config"]})

    def embed(self, ids: Tensor, pixels: Tensor | None, grid: Tensor | None) -> Tensor:
        embeddings = self.vlm.get_input_embeddings()(ids).detach()
        if pixels is not None:
            features = self.vlm.model.visual(pixels, grid_thw=grid).pooler_output.detach()
            embeddings[ids == IMAGE_PAD] = features
        places = (ids == QUERY)[..., None]
        return torch.where(places, embeddings.masked_scatter(places, self.queries.expand(len(ids), -1, -1)), embeddings)

    def hidden(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        positions = torch.arange(embeddings.shape[1]).expand(3, len(embeddings), -1)
        return self.vlm.model.language_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state

    def pictures(self, count: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(6)
        return torch.randn(count * 24, 3 * 2 * 7 * 7, generator=g), torch.tensor([[1, 4, 6]]).repeat(count, 1)

    def prompts(self, lengths: list[int], with_pictures: bool) -> list[Tensor]:
        g = torch.Generator().manual_seed(7)
        rows = [torch.randint(0, 900, (n,), generator=g) for n in lengths]
        picture = torch.tensor([151652, *[IMAGE_PAD] * 6, 151653])
        return [torch.cat([r[:3], picture, r[3:]]) if with_pictures else r for r in rows]


def write_train(folder: Path, with_pictures: bool, *, pixel_values: bool = False, shape: str = "rows") -> Path:
    model = ReferenceModel(folder)
    prompts = model.prompts([5, 23, 9], with_pictures)
    tail = torch.tensor([IMG, *[QUERY] * model.n_query])
    ids = nn.utils.rnn.pad_sequence([torch.cat([p, tail]) for p in prompts], batch_first=True, padding_value=PAD)
    labels = torch.where((ids == IMG) | (ids == QUERY), ids, -100)
    mask = (ids != PAD).long()
    starts = torch.tensor([len(p) + 1 for p in prompts])
    model.save_weights(ids)
    tensors = {"in.input_ids": ids, "in.labels": labels, "in.attention_mask": mask, "in.i_s_pos": starts}
    pixels = grid = None
    if with_pictures:
        pixels, grid = model.pictures(3)
        if pixel_values:
            tensors |= {"in.pixel_values": pixels, "in.image_grid_thw": grid}
        else:
            tensors |= {"in.und_image": pixels.reshape(3, 24, -1), "in.grid_thw": grid}
    g = torch.Generator().manual_seed(8)
    target = torch.randn(3, 6, 6, 6, generator=g)
    noise, u = torch.randn(3, 6, 6, 6, generator=g), torch.rand(3, generator=g)
    drop = torch.tensor([0.0, 1.0, 0.0])
    embeddings = model.embed(ids, pixels, grid)
    states = model.hidden(embeddings, mask)
    query_hidden = torch.stack([row[s : s + model.n_query] for row, s in zip(states, starts, strict=True)])
    condition = query_hidden * (1 - drop)[:, None, None]
    scheduler = FlowMatchEulerDiscreteScheduler(1000, shift=1.0)
    timesteps = scheduler.timesteps[(u * 1000).long()]
    sigma = scheduler.sigmas[(u * 1000).long()][:, None, None, None]
    noisy = (1 - sigma) * target + sigma * noise
    pred = model.dit(noisy, timesteps, condition)
    loss = (pred - (noise - target)).square().mean()
    loss.backward()
    tensors |= {
        "in.clip_target_nchw": target, "rng.u": u, "rng.noise": noise, "rng.drop": drop,
        "aux.query_hidden": query_hidden, "act.inputs_embeds": embeddings, "act.timesteps": timesteps,
        "act.noisy_latents": noisy, "act.dit_condition_after_drop": condition, "act.dit_pred": pred,
        "out.loss": loss.reshape(1), "out.grad.latent_queries": model.queries.grad,
        "out.grad.model.dit.model.layers.0.attn2.to_k.weight": model.dit.inner.layers[0].attn2.to_k.weight.grad,
        "out.grad.model.layers.1.gate": model.dit.inner.layers[1].gate.grad,
    }  # fmt: skip
    return save(folder / "train.safetensors", tensors, {"kind": "train", **model.metadata})


def write_generate(folder: Path, with_pictures: bool, steps: int = 30) -> Path:
    model = ReferenceModel(folder, n_kv_heads=6)
    ids = model.prompts([12], with_pictures)[0][None]
    model.save_weights(ids)
    pixels = grid = None
    tensors = {"in.input_ids_before_img_token": ids}
    if with_pictures:
        pixels, grid = model.pictures(1)
        tensors |= {"in.pixel_values": pixels, "in.image_grid_thw": grid}
    full = torch.cat([ids, torch.tensor([[IMG, *[QUERY] * model.n_query]])], dim=1)
    noise = torch.randn(1, 6, 6, 6, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        hidden = model.hidden(model.embed(full, pixels, grid), torch.ones_like(full))[:, -model.n_query :]
        scheduler = FlowMatchEulerDiscreteScheduler(1000, shift=1.0)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        x, both = noise, torch.cat([torch.zeros_like(hidden), hidden])
        first = None
        latents = []
        for t in scheduler.timesteps:
            latents.append(x)
            pred = model.dit(torch.cat([x, x]), t.long().expand(2), both)
            first = pred if first is None else first
            null, cond = pred.chunk(2)
            x = scheduler.step(null + 3.0 * (cond - null), t, x, return_dict=False)[0]
    tensors |= {
        "rng.init_noise": noise, "act.query_hidden": hidden, "aux.sigmas": scheduler.sigmas,
        "aux.timesteps": scheduler.timesteps, "aux.dit_timestep_as_long": scheduler.timesteps.long(),
        "aux.first_step_pred_uncond_cond": first, "out.sample_nchw": x,
        "out.clip_tokens": x.flatten(2).transpose(1, 2),
        f"aux.latents_before_step_1_2_{steps}": torch.cat([latents[0], latents[1], latents[-1]]),
    }  # fmt: skip
    return save(folder / "generate.safetensors", tensors, {"kind": "generate", **model.metadata})


# Tests


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_upstream_recordings_are_reproduced(path: Path) -> None:
    report = replay_file(path)
    assert report.failures == {}
    recorded = [k for k in load_file(path) if not k.startswith(("in.", "rng.", "w.", "w_rows.", "trunc.in."))]
    assert sorted(report.differences) == sorted(recorded)


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_kv_heads": 6, "patch_size": 1}, {"n_kv_heads": 1}, {"patch_size": 4, "n_kv_heads": 3}, {"dim": 72}],
    ids=str,
)
def test_transformers_of_other_sizes_are_reproduced(tmp_path: Path, changes: dict[str, Any]) -> None:
    report = replay_file(write_dit(tmp_path / "dit.safetensors", **changes))
    assert report.failures == {}
    assert len(report.differences) == 7


@pytest.mark.parametrize(
    ("with_pictures", "pixel_values"), [(False, False), (True, False), (True, True)], ids=["text", "image", "pixels"]
)
def test_training_forwards_of_other_sizes_are_reproduced(
    tmp_path: Path, with_pictures: bool, pixel_values: bool
) -> None:
    report = replay_file(write_train(tmp_path, with_pictures, pixel_values=pixel_values))
    assert report.failures == {}
    assert len(report.differences) == 10


@pytest.mark.parametrize(("with_pictures", "steps"), [(False, 7), (True, 30)])
def test_sampling_of_other_sizes_is_reproduced(tmp_path: Path, with_pictures: bool, steps: int) -> None:
    report = replay_file(write_generate(tmp_path, with_pictures, steps))
    assert report.failures == {}
    assert len(report.differences) == 8


def altered(tmp_path: Path, name: str, key: str, change: Any) -> Path:
    """A copy of a recording with one tensor changed."""
    from safetensors import safe_open

    with safe_open(GOLDEN / name, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(GOLDEN / name)
    tensors[key] = change(tensors.get(key))
    return save(tmp_path / name, tensors, metadata)


def test_command_prints_a_line_per_file_and_the_worst(tmp_path: Path) -> None:
    files = [GOLDEN / "collator.safetensors", GOLDEN / "eva_clip_tiny.safetensors"]
    result = CliRunner().invoke(main, ["parity", *map(str, files)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("9 tensors compared, max ")
    assert ", at " in lines[-1] and ".safetensors:" in lines[-1]


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("out.labels", lambda t: t + (torch.arange(t.numel()).reshape(t.shape) == 5), "differs by 1"),
        ("out.mystery", lambda _: torch.zeros(2), "cannot be replayed"),
        ("strange", lambda _: torch.zeros(2), "cannot be replayed"),
        ("out.i_s_pos", lambda t: t.reshape(1, 2), "shape"),
    ],
)
def test_a_tensor_that_differs_or_cannot_be_replayed_fails(
    tmp_path: Path, key: str, change: Any, reason: str
) -> None:
    path = altered(tmp_path, "collator.safetensors", key, change)
    result = CliRunner().invoke(main, ["parity", str(path)])
    assert result.exit_code == 1
    assert key in result.stdout and reason in result.stdout


def test_a_float_beyond_the_tolerance_or_not_finite_fails(tmp_path: Path) -> None:
    for value in (2e-5, float("nan"), float("inf")):
        path = altered(tmp_path, "eva_clip_tiny.safetensors", "out.pooled_nchw", lambda t, v=value: t + v)
        assert list(replay_file(path).failures) == ["out.pooled_nchw"]
    path = altered(tmp_path, "eva_clip_tiny.safetensors", "out.pooled_nchw", lambda t: t + 5e-6)
    assert replay_file(path).failures == {}


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not safetensors at all"])
def test_unreadable_files_fail_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["parity", str(path), str(tmp_path / "missing.safetensors")])
    assert result.exit_code == 1
    assert "is not a safetensors file" in result.stdout and "does not exist" in result.stdout
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_missing_inputs_and_unknown_kinds_fail(tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "dit_mha.safetensors")
    config = {"kind": "dit", "config": dit_sizes()}
    del tensors["in.x"]
    assert "in.x" in replay_file(save(tmp_path / "a.safetensors", tensors, config)).failures["replay"]
    report = replay_file(save(tmp_path / "b.safetensors", tensors, {"kind": "vae"}))
    assert "unknown" in report.failures["kind"]
