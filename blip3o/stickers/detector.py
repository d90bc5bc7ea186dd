"""The sticker judge's networks: a small Mask R-CNN and a colour classifier.

The detector is torchvision's Mask R-CNN (region proposals, box head, mask head; arXiv:1703.06870) on a residual
backbone of our own size with a feature pyramid, for pictures of 64 px whose objects measure 12 to 56 px. It differs
from torchvision's defaults in three ways, all for the benchmark that reads it: boxes and masks do not depend on the
class (eighty classes share one regressor), an object comes out once (suppression across classes: GenEval counts every
surviving box), and scores pass a calibration, so that 0.3 and 0.9 mean probabilities.

Dimension letters: B pictures, N objects, C channels, S picture side.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import (
    FeaturePyramidNetwork,
    clip_boxes_to_image,
    nms,
    remove_small_boxes,
    roi_align,
)

from blip3o.errors import ConfigError

GREY = 153.0 / 255.0
"""Background of a masked crop, `#999`, as in GenEval's colour step."""


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of the detector. Defaults are those of the shipped judge (3.5 M parameters)."""

    n_classes: int = 80
    size_px: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 160, 192)
    depths: tuple[int, int, int, int] = (2, 2, 2, 1)
    pyramid: int = 96
    head: int = 224
    mask_width: int = 64
    rois_per_image: int = 24
    candidates: int = 24
    nms_iou: float = 0.5
    max_detections: int = 16

    def __post_init__(self) -> None:
        if self.size_px % 16:
            raise ConfigError(
                f"size_px {self.size_px} is not divisible by 16, the detector's last stride"
            )
        if len(self.widths) != 4 or len(self.depths) != 4:
            raise ConfigError(
                f"widths {self.widths} and depths {self.depths} need four entries each"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorConfig:
        """Inverse of `to_dict`. Raises ConfigError on an unknown key."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(
                f"unknown detector setting {unknown[0]!r}; known: {', '.join(f.name for f in fields(cls))}"
            )
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**given)


def _conv(c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out)
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(c_in, c_out, stride)
        self.conv2 = _conv(c_out, c_out)
        plain = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if plain else _conv(c_in, c_out, stride, kernel=1)
        # starts as the shortcut: no warm-up trouble at high rates
        nn.init.zeros_(self.conv2[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Backbone(nn.Module):
    """Picture (B, 3, S, S) -> pyramid maps `p1`..`p4` of strides 2, 4, 8, 16, each `pyramid` channels."""

    def __init__(self, cfg: DetectorConfig) -> None:
        super().__init__()
        c_stem = cfg.widths[0] // 2
        self.stem = nn.Sequential(
            _conv(3, c_stem), nn.ReLU(), _conv(c_stem, cfg.widths[0], stride=2), nn.ReLU()
        )
        stages, c_in = [], cfg.widths[0]
        for i, (width, depth) in enumerate(zip(cfg.widths, cfg.depths, strict=True)):
            stages.append(
                nn.Sequential(
                    *[
                        Block(c_in if j == 0 else width, width, 2 if i and j == 0 else 1)
                        for j in range(depth)
                    ]
                )
            )
            c_in = width
        self.stages = nn.ModuleList(stages)
        self.pyramid = FeaturePyramidNetwork(list(cfg.widths), cfg.pyramid)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        maps = OrderedDict()
        for i, stage in enumerate(self.stages, start=1):
            x = stage(x)
            maps[f"p{i}"] = x
        return self.pyramid(maps)


class _Precision:
    """bfloat16 for convolutions and pooling when the caller's autocast asks for it (five times as fast on a CPU with
    matrix units). Boxes, proposals and losses always stay in float32: coordinates need its digits."""

    def __init__(self) -> None:
        self.is_low = False

    def autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.is_low)


class _BoxHead(nn.Module):
    """(N, C, 7, 7) pooled features -> (N, head)."""

    def __init__(self, c_in: int, width: int, precision: _Precision) -> None:
        super().__init__()
        self.conv = _conv(c_in, 64)
        self.fc1 = nn.Linear(64 * 49, width)
        self.fc2 = nn.Linear(width, width)
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        with self.precision.autocast(x):
            x = F.relu(self.conv(x)).flatten(1)
            x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return x.float()


class _BoxPredictor(nn.Module):
    """(N, head) -> class logits (N, 1 + classes), box deltas (N, 4 * (1 + classes)) that are equal for all classes."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, 1 + n_classes)
        self.bbox_pred = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x).repeat(1, self.cls_score.out_features)


class _MaskHead(nn.Module):
    """(N, C, 14, 14) pooled features -> mask logits (N, 1 + classes, 28, 28), one mask seen as every class's."""

    def __init__(self, c_in: int, width: int, n_classes: int, precision: _Precision) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(c_in, width), nn.ReLU(), _conv(width, width), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.out = nn.Conv2d(width // 2, 1, 1)
        self.n_classes = n_classes
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        with self.precision.autocast(x):
            x = self.out(F.relu(self.up(self.convs(x))))
        return x.float().expand(-1, 1 + self.n_classes, -1, -1)


class SeparableRoIAlign(nn.Module):
    """RoIAlign (arXiv:1703.06870) on the finest map, written as two small matrix products.

    Bilinear sampling on an axis-aligned grid is separable: rows @ map @ columns. On a CPU the products and their
    backward pass take a tenth of the time of torchvision's kernel, whose backward was 44 % of a training step.
    """

    SAMPLES = 3  # per bin and axis; free, since they only enter the interpolation weights

    def __init__(
        self, size: int, precision: _Precision, stride: int = 2, level: str = "p1"
    ) -> None:
        super().__init__()
        self.size, self.stride, self.level, self.precision = size, stride, level, precision

    def _weights(self, start: Tensor, end: Tensor, n_cells: int) -> Tensor:
        """Interpolation weights (B, R, size, n_cells) of the bins between `start` and `end` (B, R), in pixels."""
        n = self.size * self.SAMPLES
        at = (torch.arange(n, device=start.device, dtype=start.dtype) + 0.5) / n
        at = (
            start[..., None] + at * (end - start)[..., None]
        ) / self.stride - 0.5  # (B, R, n), in cells
        cells = torch.arange(n_cells, device=start.device, dtype=start.dtype)
        hat = (1 - (at.clamp(0, n_cells - 1)[..., None] - cells).abs()).clamp(min=0)
        return hat.unflatten(2, (self.size, self.SAMPLES)).mean(3)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: Any) -> Tensor:
        """maps[level] (B, C, H, W); boxes: per picture (R_b, 4) -> (sum R_b, C, size, size)."""
        x = maps[self.level]
        padded = nn.utils.rnn.pad_sequence(boxes, batch_first=True).float()  # (B, R, 4)
        x1, y1, x2, y2 = padded.unbind(-1)
        columns = self._weights(x1, x2, x.shape[3])  # (B, R, s, W)
        rows = self._weights(y1, y2, x.shape[2])  # (B, R, s, H)
        B, C, H, W = x.shape
        R, s = padded.shape[1], self.size
        with self.precision.autocast(x):
            across = columns.reshape(B, 1, R * s, W) @ x.permute(0, 2, 3, 1)  # (B, H, R*s, C)
            across = across.view(B, H, R, s * C).transpose(1, 2)  # (B, R, H, s*C)
            # one picture at a time: strides let each product read `across` in place, a batched one would copy it;
            # `unbind` rather than indexing, whose backward pass adds into a full-size zero tensor per picture
            pooled = [r @ a for r, a in zip(rows.unbind(), across.unbind(), strict=True)]
        pooled = [p[: len(b)] for p, b in zip(pooled, boxes, strict=True)]
        return torch.cat(pooled).view(-1, s, s, C).permute(0, 3, 1, 2)


class _OneBoxPerObject(RoIHeads):
    """torchvision's heads with one class per proposal and suppression across classes."""

    def postprocess_detections(self, class_logits, box_regression, proposals, image_shapes):
        counts = [len(p) for p in proposals]
        boxes_all = self.box_coder.decode(box_regression, proposals)[:, 0].split(counts)
        scores_all, labels_all = F.softmax(class_logits, -1)[:, 1:].max(-1)
        out: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for boxes, scores, labels, shape in zip(
            boxes_all, scores_all.split(counts), labels_all.split(counts), image_shapes, strict=True
        ):
            boxes = clip_boxes_to_image(boxes, shape)
            keep = remove_small_boxes(boxes, 2.0)
            keep = keep[scores[keep] > self.score_thresh]
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
            keep = nms(boxes, scores, self.nms_thresh)[: self.detections_per_img]
            for part, values in zip(
                out, (boxes[keep], scores[keep], labels[keep] + 1), strict=True
            ):
                part.append(values)
        return out


class StickerDetector(nn.Module):
    """Mask R-CNN for sticker scenes.

    In training mode `forward(pictures, targets)` returns torchvision's dict of losses; in eval mode a dict per
    picture: boxes (N, 4) float in pixels of S, labels (N,) 1..classes, scores (N,) uncalibrated, masks
    (N, 1, 28, 28). Pictures: (B, 3, S, S) in [0, 1]. Targets: dicts of boxes (N, 4), labels (N,) from 1, masks
    (N, S, S) uint8.
    """

    def __init__(self, cfg: DetectorConfig | None = None) -> None:
        super().__init__()
        self.cfg = cfg = cfg or DetectorConfig()
        self.precision = _Precision()
        self.backbone = Backbone(cfg)
        s = cfg.size_px / 64
        anchors = AnchorGenerator(
            tuple((round(a * s), round(b * s)) for a, b in ((12, 17), (24, 34), (44, 58))),
            ((0.5, 1.0, 2.0),) * 3,
        )
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(cfg.pyramid, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=48,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 60, "testing": 100},
            post_nms_top_n={"training": 40, "testing": cfg.candidates},
            nms_thresh=0.7,
        )
        mask_head = _MaskHead(cfg.pyramid, cfg.mask_width, cfg.n_classes, self.precision)
        self.roi_heads = _OneBoxPerObject(
            SeparableRoIAlign(7, self.precision),
            _BoxHead(cfg.pyramid, cfg.head, self.precision),
            _BoxPredictor(cfg.head, cfg.n_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=cfg.rois_per_image,
            positive_fraction=0.35,
            bbox_reg_weights=None,
            score_thresh=0.02,
            nms_thresh=cfg.nms_iou,
            detections_per_img=cfg.max_detections,
            mask_roi_pool=SeparableRoIAlign(14, self.precision),
            mask_head=mask_head,
            mask_predictor=nn.Identity(),
        )

    def forward(self, pictures: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        self.precision.is_low = torch.is_autocast_enabled(pictures.device.type)
        with torch.autocast(pictures.device.type, enabled=False):
            x = ((pictures - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
            with self.precision.autocast(x):
                maps = self.backbone(x)
            shapes = [(pictures.shape[-2], pictures.shape[-1])] * len(pictures)
            coarse = {k: maps[k].float() for k in ("p2", "p3", "p4")}
            proposals, rpn_losses = self.rpn(ImageList(pictures, shapes), coarse, targets)
            results, losses = self.roi_heads(maps, proposals, shapes, targets)
        return {**rpn_losses, **losses} if self.training else results


class ColorClassifier(nn.Module):
    """Masked 32 px crop on grey -> logits of the ten colours, in the official order.

    Max pooling beside mean pooling: black and white objects keep light and dark details, and the mean alone
    confuses a white object in shade with a grey mixture.
    """

    def __init__(self, n_colors: int = 10, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, width, 2),
            nn.ReLU(),
            _conv(width, 2 * width, 2),
            nn.ReLU(),
            _conv(2 * width, 2 * width, 2),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * width, n_colors)

    def forward(self, crops: Tensor) -> Tensor:
        """crops: (N, 3, 32, 32) in [0, 1] -> (N, 10)."""
        x = self.body((crops - GREY) / 0.25)
        return self.head(torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], -1))


def masked_crops(
    pictures: Tensor, masks: Tensor, boxes: Tensor, index: Tensor, size_px: int = 32
) -> Tensor:
    """Objects cut out on grey, resized to a square.

    Args: pictures (B, 3, S, S) in [0, 1]; masks (N, S, S) bool; boxes (N, 4) float, end exclusive; index (N,) int64,
    the picture of each object. Returns (N, 3, size_px, size_px).
    """
    on_grey = torch.where(masks[:, None], pictures[index], torch.full_like(pictures[:1], GREY))
    rois = torch.cat(
        [torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None], boxes], 1
    )
    return roi_align(on_grey, rois, size_px, 1.0, 2, aligned=True)


def calibrate(scores: Tensor, slope: float, offset: float) -> Tensor:
    """Platt map of raw scores in (0, 1): sigmoid(slope * logit(score) + offset). Keeps the order for slope > 0."""
    return torch.sigmoid(slope * torch.logit(scores, eps=1e-6) + offset)


def n_parameters(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in module.parameters())
