"""Sizes of ``nano``'s parts as values. Importing this module does not import torch."""

from __future__ import annotations

from typing import Any

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 192, "layers": 5, "head_width": 48},
    "text_cfg": {"context_length": 32, "vocab_size": 513, "width": 160, "heads": 4, "layers": 3},
}
VOCAB_SIZE = 1024
CLIP_VOCAB_SIZE = 512
FEATURE_CHANNELS = 32
QUERY_SD = 3.0
QUERIES = 16
IMAGE_TOKENS = 16
# The language model and vision tower of Qwen2.5-VL in small; ids of tokens join them in ``nano_parts``.
BACKBONE_TEXT: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
    "bos_token_id": None,
    "tie_word_embeddings": True,
}
BACKBONE_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 160,
    "intermediate_size": 256,
    "num_heads": 4,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 64,
    "out_hidden_size": 256,
    "fullatt_block_indexes": [0, 1, 2],
}
DIT_CONFIG: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": FEATURE_CHANNELS,
    "dim": 256,
    "num_layers": 6,
    "num_heads": 4,
    "ffn_dim": 384,
    "condition_dim": 256,
}
FLOW_CONFIG: dict[str, Any] = {
    "sigma_rule": "logit_normal",
    "logit_mean": 0.4,
    "condition_dropout": 0.1,
    "num_inference_steps": 20,
    "guidance_scale": 2.5,
}
DECODER_CONFIG: dict[str, Any] = {
    "image_size": 64,
    "feature_channels": FEATURE_CHANNELS,
    "feature_size": 8,
    "unshuffle": 2,
    "block_out_channels": (64, 96, 128),
    "layers_per_block": 1,
    "norm_groups": 32,
}

FOLDED_CHANNELS = 3 * DECODER_CONFIG["unshuffle"] ** 2
