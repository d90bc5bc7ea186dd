"""The released checkpoints: their parameter names and configuration keys, mapped to ours and back.

Sources: JiuhaiChen/BLIP3o at 4689ec3; hub BLIP3o/BLIP3o-Model-4B and -8B. Names of the backbone come in two
spellings: that of transformers 4.51, which the released files have ("old"), and that of 4.52 and later ("new").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal

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


# transformers writes the parts of Qwen2.5-VL under their names of 4.51, in our own files, too.
_SPELLINGS = (
    ("backbone.vlm.visual.", "backbone.vlm.model.visual."),
    ("backbone.vlm.model.embed_tokens.", "backbone.vlm.model.language_model.embed_tokens."),
    ("backbone.vlm.model.layers.", "backbone.vlm.model.language_model.layers."),
    ("backbone.vlm.model.norm.", "backbone.vlm.model.language_model.norm."),
)


def current_name(name: str) -> str:
    """A name in a file of our own layout -> the name of the parameter, from either spelling."""
    for old, new in _SPELLINGS:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


# Prefix in Blip3oModel -> prefix in files of the released layout, by spelling.
Spelling = Literal["old", "new"]
_TO_RELEASED: dict[Spelling, tuple[tuple[str, str], ...]] = {
    "old": (
        ("backbone.vlm.model.visual.", "visual."),
        ("backbone.vlm.model.language_model.", "model."),
        ("backbone.vlm.lm_head.", "lm_head."),
        ("queries.latent_queries", "model.latent_queries"),
        ("dit.", "model.dit.model."),
    ),
    "new": (
        ("backbone.vlm.model.visual.", "model.visual."),
        ("backbone.vlm.model.language_model.", "model.language_model."),
        ("backbone.vlm.lm_head.", "lm_head."),
        ("queries.latent_queries", "model.latent_queries"),
        ("dit.", "model.dit.model."),
    ),
}


def unmap_name(name: str, spelling: Spelling = "old") -> str:
    """The released name of one of our parameters. Raises: WeightsError if the layout has no place for it."""
    for prefix, theirs in _TO_RELEASED[spelling]:
        if name.startswith(prefix):
            return theirs + name[len(prefix) :]
    raise WeightsError(f"{name} has no place in the released layout: it holds CLIP + flow models on Qwen2.5-VL")


def is_unused(name: str) -> bool:
    """Whether a released parameter is one of those left out on purpose."""
    return any(name.startswith(prefix) for prefix, ours in _PREFIXES if ours is None)


def map_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors under our names."""
    return {ours: tensors[name] for name, ours in map_names(tensors).items()}


def dit_config_from_shapes(
    shapes: Mapping[str, tuple[int, ...]], num_queries: int, channels: int
) -> DiTConfig:
    """Sizes of the diffusion transformer, which a released config.json does not store, off its tensors.

    Args: shapes: of tensors under our names. num_queries: the grid of tokens is taken to be the square they form, as
    in the released models (64 queries, 8 x 8 features). channels: of the features, which with the width of a patch
    row gives the patch size. Raises: WeightsError if a tensor that says a size is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if f"dit.{name}" not in shapes:
            raise WeightsError(f"the weights lack model.dit.model.{name}; they have no generation side")
        return shapes[f"dit.{name}"]

    dim, patch_row = shape("patch_embedder.proj.weight")
    (heads,) = shape("layers.0.gate")
    head_dim = dim // heads
    layers = {int(m[1]) for name in shapes if (m := re.match(r"dit\.layers\.(\d+)\.", name))}
    grid, patch = math.isqrt(num_queries), math.isqrt(patch_row // channels)
    if patch * patch * channels != patch_row:
        patch, channels = 1, patch_row  # the caller compares the channels
    return DiTConfig(
        input_size=patch * (grid if grid * grid == num_queries else DiTConfig().input_size),
        patch_size=patch,
        in_channels=channels,
        dim=dim,
        num_layers=max(layers) + 1,
        num_heads=heads,
        num_kv_heads=shape("layers.0.attn1.to_k.weight")[0] // head_dim,
        condition_dim=shape("caption_projection.linear_1.weight")[1],
        ffn_dim=shape("layers.0.feed_forward.linear_1.weight")[0],
        temb_dim=shape("time_caption_embed.timestep_embedder.linear_2.weight")[0],
        qk_norm="dit.layers.0.attn1.norm_q.weight" in shapes,
    )


def config_from_released(
    values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Blip3oConfig:
    """Our configuration from a released config.json, which stores no size of the diffusion transformer.

    Args: shapes: of the weights under our names; without them the sizes are those of the released models.
    Raises: ConfigError if the file is of another model, lacks the keys of the generation side, or names a width
    that the weights do not have.
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
    channels, num_queries = values.get("gen_hidden_size", 1792), values.get("n_query", 64)
    if shapes is None:
        dit = DiTConfig(in_channels=channels, condition_dim=hidden)
    else:
        dit = dit_config_from_shapes(shapes, num_queries, channels)
        for key, said, found in (
            ("gen_hidden_size", channels, dit.in_channels),
            ("hidden_size", hidden, dit.condition_dim),
        ):
            if said != found:
                raise ConfigError(
                    f"config.json says {key} {said}, the weights of the diffusion transformer are made for {found}; "
                    "the files are of different models"
                )
    return Blip3oConfig(
        backbone_config={**backbone, "model_type": "qwen2_5_vl"},
        num_queries=num_queries,
        dit_config=asdict(dit),
        flow_config=asdict(FlowConfig()),
        token_config=asdict(TokenConfig()),
    )


def config_to_released(config: Blip3oConfig) -> dict[str, Any]:
    """A config.json of the released layout, with the keys that upstream's code reads.

    Upstream stores no size of the diffusion transformer: its own loader builds the default one, ours reads the sizes
    off the weights. Raises: ConfigError for a variant that the layout cannot hold.
    """
    backbone = dict(config.backbone_config)
    if backbone.pop("model_type") != "qwen2_5_vl":
        raise ConfigError(
            f"backbone {config.backbone_config['model_type']!r} cannot be saved in the released layout; "
            "it holds qwen2_5_vl only"
        )
    text = dict(backbone.pop("text_config", {}))
    for key in ("model_type", "architectures", "dtype", "torch_dtype", "base_config_key"):
        text.pop(key, None)
    rope = text.pop("rope_parameters", None)
    if isinstance(rope, Mapping):  # transformers 5's one dict -> the two keys of 4.51
        text.setdefault("rope_theta", rope.get("rope_theta", 1e6))
        if "mrope_section" in rope:
            text.setdefault("rope_scaling", {"type": "mrope", "mrope_section": list(rope["mrope_section"])})
    return {
        **text,
        **backbone,
        "model_type": MODEL_TYPES[0],
        "architectures": ["blip3oQwenForCausalLM"],
        "gen_vision_tower": "eva-clip-E-14-plus",
        "gen_hidden_size": config.dit.in_channels,
        "n_query": config.num_queries,
        "gen_pooling": "early_pool2d_4",
        "mm_projector_type": "linear",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "square",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }


# Hidden size of the backbone -> its name and the licence it is published under.
_LICENCES = {
    2048: ("Qwen2.5-VL-3B-Instruct", "Qwen Research licence, which allows no commercial use"),
    3584: ("Qwen2.5-VL-7B-Instruct", "Apache-2.0"),
}


def backbone_licence(config: Blip3oConfig) -> str | None:
    """What a released model inherits from its backbone, in one line; None for sizes that were not released."""
    if config.backbone_config["model_type"] != "qwen2_5_vl" or config.dit.dim != DiTConfig().dim:
        return None
    found = _LICENCES.get(config.dit.condition_dim)
    return None if found is None else f"backbone {found[0]}: {found[1]}"
