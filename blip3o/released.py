"""The released checkpoints: their parameter names and configuration keys, mapped to ours.

Sources: JiuhaiChen/BLIP3o at 4689ec3; hub BLIP3o/BLIP3o-Model-4B and -8B.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from blip3o.config import Blip3oConfig, FlowConfig, TokenConfig
from blip3o.dit import DiTConfig
from blip3o.errors import ConfigError, WeightsError

MODEL_TYPES = ("blip3o_qwen", "blip3o_qwen_inference")

# Prefix in the released files -> prefix in Blip3oModel. The first match counts; None is left out on purpose.
_PREFIXES: tuple[tuple[str, str | None], ...] = (
    # The target encoder may have been saved with a training run; generation does not need it.
    ("model.gen_vision_tower.", None),
    ("model.mm_projector.", None),
    ("model.gen_projector.", None),
    ("model.down_projector.", None),
    ("model.dit.model.pad_token", None),
    ("model.dit.model.", "dit."),
    ("model.latent_queries", "queries.latent_queries"),
    ("model.visual.", "backbone.vlm.model.visual."),
    ("visual.", "backbone.vlm.model.visual."),
    ("model.language_model.", "backbone.vlm.model.language_model."),
    ("model.embed_tokens.", "backbone.vlm.model.language_model.embed_tokens."),
    ("model.layers.", "backbone.vlm.model.language_model.layers."),
    ("model.norm.", "backbone.vlm.model.language_model.norm."),
    ("lm_head.", "backbone.vlm.lm_head."),
)

# Keys of a released config.json that are not Qwen2.5-VL's own.
_OWN_KEYS = (
    "gen_vision_tower", "vision_tower_pretrained", "gen_hidden_size", "n_query", "gen_pooling", "use_mm_proj",
    "mm_projector_type", "gen_projector_type", "mm_vision_select_layer", "mm_vision_select_feature",
    "mm_patch_merge_type", "image_aspect_ratio", "tokenizer_padding_side", "tokenizer_model_max_length",
    "mm_use_im_start_end", "mm_use_im_patch_token", "tune_mm_mlp_adapter", "freeze_mm_mlp_adapter",
    "mm_projector_lr", "n_und_query", "auto_map",
)  # fmt: skip


def map_name(name: str) -> str | None:
    """Our name of a released parameter; None for parts that are not used. Raises: WeightsError."""
    for prefix, ours in _PREFIXES:
        if name.startswith(prefix):
            return None if ours is None else ours + name[len(prefix) :]
    raise WeightsError(f"{name} is not a parameter of a released BLIP3-o checkpoint")


def map_names(names: Iterable[str]) -> dict[str, str]:
    """Released name -> our name, without the parts that are not used."""
    mapped = {name: map_name(name) for name in names}
    return {name: ours for name, ours in mapped.items() if ours is not None}


def key_mapping() -> dict[str, str]:
    """The same as regular expressions, for transformers' loader; parts that are not used keep their names."""
    return {"^" + re.escape(prefix): ours for prefix, ours in _PREFIXES if ours is not None}


def is_unused(name: str) -> bool:
    """Whether a released parameter is one of those left out on purpose."""
    return any(name.startswith(prefix) for prefix, ours in _PREFIXES if ours is None)


def map_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors under our names."""
    return {ours: tensors[name] for name, ours in map_names(tensors).items()}


def config_from_released(values: Mapping[str, Any]) -> Blip3oConfig:
    """Our configuration from a released config.json, which stores no size of the diffusion transformer.

    Raises: ConfigError if the file is of another model or lacks the keys of the generation side.
    """
    if values.get("model_type") not in MODEL_TYPES:
        raise ConfigError(
            f"model_type {values.get('model_type')!r} is not a released BLIP3-o; expected {' or '.join(MODEL_TYPES)}"
        )
    if "gen_vision_tower" not in values:
        raise ConfigError(
            "the released config.json names no gen_vision_tower: it has no generation side"
        )
    backbone = {
        key: value
        for key, value in values.items()
        if key not in _OWN_KEYS
        and key not in ("architectures", "model_type", "torch_dtype", "dtype")
    }
    hidden = (backbone.get("text_config") or backbone)["hidden_size"]
    dit = DiTConfig(in_channels=values.get("gen_hidden_size", 1792), condition_dim=hidden)
    return Blip3oConfig(
        backbone_config={**backbone, "model_type": "qwen2_5_vl"},
        num_queries=values.get("n_query", 64),
        dit_config=asdict(dit),
        flow_config=asdict(FlowConfig()),
        token_config=asdict(TokenConfig()),
    )
