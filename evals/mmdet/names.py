"""Where each tensor of mmdet's Mask2Former goes in transformers: names, and the four places where shapes change.

Read from the code of mmdet 2.x (`SwinTransformer`, `MSDeformAttnPixelDecoder`, `Mask2FormerHead`) and mmcv 1.x; names
on the right are those of the published transformers checkpoints. What is more than a change of names:

* Swin's q, k and v are one matrix in mmdet, and so are those of the decoder's self-attention; its cross-attention
  keeps one matrix in transformers, too;
* patch merging: mmdet unfolds 2 x 2 patches channel by channel (channel, row, column), Swin and transformers stack the
  four positions (column, row, channel), so the input of `reduction` and its norm are put in another order;
* `decoder.layers[i].attentions.0` is the cross-attention, which comes first there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from evals.errors import InputError, shown
from evals.judges.mask2former_weights import OFFICIAL_URL

if TYPE_CHECKING:
    from torch import Tensor

_SWIN = "model.pixel_level_module.encoder."
_PIXEL = "model.pixel_level_module.decoder."
_HEAD = "model.transformer_module."
_N = r"(\d+)"
_WB = r"(weight|bias)"

Convert = Callable[["Tensor", "re.Match[str]"], "dict[str, Tensor]"]


def convert(tensors: Mapping[str, Tensor], source: str = "the checkpoint") -> dict[str, Tensor]:
    """The same network under the names of transformers' published checkpoints.

    Raises: InputError for a name that has no place there, or a buffer that says another order of window positions.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        if name.endswith("relative_position_index"):
            _check_index(name, tensor, source)
            continue
        for pattern, make in _RULES:
            match = pattern.fullmatch(name)
            if match:
                converted.update(make(tensor, match))
                break
        else:
            unknown.append(name)
    if unknown:
        hint = ""
        if any(".self_attn." in name or ".cross_attn." in name for name in unknown):
            hint = " (these are the names of mmdet 3)"
        raise InputError(
            f"{source} holds {shown(unknown[0])}{f' and {len(unknown) - 1} more names' if unknown[1:] else ''} that "
            f"mmdet 2.x's Mask2Former with a Swin backbone has not{hint}: fetch {OFFICIAL_URL}"
        )
    return {name: tensor.float().contiguous() for name, tensor in converted.items()}



def _to(name: str) -> Convert:
    """Another name; `{1}` is the first group of the pattern."""
    return lambda tensor, match: {name.format(None, *match.groups()): tensor}


def _split(name: str) -> Convert:
    """q, k and v, stacked in one tensor, each under its own name (`{part}`)."""

    def make(tensor: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {name.format(None, *match.groups(), part=_PARTS[name][p]): t for p, t in parts}

    return make


def _merge_order(name: str) -> Convert:
    """Patch merging: the last axis from (channel, row, column) to (column, row, channel)."""

    def make(tensor: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
        *rest, four = tensor.shape
        grid = tensor.reshape(*rest, four // 4, 2, 2)
        return {name.format(None, *match.groups()): grid.transpose(-3, -1).reshape(*rest, four)}

    return make


_BLOCK = _SWIN + "encoder.layers.{1}.blocks.{2}."
_MERGE = _SWIN + "encoder.layers.{1}.downsample.{2}.{3}"
_SWIN_QKV = _BLOCK + "attention.self.{part}.{3}"
_SELF_QKV = _HEAD + "decoder.layers.{1}.self_attn.{part}.{2}"
_PARTS = {
    _SWIN_QKV: {"q": "query", "k": "key", "v": "value"},
    _SELF_QKV: {"q": "q_proj", "k": "k_proj", "v": "v_proj"},
}
_STAGE = rf"backbone\.stages\.{_N}\."
_B = rf"{_STAGE}blocks\.{_N}\."
_P = r"panoptic_head\.pixel_decoder\."
_E = rf"{_P}encoder\.layers\.{_N}\."
_D = rf"panoptic_head\.transformer_decoder\.layers\.{_N}\."
_EL = _PIXEL + "encoder.layers.{1}."
_DL = _HEAD + "decoder.layers.{1}."


def _stage_norm(tensor: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
    return {f"{_SWIN}hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}": tensor}


def _fpn(name: str) -> Convert:
    """transformers counts from 1."""
    return lambda tensor, match: {
        f"{_PIXEL}{name}_{int(match[1]) + 1}.{0 if match[2] == 'conv' else 1}.{match[3]}": tensor
    }


def _input_conv(tensor: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
    part = 0 if match[2] == "conv" else 1
    return {f"{_PIXEL}input_projections.{match[1]}.{part}.{match[3]}": tensor}


def _mask_embed(tensor: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
    """Layers 0, 2 and 4 of a sequence with activations between them."""
    name = f"{_HEAD}decoder.mask_predictor.mask_embedder.{int(match[1]) // 2}.0.{match[2]}"
    return {name: tensor}


_RULES: tuple[tuple[re.Pattern[str], Convert], ...] = tuple(
    (re.compile(pattern), make)
    for pattern, make in (
        (rf"backbone\.patch_embed\.projection\.{_WB}", _to(_SWIN + "embeddings.patch_embeddings.projection.{1}")),
        (rf"backbone\.patch_embed\.norm\.{_WB}", _to(_SWIN + "embeddings.norm.{1}")),
        (rf"{_B}norm1\.{_WB}", _to(_BLOCK + "layernorm_before.{3}")),
        (rf"{_B}norm2\.{_WB}", _to(_BLOCK + "layernorm_after.{3}")),
        (rf"{_B}attn\.w_msa\.(relative_position_bias_table)", _to(_BLOCK + "attention.self.{3}")),
        (rf"{_B}attn\.w_msa\.qkv\.{_WB}", _split(_SWIN_QKV)),
        (rf"{_B}attn\.w_msa\.proj\.{_WB}", _to(_BLOCK + "attention.output.dense.{3}")),
        (rf"{_B}ffn\.layers\.0\.0\.{_WB}", _to(_BLOCK + "intermediate.dense.{3}")),
        (rf"{_B}ffn\.layers\.1\.{_WB}", _to(_BLOCK + "output.dense.{3}")),
        (rf"{_STAGE}downsample\.(reduction|norm)\.{_WB}", _merge_order(_MERGE)),
        (rf"backbone\.norm{_N}\.{_WB}", _stage_norm),
        (rf"{_P}input_convs\.{_N}\.(conv|gn)\.{_WB}", _input_conv),
        (rf"{_P}lateral_convs\.{_N}\.(conv|gn)\.{_WB}", _fpn("adapter")),
        (rf"{_P}output_convs\.{_N}\.(conv|gn)\.{_WB}", _fpn("layer")),
        (rf"{_P}level_encoding\.weight", _to(_PIXEL + "level_embed")),
        (rf"{_P}mask_feature\.{_WB}", _to(_PIXEL + "mask_projection.{1}")),
        (
            rf"{_E}attentions\.0\.(sampling_offsets|attention_weights|value_proj|output_proj)\.{_WB}",
            _to(_EL + "self_attn.{2}.{3}"),
        ),
        (rf"{_E}norms\.0\.{_WB}", _to(_EL + "self_attn_layer_norm.{2}")),
        (rf"{_E}norms\.1\.{_WB}", _to(_EL + "final_layer_norm.{2}")),
        (rf"{_E}ffns\.0\.layers\.0\.0\.{_WB}", _to(_EL + "fc1.{2}")),
        (rf"{_E}ffns\.0\.layers\.1\.{_WB}", _to(_EL + "fc2.{2}")),
        (rf"{_D}attentions\.0\.attn\.(in_proj_weight|in_proj_bias)", _to(_DL + "cross_attn.{2}")),
        (rf"{_D}attentions\.0\.attn\.out_proj\.{_WB}", _to(_DL + "cross_attn.out_proj.{2}")),
        (rf"{_D}attentions\.1\.attn\.in_proj_{_WB}", _split(_SELF_QKV)),
        (rf"{_D}attentions\.1\.attn\.out_proj\.{_WB}", _to(_DL + "self_attn.out_proj.{2}")),
        (rf"{_D}norms\.0\.{_WB}", _to(_DL + "cross_attn_layer_norm.{2}")),
        (rf"{_D}norms\.1\.{_WB}", _to(_DL + "self_attn_layer_norm.{2}")),
        (rf"{_D}norms\.2\.{_WB}", _to(_DL + "final_layer_norm.{2}")),
        (rf"{_D}ffns\.0\.layers\.0\.0\.{_WB}", _to(_DL + "fc1.{2}")),
        (rf"{_D}ffns\.0\.layers\.1\.{_WB}", _to(_DL + "fc2.{2}")),
        (rf"panoptic_head\.transformer_decoder\.post_norm\.{_WB}", _to(_HEAD + "decoder.layernorm.{1}")),
        (r"panoptic_head\.query_embed\.weight", _to(_HEAD + "queries_embedder.weight")),
        (r"panoptic_head\.query_feat\.weight", _to(_HEAD + "queries_features.weight")),
        (r"panoptic_head\.level_embed\.weight", _to(_HEAD + "level_embed.weight")),
        (rf"panoptic_head\.cls_embed\.{_WB}", _to("class_predictor.{1}")),
        (rf"panoptic_head\.mask_embed\.([024])\.{_WB}", _mask_embed),
    )
)  # fmt: skip


def _check_index(name: str, index: Tensor, source: str) -> None:
    """The buffer is computed anew by transformers: same order of window positions, or the bias table is misread."""
    import torch

    side = round(index.shape[0] ** 0.5)
    place = torch.arange(side * side)
    y, x = place // side, place % side
    wanted = (y[:, None] - y + side - 1) * (2 * side - 1) + x[:, None] - x + side - 1
    if index.shape != wanted.shape or not torch.equal(index.long(), wanted):
        raise InputError(f"{source}: {name} numbers the positions of a window in an unknown order")
