"""Named models as values. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip3o.errors import WeightsError

if TYPE_CHECKING:
    from blip3o.pipeline import Blip3oPipeline


@dataclass(frozen=True)
class Preset:
    """``bundled``: folder inside the package; ``hub_id``: weights on the hub; neither: random weights."""

    name: str
    text: str
    bundled: str | None = None
    hub_id: str | None = None


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("nano", "trained on sticker scenes, bundled", bundled="weights/nano"),
        Preset("tiny", "random weights, for tests"),
        Preset("tiny-clip-mse", "random: features by regression"),
        Preset("tiny-clip-mse-dit", "random: regression by the same transformer as tiny"),
        Preset("tiny-vae-flow", "random: VAE latents as target"),
        Preset("tiny-llama", "random: Llama backbone"),
        Preset("tiny-qwen3-siglip2", "random: Qwen3 backbone with a SigLIP2 tower"),
        Preset("blip3o-4b", "the released 4B", hub_id="BLIP3o/BLIP3o-Model-4B"),
        Preset("blip3o-8b", "the released 8B", hub_id="BLIP3o/BLIP3o-Model-8B"),
    )
}


def preset_folder(name: str) -> Path:
    """Folder of a bundled preset. Raises: WeightsError if it is not installed."""
    preset = PRESETS[name]
    folder = Path(__file__).parent / (preset.bundled or "")
    if preset.bundled is None or not (folder / "config.json").is_file():
        raise WeightsError(
            f"the bundled weights {folder} are missing; install blip3o-eval again, or rebuild them with "
            f"`blip3o train {name}`"
        )
    return folder


def unknown_preset(name: str) -> WeightsError:
    """The error for a name that is no preset, folder or hub id."""
    close = get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"presets: {', '.join(PRESETS)}"
    return WeightsError(f"{name!r} is no preset, folder or hub id (owner/name); {hint}")


# Sizes of the two public backbones, as their config.json gives them.
_QWEN_COMMON: dict[str, Any] = {
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
    "vision_end_token_id": 151653, "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu",
    "initializer_range": 0.02, "max_position_embeddings": 128000, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "use_sliding_window": False, "vocab_size": 151668,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}  # fmt: skip
_QWEN_VISION: dict[str, Any] = {
    "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
    "in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
    "spatial_patch_size": 14, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
}  # fmt: skip
_QWEN_SIZES: dict[str, dict[str, Any]] = {
    "blip3o-4b": {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "max_window_layers": 70, "tie_word_embeddings": True,
    },
    "blip3o-8b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "max_window_layers": 28, "tie_word_embeddings": False,
    },
}  # fmt: skip


# Sizes of public language models and towers that a model can be built on, as their config.json gives them.
_ROPE = {"rope_type": "default"}
BACKBONES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_parameters": {**_ROPE, "rope_theta": 100000.0},
    },
    # The backbone of the paper's ablation.
    "llama-3.2-1b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "tie_word_embeddings": True, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "high_freq_factor": 4.0,
            "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
        },
    },
    # Upstream's branch Qwen3-Siglip2: 512 px pictures are 1,024 tokens.
    "qwen3-1.7b-siglip2": {
        "model_type": "text_vision",
        "text_config": {
            "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "tie_word_embeddings": True, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
            "rope_parameters": {**_ROPE, "rope_theta": 1000000.0},
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 512, "patch_size": 16,
        },
        "image_token_id": 151671,
    },
}  # fmt: skip


def released_config_values(name: str) -> dict[str, Any]:
    """What the config.json of a released model says of its sizes."""
    size = _QWEN_SIZES[name]
    return {
        **_QWEN_COMMON,
        **size,
        "model_type": "blip3o_qwen",
        "architectures": ["blip3oQwenForCausalLM"],
        "vision_config": {**_QWEN_VISION, "out_hidden_size": size["hidden_size"]},
        "gen_vision_tower": "eva-clip-E-14-plus",
        "gen_hidden_size": 1792,
        "n_query": 64,
        "gen_pooling": "early_pool2d_4",
    }


def is_random(name: str) -> bool:
    """Whether a name is that of a preset with random weights."""
    preset = PRESETS.get(name)
    return preset is not None and preset.bundled is None and preset.hub_id is None


def build_tiny(seed: int = 0, name: str = "tiny") -> Blip3oPipeline:
    """A ``tiny`` pipeline: every part real and small, random weights, no files. It draws noise, not pictures."""
    import torch

    from blip3o.card import PipelineCard
    from blip3o.config import Blip3oConfig
    from blip3o.pipeline import Blip3oPipeline
    from blip3o.storage import quiet_transformers
    from blip3o.train.tokenizer import train_tokenizer
    from blip3o.unified import Blip3oModel
    from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD

    if not is_random(name):
        raise unknown_preset(name)
    tokenizer = train_tokenizer(["a photo of a dog", "You are a helpful assistant."], 300)
    ids = tokenizer.convert_tokens_to_ids
    config = Blip3oConfig(
        backbone_config=_tiny_backbone(name, tokenizer),
        num_queries=4,
        **_TINY_HEADS.get(name, _TINY_HEADS["tiny"]),
        flow_config={"num_inference_steps": 4, "guidance_scale": 2.0},
        token_config={
            "image_start": ids("[IMG]"),
            "image_end": ids("[/IMG]"),
            "query": ids("<image>"),
        },
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = Blip3oModel(config).eval()
        # Gates start at zero, and without them no prompt would reach the picture of a random model.
        for layer in getattr(model.get_submodule(model.network_name), "layers", ()):
            torch.nn.init.normal_(layer.gate)
        decoder = _tiny_decoder(config.target)
    size = {"size_px": 32, "mean": UNIT_MEAN, "std": UNIT_STD}
    return Blip3oPipeline(
        model, tokenizer, decoder, PipelineCard(is_random=True, understanding=size)
    )


_TINY_DIT: dict[str, Any] = {
    "input_size": 4, "patch_size": 2, "in_channels": 6, "dim": 32, "num_layers": 2, "num_heads": 4,
    "num_kv_heads": 2, "condition_dim": 32, "multiple_of": 16,
}  # fmt: skip
_TINY_HEADS: dict[str, dict[str, Any]] = {
    "tiny": {"dit_config": _TINY_DIT},
    "tiny-clip-mse": {"dit_config": _TINY_DIT, "objective": "mse", "head": "linear"},
    "tiny-clip-mse-dit": {"dit_config": _TINY_DIT, "objective": "mse"},
    # 32 px pictures as 8 x 8 latents of 4 channels
    "tiny-vae-flow": {
        "dit_config": {**_TINY_DIT, "input_size": 8, "in_channels": 4},
        "target": "vae",
    },
}


def _tiny_backbone(name: str, tokenizer: Any) -> dict[str, Any]:
    """Backbone configuration of a tiny preset."""
    ids = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "tie_word_embeddings": True,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e4}
    if name == "tiny-llama":
        return {**text, "model_type": "llama", "rope_parameters": rope}
    if name == "tiny-qwen3-siglip2":
        return {
            "model_type": "text_vision",
            "text_config": {**text, "model_type": "qwen3", "head_dim": 8, "rope_parameters": rope},
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
            },
            "image_token_id": ids("<|image_pad|>"),
        }  # fmt: skip
    return {
        "model_type": "qwen2_5_vl",
        "text_config": {**text, "rope_parameters": {**rope, "mrope_section": [1, 1, 2]}},
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 8, "spatial_merge_size": 2, "window_size": 32, "fullatt_block_indexes": [1],
        },
        "image_token_id": ids("<|image_pad|>"), "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>"),
        "tie_word_embeddings": True,
    }  # fmt: skip


def _tiny_decoder(target: str) -> Any:
    """32 px pictures from the features or latents of a tiny preset."""
    if target == "vae":
        from diffusers.models import AutoencoderKL

        from blip3o.vision.autoencoder import Autoencoder

        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4, latent_channels=4, sample_size=32,
        )  # fmt: skip
        return Autoencoder(vae).eval()
    from blip3o.decoder import FlowPixelDecoder, FlowPixelDecoderConfig

    return FlowPixelDecoder(
        FlowPixelDecoderConfig(
            image_size=32, feature_channels=6, feature_size=4, block_out_channels=(16, 16), norm_groups=8,
            sampling_steps=2,
        )
    ).eval()  # fmt: skip
