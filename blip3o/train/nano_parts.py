"""``nano``'s backbone and the start of its generator: what its recipe and the study of designs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from blip3o.backbone import QwenBackbone
from blip3o.config import Blip3oConfig
from blip3o.dit import DiTBlock
from blip3o.train.nano_config import (
    BACKBONE_TEXT,
    BACKBONE_VISION,
    DIT_CONFIG,
    FLOW_CONFIG,
    QUERIES,
    QUERY_SD,
)
from blip3o.train.tokenizer import EOS, IMAGE_END, IMAGE_START, PAD, QUERY
from blip3o.unified import Blip3oModel
from blip3o.vision.preprocess import qwen_patches
from blip3o.vision.window_attention import batch_equal_windows


def backbone_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL in small: 64 px pictures are 8x8 patches, merged 2x2 to 16 tokens."""
    ids: dict[str, Any] = {
        token: tokenizer.convert_tokens_to_ids(token)
        for token in (
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_start|>",
            "<|vision_end|>",
            PAD,
            EOS,
        )
    }
    return Qwen2_5_VLConfig(
        text_config={
            **BACKBONE_TEXT,
            "vocab_size": len(tokenizer),
            "eos_token_id": ids[EOS],
            "pad_token_id": ids[PAD],
        },
        vision_config=dict(BACKBONE_VISION),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_backbone(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The backbone with random weights."""
    torch.manual_seed(seed)
    backbone = Qwen2_5_VLForConditionalGeneration(backbone_config(tokenizer))
    batch_equal_windows(backbone.model.visual)
    return backbone


def model_config(
    tokenizer: PreTrainedTokenizerBase, *, num_queries: int = QUERIES, **settings: Any
) -> Blip3oConfig:
    """The whole model's configuration; ``settings`` replace those of Blip3oConfig (target, objective, dit_config)."""
    values: dict[str, Any] = {"dit_config": DIT_CONFIG, "flow_config": FLOW_CONFIG, **settings}
    return Blip3oConfig(
        backbone_config={"model_type": "qwen2_5_vl", **backbone_config(tokenizer).to_dict()},
        num_queries=num_queries,
        token_config={
            "image_start": tokenizer.convert_tokens_to_ids(IMAGE_START),
            "image_end": tokenizer.convert_tokens_to_ids(IMAGE_END),
            "query": tokenizer.convert_tokens_to_ids(QUERY),
        },
        **values,
    )


def vlm_of(model: Blip3oModel) -> Qwen2_5_VLForConditionalGeneration:
    """The backbone of such a model as transformers knows it."""
    assert isinstance(model.backbone, QwenBackbone)
    return model.backbone.vlm


def word_spread(backbone: Qwen2_5_VLForConditionalGeneration) -> Tensor:
    """Standard deviation of the word embeddings, ()."""
    words = backbone.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    return words.weight.std()


@torch.no_grad()
def start_queries(model: Blip3oModel, seed: int | None = None) -> None:
    """Draw the queries at three times the embeddings' standard deviation.

    Drawn from N(0, 1), as in the released models, they drown this small backbone's embeddings: only 1 % of the variance
    of their states comes from the prompt; so, 20 %. ``seed`` None goes on in torch's own stream.
    """
    if seed is not None:
        torch.manual_seed(seed)
    spread = word_spread(vlm_of(model)).item()
    nn.init.normal_(model.queries.latent_queries, std=QUERY_SD * spread)


@torch.no_grad()
def open_gates(model: Blip3oModel) -> None:
    """Start with cross-attention and both branches of every block switched on.

    The released models start with cross-attention off (gate 0) and branches almost off. At this scale that costs the
    whole budget: after 1,600 steps tanh(gate) was 0.1, and the picture followed the layout of the prompt only.
    """
    for block in model.dit.layers:
        assert isinstance(block, DiTBlock)
        block.gate.fill_(1.5)
        _, gate_attention, _, gate_ffn = block.norm1.linear.bias.chunk(4)
        gate_attention += 1.0
        gate_ffn += 1.0


def compile_layers(backbone: Qwen2_5_VLForConditionalGeneration) -> None:
    """Compile the language model's layers for sequences of any length."""
    # layers share one code object: its limit counts each layer, with and without gradients
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    text: Any = backbone.model.language_model
    for layer in text.layers:
        layer.compile(dynamic=True)


def patches_for(
    backbone: Qwen2_5_VLForConditionalGeneration,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Pictures (B, 3, S, S) -> the rows of patches and the grid that the backbone's vision tower takes."""
    vision: Any = backbone.config.vision_config
    return lambda pixels: qwen_patches(
        pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    )


@torch.no_grad()
def scale_picture_tokens(
    backbone: Qwen2_5_VLForConditionalGeneration, pixels: Tensor
) -> None:
    """Bring the vision tower's tokens, by its last layer, to the standard deviation of the word embeddings.

    A tower that was taught by another tower speaks at that one's scale: 1.8 against 0.09 of the words, and the
    residual stream of a small language model then hardly changes them.
    """
    rows, grid = patches_for(backbone)(pixels)
    tokens = backbone.model.visual(rows, grid_thw=grid).pooler_output
    tokens = tokens if isinstance(tokens, Tensor) else torch.cat(list(tokens))
    factor = word_spread(backbone) / tokens.std()
    last = backbone.model.visual.merger.mlp[2]
    last.weight.mul_(factor)
    last.bias.mul_(factor)
