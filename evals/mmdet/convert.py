"""From mmdet's Mask2Former weights to a folder that transformers loads: the detector of GenEval's published figures.

The names are in `convert_mmdet_names`. Only tensors are read from the file (`weights_only`), never objects.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import InputError, UsageError
from evals.io.digests import file_digest
from evals.io.tensors import read_pickled_tensors
from evals.judges.mask2former_weights import (
    NUM_CLASSES,
    OFFICIAL,
    OFFICIAL_FILE,
    OFFICIAL_URL,
    RECORD,
)
from evals.mmdet.names import convert

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL_SHA256_START = OFFICIAL_FILE.removesuffix(".pth").rpartition("-")[2]
"""mmdet puts the first eight digits of a file's sha256 at the end of its name."""

_N = r"(\d+)"


@dataclass(frozen=True)
class Converted:
    """What `convert_file` wrote."""

    folder: Path
    label: str
    source_sha256: str
    weights_sha256: str
    num_tensors: int
    num_parameters: int


def convert_file(source: Path, out: Path) -> Converted:
    """Read an mmdet checkpoint and write `out` with config.json, model.safetensors and where they come from.

    The label is `official` only for the very file that GenEval used, told by its sha256; other weights of the same
    architecture are named after theirs. Raises: InputError for a file that is no such checkpoint; UsageError if
    `out` holds something else.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty: give a new folder")
    tensors = read_checkpoint(source)
    config = config_of(tensors, str(source))
    converted = convert(tensors, str(source))
    digest = file_digest(source)
    is_official = digest.startswith(OFFICIAL_SHA256_START)
    label = OFFICIAL if is_official else f"mmdet-{digest[:8]}"
    out.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its place and renamed, so that an interrupted conversion leaves no half folder.
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        weights_digest = _write(config, converted, work, str(source))
        record = {
            "label": label,
            "source": source.name,
            "source_sha256": digest,
            "weights_sha256": weights_digest,
            "converter": 1,
        }
        (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        work.chmod(0o755)
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    parameters = sum(t.numel() for t in converted.values())
    return Converted(out, label, digest, weights_digest, len(converted), parameters)


def read_checkpoint(source: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file's `state_dict` (or of a bare state dict). Raises: InputError."""
    if not source.is_file():
        raise InputError(f"{source} does not exist: fetch {OFFICIAL_URL}")
    return read_pickled_tensors(source, ("state_dict",), f"fetch {OFFICIAL_URL}")


def config_of(tensors: Mapping[str, Tensor], source: str = "the checkpoint") -> Any:
    """The `Mask2FormerConfig` whose network has these tensors; the window is read from the table of positions.

    Heads and points per level are not in the shapes: 8 heads and 4 points as in every published configuration, unless
    the number of sampling offsets says otherwise. Raises: InputError if a tensor that tells a size is missing.
    """
    from transformers import Mask2FormerConfig, SwinConfig

    from blip3o.stickers import CLASSES

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise InputError(
                f"{source} lacks {name}: it is no Mask2Former of mmdet 2.x with a Swin backbone; fetch {OFFICIAL_URL}"
            )
        return tuple(tensors[name].shape)

    def count(pattern: str) -> int:
        found = [int(m[1]) for m in (re.match(pattern, name) for name in tensors) if m]
        return max(found, default=-1) + 1

    num_classes = shape("panoptic_head.cls_embed.weight")[0] - 1
    if num_classes != NUM_CLASSES:
        raise InputError(
            f"{source} knows {num_classes} classes, the judge needs COCO's {NUM_CLASSES}: it is another training "
            f"(the panoptic one?); fetch {OFFICIAL_URL}"
        )
    stages = count(rf"backbone\.stages\.{_N}\.")
    table = "backbone.stages.{}.blocks.0.attn.w_msa.relative_position_bias_table"
    embed_dim, _, patch, _ = shape("backbone.patch_embed.projection.weight")
    positions = shape(table.format(0))[0]
    fc1 = "backbone.stages.0.blocks.0.ffn.layers.0.0.weight"
    backbone = SwinConfig(
        embed_dim=embed_dim,
        patch_size=patch,
        depths=[count(rf"backbone\.stages\.{i}\.blocks\.{_N}\.") for i in range(stages)],
        num_heads=[shape(table.format(i))[1] for i in range(stages)],
        window_size=(round(positions**0.5) + 1) // 2,
        mlp_ratio=shape(fc1)[0] / embed_dim,
        drop_path_rate=0.3,
        out_features=[f"stage{i + 1}" for i in range(stages)],  # type: ignore[call-arg]
    )
    encoder, decoder = "panoptic_head.pixel_decoder.encoder.layers.", "panoptic_head.transformer_decoder.layers."
    feature = shape("panoptic_head.pixel_decoder.mask_feature.weight")
    width = shape("panoptic_head.query_feat.weight")
    heads = shape(f"{encoder}0.attentions.0.attention_weights.weight")[0] // (3 * 4)
    return Mask2FormerConfig(
        backbone_config=backbone.to_dict(),
        feature_size=feature[1],
        mask_feature_size=feature[0],
        hidden_dim=width[1],
        num_queries=width[0],
        encoder_layers=count(rf"{re.escape(encoder)}{_N}\."),
        decoder_layers=count(rf"{re.escape(decoder)}{_N}\.") + 1,  # transformers counts the heads
        encoder_feedforward_dim=shape(f"{encoder}0.ffns.0.layers.0.0.weight")[0],
        dim_feedforward=shape(f"{decoder}0.ffns.0.layers.0.0.weight")[0],
        num_attention_heads=heads,
        id2label=dict(enumerate(CLASSES)),
    )


def _write(config: Any, tensors: Mapping[str, Tensor], folder: Path, source: str) -> str:
    """Files of `folder`; checked by loading them. Returns the sha256 of the weights."""
    from safetensors.torch import save_file

    from evals.errors import JudgeError
    from evals.judges.mask2former import Mask2Former
    from evals.judges.mask2former_weights import DetectorWeights

    config.architectures = ["Mask2FormerForUniversalSegmentation"]
    config.save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file(dict(tensors), path, metadata={"format": "pt"})
    try:
        Mask2Former.load(DetectorWeights(folder, "", "", (), source), "cpu", "float32", "grey")
    except JudgeError as error:
        reason = str(error).replace(str(folder), source)
        raise InputError(f"{source} is not the Mask2Former that it looks like: {reason}") from error
    return file_digest(path)
