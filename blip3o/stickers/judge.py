"""The sticker judge in use: pictures in, found stickers out.

    judge = StickerJudge.load()
    judge.find([picture, ...])     # -> per picture a list of Found, best first

Weights are one half-precision safetensors file with a JSON file beside it, which holds the sizes, the calibration, how
the weights were made and how right they were when measured.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor, nn

from blip3o.errors import DataError, WeightsError
from blip3o.stickers import CLASSES, COLORS
from blip3o.stickers.detector import (
    ColorClassifier,
    DetectorConfig,
    StickerDetector,
    calibrate,
    masked_crops,
)
from blip3o.stickers.judge_files import (
    FOLDER,
    REPAIR,
    VERSION,
    WEIGHTS,
    read_metadata,
    read_weights,
    write_metadata,
)
from blip3o.stickers.pixel_color import ramp_distances

MASK_SHIFT = 0.5
"""torchvision samples the target masks of training at pixel indices, not centres (`roi_align` with `aligned=False`), so
predicted masks lie half a pixel up and left of where they belong."""
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""GenEval's official thresholds, which the score map is made for."""
CHUNK = 32  # pictures per forward pass; results do not depend on it


@dataclass(frozen=True, eq=False)
class Found:
    """One sticker found.

    `box` x1, y1, x2, y2 in pixels of the picture, end exclusive, from the mask; `score` calibrated, in (0, 1); `mask`
    bool (H, W); `color_logits` ten values in the order of COLORS; `pixel_color` the tint nearest to the pixels inside
    the mask, found without any network.
    """

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    mask: np.ndarray
    color_logits: tuple[float, ...]
    pixel_color: str

    @property
    def color(self) -> str:
        return COLORS[int(np.argmax(self.color_logits))]


@dataclass
class StickerJudge:
    """Detector, colour classifier and score calibration. `metadata` is the JSON file's content."""

    detector: StickerDetector
    color: ColorClassifier
    slope: float = 1.0
    offset: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | str = FOLDER, device: str = "cpu") -> StickerJudge:
        """Reads and checks the weights. Raises WeightsError in one line naming the file and what to do."""
        folder = Path(folder)
        metadata = read_metadata(folder)
        path = folder / WEIGHTS
        tensors = load(read_weights(folder, metadata))
        detector = StickerDetector(DetectorConfig.from_dict(metadata["detector"]))
        color = ColorClassifier(len(COLORS))
        for name, module in (("detector", detector), ("color", color)):
            _fill(
                module,
                {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")},
                path,
            )
        judge = cls(
            detector,
            color,
            metadata["calibration"]["slope"],
            metadata["calibration"]["offset"],
            metadata,
        )
        return judge.to(device)

    def save(self, folder: Path | str, metadata: Mapping[str, Any]) -> None:
        """Writes both files, each by a rename. Values of one dimension (norms, biases) stay in single precision."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, module in (("detector", self.detector), ("color", self.color)):
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    half = value.half() if value.ndim > 1 else value.float()
                    tensors[f"{name}.{key}"] = half.detach().cpu().contiguous()
        data = save(tensors)  # not save_file: it makes files that only their owner can read
        partial = folder / (WEIGHTS + ".partial")
        partial.write_bytes(data)
        self.metadata = {
            **metadata,
            "version": VERSION,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "classes": list(CLASSES),
            "colors": list(COLORS),
            "detector": self.detector.cfg.to_dict(),
            "calibration": {"slope": self.slope, "offset": self.offset},
        }
        os.replace(partial, folder / WEIGHTS)
        write_metadata(folder, self.metadata)

    def to(self, device: str) -> StickerJudge:
        self.detector.to(device).to(memory_format=torch.channels_last).eval()
        self.color.to(device).eval()
        return self

    @property
    def digest(self) -> str:
        return str(self.metadata["sha256"])

    @torch.inference_mode()
    def find(self, pictures: Sequence[Any]) -> list[list[Found]]:
        """Stickers in each picture (PIL image, or uint8 array (H, W, 3)), best first.

        A picture of another size is resized to the detector's square; boxes and masks come back in its own pixels.
        What is found in a picture does not depend on the others. Raises DataError for anything but RGB pictures.
        """
        out: list[list[Found]] = []
        for start in range(0, len(pictures), CHUNK):
            chunk = pictures[start : start + CHUNK]
            sizes = [
                (p.height, p.width) if isinstance(p, Image.Image) else p.shape[:2] for p in chunk
            ]
            x = torch.stack([to_tensor(p, self.detector.cfg.size_px) for p in chunk])
            out += self._find(x.to(next(self.detector.parameters()).device), sizes)
        return out

    def _find(self, x: Tensor, sizes: Sequence[tuple[int, int]]) -> list[list[Found]]:
        side = x.shape[-1]
        results = self.detector(x)
        counts = [len(r["scores"]) for r in results]
        index = torch.repeat_interleave(
            torch.arange(len(x), device=x.device), torch.tensor(counts, device=x.device)
        )
        boxes = torch.cat([r["boxes"] for r in results])
        small = torch.cat([r["masks"] for r in results])[:, 0]
        scores = calibrate(torch.cat([r["scores"] for r in results]), self.slope, self.offset)
        labels = torch.cat([r["labels"] for r in results]) - 1
        boxes = boxes + MASK_SHIFT
        masks = paste_masks(small, boxes, side, side)
        filled, tight = boxes_of_masks(masks)
        logits = (
            self.color(masked_crops(x, masks, tight.float(), index))
            if len(boxes)
            else x.new_zeros(0, len(COLORS))
        )
        distances = ramp_distances(x[index], masks)
        found: list[list[Found]] = [[] for _ in sizes]
        for n in range(len(boxes)):
            i = int(index[n])
            height, width = sizes[i]
            mask, box = masks[n : n + 1], tight[n : n + 1]
            if (height, width) != (side, side):
                scale = boxes.new_tensor([width, height, width, height]) / side
                mask = paste_masks(small[n : n + 1], boxes[n : n + 1] * scale, height, width)
                whole, box = boxes_of_masks(mask)
                if not whole:
                    continue
            elif not filled[n]:
                continue
            x1, y1, x2, y2 = box[0].tolist()
            found[i].append(
                Found(
                    CLASSES[int(labels[n])],
                    float(scores[n]),
                    (x1, y1, x2, y2),
                    mask[0].cpu().numpy(),
                    tuple(logits[n].tolist()),
                    COLORS[int(distances[n].argmin())],
                )
            )
        return found


def to_tensor(picture: Any, size_px: int) -> Tensor:
    """Picture -> (3, size_px, size_px) in [0, 1]; antialiased bilinear when the size differs."""
    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise DataError(
                f"picture has shape {array.shape} and type {array.dtype}: expected uint8 (H, W, 3)"
            )
        picture = Image.fromarray(array)
    picture = picture.convert("RGB")
    if picture.size != (size_px, size_px):
        picture = picture.resize((size_px, size_px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Box-sized mask probabilities (N, M, M) -> bool (N, height, width): bilinear, over 0.5, False outside the box."""

    def weights(start: Tensor, end: Tensor, n: int) -> Tensor:
        m = masks.shape[-1]
        at = torch.arange(n, device=masks.device, dtype=masks.dtype) + 0.5
        share = (at - start[:, None]) / (end - start).clamp(min=1e-3)[
            :, None
        ]  # (N, n), 0..1 inside the box
        cell = (share * m - 0.5).clamp(0, m - 1)[..., None]
        hat = (1 - (cell - torch.arange(m, device=masks.device, dtype=masks.dtype)).abs()).clamp(
            min=0
        )
        return hat * ((share >= 0) & (share <= 1))[..., None]

    x1, y1, x2, y2 = boxes.unbind(-1)
    return weights(y1, y2, height) @ masks @ weights(x1, x2, width).mT > 0.5


def boxes_of_masks(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) bool -> which masks hold a pixel (N,), and their boxes (N, 4) int64, end exclusive (0 where empty)."""
    sides = []
    for line in (masks.any(1), masks.any(2)):  # columns, rows
        n = line.shape[1]
        sides += [line.int().argmax(1), n - line.flip(1).int().argmax(1)]
    filled = masks.flatten(1).any(1)
    boxes = torch.stack([sides[0], sides[2], sides[1], sides[3]], -1)
    return filled, torch.where(filled[:, None], boxes, torch.zeros_like(boxes))


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Strict loading that upcasts to float32 and refuses wrong keys, shapes and values that are not finite."""
    own = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
    wrong = sorted(set(own) ^ set(tensors)) or [k for k in own if own[k].shape != tensors[k].shape]
    if wrong:
        raise WeightsError(
            f"{path} does not fit the detector's sizes: {len(wrong)} keys differ, first {wrong[0]}; {REPAIR}"
        )
    broken = [k for k, v in tensors.items() if not torch.isfinite(v).all()]
    if broken:
        raise WeightsError(
            f"{path} holds values that are not finite, first in {broken[0]}; {REPAIR}"
        )
    module.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
