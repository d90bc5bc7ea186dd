"""How much arithmetic each stage needs: formulas, checked against a counter in the tests.

A multiplication and an addition are two operations; attention counts the whole square. Divided by what a device can
do these are the least times that no implementation can beat. Dimension letters: S positions, L layers, H hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip3o.dit import DiTConfig
    from blip3o.vision.encoders import EvaConfig

# The decoder UNet and VAE of the released models, as Emu2-Gen publishes them.
RELEASED_UNET: dict[str, Any] = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "cross_attention_dim": 1792, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1792 + 6 * 256,
}  # fmt: skip
RELEASED_VAE: dict[str, Any] = {
    "sample_size": 1024, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.13025,
}  # fmt: skip
# One forward of one row, counted once: 128 x 128 latents with 64 condition tokens, and a 1024 px picture.
UNET_FLOPS = 6_741_000_000_000
VAE_DECODE_FLOPS = 10_470_000_000_000


def backbone_flops(text: dict[str, Any], positions: int) -> int:
    """Forward of one sequence through the decoder layers, without embedding and text head.

    Args: text: the text part of a Qwen2.5-VL configuration; positions: prompt, image start token and queries.
    """
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    head = hidden // heads
    kv_width = head * text["num_key_value_heads"]
    per_position = 2 * (2 * hidden**2 + 2 * hidden * kv_width + 3 * hidden * text["intermediate_size"])
    attention = 4 * head * heads * positions**2
    return int(text["num_hidden_layers"] * (positions * per_position + attention))


def dit_flops(config: DiTConfig, condition_tokens: int) -> int:
    """One forward of one row, condition encoded within it."""
    tokens, dim, temb = config.num_tokens, config.dim, config.temb_width
    kv_width = config.kv_heads * config.head_dim
    patch = config.patch_size**2 * config.in_channels
    attention = 2 * tokens * (3 * dim**2 + 2 * dim * kv_width)  # q, k, v of self, q of cross, and the one output
    attention += 2 * condition_tokens * 2 * dim * kv_width
    attention += 4 * dim * tokens * (tokens + condition_tokens)
    layer = attention + 2 * tokens * 3 * dim * config.ffn_width + 2 * temb * 4 * dim
    condition = 2 * condition_tokens * (config.condition_dim * dim + dim**2)
    time = 2 * (256 * temb + temb**2 + dim * temb)
    ends = 2 * tokens * 2 * patch * dim + 2 * temb * dim
    return config.num_layers * layer + condition + time + ends


def eva_flops(config: EvaConfig) -> int:
    """One picture through the EVA tower: the largest part of training where targets are not cached."""
    patches = (config.image_size // config.patch_size) ** 2
    tokens, width = patches + 1, config.width
    hidden = int(width * config.mlp_ratio)
    layer = 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * width * tokens**2
    return config.layers * layer + 2 * patches * 3 * config.patch_size**2 * width


def picture_flops(
    text: dict[str, Any], dit: DiTConfig, *, positions: int, queries: int, steps: int, decoder_steps: int,
    images_per_prompt: int = 1,
) -> dict[str, float]:  # fmt: skip
    """One picture of a released model, by stage: prefill, sampler, decoder, VAE; both samplers with guidance."""
    return {
        "prefill": backbone_flops(text, positions) / images_per_prompt,
        "sampler": 2.0 * steps * dit_flops(dit, queries),
        "decoder": 2.0 * decoder_steps * UNET_FLOPS,
        "vae": float(VAE_DECODE_FLOPS),
    }
