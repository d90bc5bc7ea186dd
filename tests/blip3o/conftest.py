"""Folders as the released models have them: documented names and shapes, and a tiny one with recorded weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from blip3o.presets import released_config_values


def documented_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released checkpoint, written out from upstream's modules and Qwen's public configs."""
    values = released_config_values(name)
    hidden, wide = values["hidden_size"], values["intermediate_size"]
    kv, dim, ffn, temb = values["num_key_value_heads"] * 128, 1792, 4864, 1024
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def vectors(width: int, *names: str) -> None:
        shapes.update({name: (width,) for name in names})

    shapes["model.embed_tokens.weight"] = (151668, hidden)
    shapes["model.latent_queries"] = (1, 64, hidden)
    if name == "blip3o-8b":  # the 4B ties its text head to the embeddings
        shapes["lm_head.weight"] = (151668, hidden)
    vectors(hidden, "model.norm.weight")
    for n in range(values["num_hidden_layers"]):
        at = f"model.layers.{n}"
        linear(f"{at}.self_attn.q_proj", hidden, hidden)
        linear(f"{at}.self_attn.k_proj", kv, hidden)
        linear(f"{at}.self_attn.v_proj", kv, hidden)
        linear(f"{at}.self_attn.o_proj", hidden, hidden, bias=False)
        linear(f"{at}.mlp.gate_proj", wide, hidden, bias=False)
        linear(f"{at}.mlp.up_proj", wide, hidden, bias=False)
        linear(f"{at}.mlp.down_proj", hidden, wide, bias=False)
        vectors(hidden, f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight")
    shapes["visual.patch_embed.proj.weight"] = (1280, 3, 2, 14, 14)
    for n in range(32):
        at = f"visual.blocks.{n}"
        vectors(1280, f"{at}.norm1.weight", f"{at}.norm2.weight")
        linear(f"{at}.attn.qkv", 3840, 1280)
        linear(f"{at}.attn.proj", 1280, 1280)
        linear(f"{at}.mlp.gate_proj", 3420, 1280)
        linear(f"{at}.mlp.up_proj", 3420, 1280)
        linear(f"{at}.mlp.down_proj", 1280, 3420)
    vectors(1280, "visual.merger.ln_q.weight")
    linear("visual.merger.mlp.0", 5120, 5120)
    linear("visual.merger.mlp.2", hidden, 5120)
    dit = "model.dit.model"
    linear(f"{dit}.caption_projection.linear_1", dim, hidden)
    linear(f"{dit}.caption_projection.linear_2", dim, dim)
    linear(f"{dit}.patch_embedder.proj", dim, 1792)
    linear(f"{dit}.time_caption_embed.timestep_embedder.linear_1", temb, 256)
    linear(f"{dit}.time_caption_embed.timestep_embedder.linear_2", temb, temb)
    vectors(dim, *(f"{dit}.time_caption_embed.caption_embedder.0.{p}" for p in ("weight", "bias")))
    linear(f"{dit}.time_caption_embed.caption_embedder.1", temb, dim)
    for n in range(24):
        at = f"{dit}.layers.{n}"
        vectors(28, f"{at}.gate")
        for attention in (f"{at}.attn1", f"{at}.attn2"):
            vectors(dim, *(f"{attention}.norm_{x}.{p}" for x in "qk" for p in ("weight", "bias")))
            for projection in "qkv":
                linear(f"{attention}.to_{projection}", dim, dim, bias=False)
        linear(f"{at}.attn2.to_out.0", dim, dim, bias=False)
        linear(f"{at}.feed_forward.linear_1", ffn, dim, bias=False)
        linear(f"{at}.feed_forward.linear_2", dim, ffn, bias=False)
        linear(f"{at}.feed_forward.linear_3", ffn, dim, bias=False)
        linear(f"{at}.norm1.linear", 4 * dim, temb)
        norms = ("norm1.norm", "norm2", "ffn_norm1", "ffn_norm2", "norm1_context")
        vectors(dim, *(f"{at}.{norm}.weight" for norm in norms))
    linear(f"{dit}.norm_out.linear_1", dim, temb)
    linear(f"{dit}.norm_out.linear_2", 1792, dim)
    return shapes


def new_spelling(name: str) -> str:
    """The name of a released tensor in the layout of transformers 4.52 and later."""
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith(("model.embed_tokens.", "model.layers.", "model.norm.")):
        return name.replace("model.", "model.language_model.", 1)
    return name


def write_hollow_shards(folder: Path, shapes: dict[str, tuple[int, ...]], shards: int = 4) -> None:
    """Safetensors shards whose tensors are holes in the file: of full length, but taking no room on the disk."""
    names, weight_map = sorted(shapes), {}
    per_shard = -(-len(names) // shards)
    for k in range(shards):
        file_name, header, end = f"model-{k + 1:05d}-of-{shards:05d}.safetensors", {}, 0
        for name in names[k * per_shard : (k + 1) * per_shard]:
            begin, end = end, end + 2 * prod(shapes[name])
            header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [begin, end]}
            weight_map[name] = file_name
        encoded = json.dumps(header).encode()
        with (folder / file_name).open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(8 + len(encoded) + end)
    write_index(folder, weight_map)


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    values = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(values))


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 3) -> None:
    """The tensors over several files with an index, as the hub has them."""
    names, weight_map = sorted(tensors), {}
    for k in range(shards):
        file_name = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[k::shards]}
        save_file(part, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    write_index(folder, weight_map)


@pytest.fixture(scope="session")
def recorded_weights() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Sizes and parameters of the tiny model that upstream's own modules were recorded with."""
    path = Path(__file__).parents[1] / "golden" / "blip3o" / "tiny_model_weights.safetensors"
    with safe_open(path, framework="pt") as file:
        sizes = json.loads(file.metadata()["config"])
    tensors = load_file(path)
    rows, ids = tensors.pop("w_rows.embed_tokens"), tensors.pop("w_rows.ids")
    weights = {name.removeprefix("w."): tensor for name, tensor in tensors.items()}
    weights["model.embed_tokens.weight"] = torch.zeros(sizes["llm"]["vocab_size"], rows.shape[1])
    weights["model.embed_tokens.weight"][ids] = rows
    weights["lm_head.weight"] = torch.zeros_like(weights["model.embed_tokens.weight"])
    return sizes, weights


@pytest.fixture(scope="session")
def released_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tokenizer of 151,668 tokens, the special ones where the released tokenizer has them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    special = {
        151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151652: "<|vision_start|>",
        151653: "<|vision_end|>", 151655: "<|image_pad|>", 151656: "<|video_pad|>",
        151665: "[IMG]", 151666: "[/IMG]", 151667: "<image>",
    }  # fmt: skip
    vocabulary = {special.get(i, str(i)): i for i in range(151668)}
    model = Tokenizer(WordLevel(vocabulary, unk_token="0"))
    model.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=[t for i, t in special.items() if i not in (151643, 151645)],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def released_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``diffusion-decoder`` as it is on the hub, small."""
    folder = tmp_path_factory.mktemp("decoder")
    build_released_decoder(16).save_pretrained(folder)
    (folder / "config.json").unlink()
    (folder / "model_index.json").write_text('{"_class_name": "EmuVisualGenerationPipeline"}')
    (folder / "pipeline_llava_gen.py").write_text("raise SystemExit('never run')\n")
    for part in ("unet", "vae"):
        file = folder / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    return folder


def build_released_decoder(channels: int) -> Any:
    """A small decoder of the released kind: SDXL-type UNet with two levels, VAE of factor 2, 16 px pictures."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from blip3o.latent_decoder import LatentDecoder

    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=channels, attention_head_dim=(2, 4), use_linear_projection=True, norm_num_groups=8,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=channels + 48,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, scaling_factor=0.13025,
    )  # fmt: skip
    return LatentDecoder(unet, vae).eval()


@pytest.fixture
def write_released(recorded_weights, released_tokenizer, released_decoder) -> Callable[..., Path]:
    """Writes the tiny recorded model as a folder of the released layout."""

    def write(
        folder: Path, *, is_sharded: bool = True, has_decoder: bool = True, has_eva: bool = True,
        is_new: bool = False, **changes: Any,
    ) -> Path:  # fmt: skip
        sizes, weights = recorded_weights
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            **sizes["llm"], "vision_config": sizes["vision"], "model_type": "blip3o_qwen",
            "architectures": ["blip3oQwenForCausalLM"], "torch_dtype": "bfloat16", "transformers_version": "4.51.3",
            "gen_vision_tower": "eva-clip-E-14-plus", "vision_tower_pretrained": "", "gen_hidden_size": 16,
            "n_query": 64, "gen_pooling": "early_pool2d_4", "use_mm_proj": True, "mm_projector_type": "linear",
            "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_patch_merge_type": "flat",
            "image_aspect_ratio": "square", "tokenizer_padding_side": "right", "tokenizer_model_max_length": 512,
            "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "tune_mm_mlp_adapter": False,
            "freeze_mm_mlp_adapter": False, "mm_projector_lr": None, "pad_token_id": 151643, **changes,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {new_spelling(k) if is_new else k: v for k, v in weights.items()}
        if has_eva:
            tensors["model.gen_vision_tower.vision_tower.model.cls_token"] = torch.zeros(1, 1, 4)
        if is_sharded:
            write_shards(folder, tensors)
        else:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        shutil.copytree(released_tokenizer, folder, dirs_exist_ok=True)
        if has_decoder:
            shutil.copytree(released_decoder, folder / "diffusion-decoder")
        return folder

    return write


@pytest.fixture
def hollow_released(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of a real size whose tensors are holes."""

    def write(name: str, is_new: bool = False, **changes: tuple[int, ...]) -> Path:
        shapes = documented_shapes(name) | changes
        shapes = {new_spelling(key) if is_new else key: shape for key, shape in shapes.items()}
        write_hollow_shards(tmp_path, shapes)
        (tmp_path / "config.json").write_text(json.dumps(released_config_values(name)))
        return tmp_path

    return write
