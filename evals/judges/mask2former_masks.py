"""From the outputs of Mask2Former to instances, by the rules of mmdet's instance post-processing.

Written anew after `MaskFormerFusionHead.instance_postprocess` (mmdet 2.x and 3.x agree), which GenEval uses:

* mask logits are interpolated (bilinear, corners not aligned) to the padded input, cut to the part without padding,
  and interpolated again to the picture: thresholds and boxes belong to the original pixels;
* class probabilities are a softmax over 80 classes and "nothing", which is then dropped, and the 100 best
  *(query, class) pairs* are taken: one query can stand for several classes, and nothing is suppressed;
* score = class probability x mean probability inside the mask (logit > 0), 0 for an empty mask;
* box = first and last column and row of the mask, the end exclusive; 0, 0, 0, 0 for an empty mask.

The post-processing of transformers works on masks rescaled to 384 x 384 and keeps one class per query: other numbers.

Q queries, C classes, H and W pixels of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MAX_PAIRS = 100
_QUERIES_AT_ONCE = 16  # bounds memory: 16 masks of 1024 x 1024 in float32 are 64 MiB


@dataclass(frozen=True, eq=False)
class Instance:
    """One (query, class) pair. `box`: x1, y1, x2, y2 in whole pixels, end exclusive. `mask`: bool (H, W) or None."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: Any | None


def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    padded: tuple[int, int],
    size: tuple[int, int],
    original: tuple[int, int],
    keep_masks_above: float = 0.0,
) -> list[Instance]:
    """The instances of one picture, best first; of equal scores the more probable class comes first.

    Args: class_logits: (Q, C + 1), the last column is "nothing". mask_logits: (Q, h, w) of any size. padded,
    size, original: (height, width) of the input with and without padding, and of the picture. keep_masks_above:
    instances of a lower score come without their mask, which saves memory.
    """
    import torch

    probabilities = class_logits.float().softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    # A stable sort, so that ties fall the same way on every device; topk promises nothing.
    best, order = probabilities.flatten().sort(descending=True, stable=True)
    best, order = best[:MAX_PAIRS], order[:MAX_PAIRS]
    queries, labels = (order // num_classes).tolist(), (order % num_classes).tolist()
    used = sorted(set(queries))
    row = {query: i for i, query in enumerate(used)}
    quality = torch.zeros(len(used), device=class_logits.device)
    boxes: list[tuple[float, float, float, float]] = []
    masks: list[Any] = []
    top = dict.fromkeys(used, 0.0)
    for query, probability in zip(queries, best.tolist(), strict=True):
        top[query] = max(top[query], probability)
    for start in range(0, len(used), _QUERIES_AT_ONCE):
        part = used[start : start + _QUERIES_AT_ONCE]
        logits = to_picture(mask_logits[part].float(), padded, size, original)
        inside = logits > 0
        sums = (logits.sigmoid() * inside).flatten(1).sum(1)
        quality[start : start + len(part)] = sums / (inside.flatten(1).sum(1).float() + 1e-6)
        boxes += mask_boxes(inside)
        # The score is at most the class probability, so lower ones need not leave the device.
        masks += [
            inside[i].cpu().numpy() if top[query] >= keep_masks_above else None
            for i, query in enumerate(part)
        ]
    scores = (best * quality[[row[query] for query in queries]]).tolist()
    found = [
        Instance(
            label, score, boxes[row[query]], masks[row[query]] if score >= keep_masks_above else None
        )
        for query, label, score in zip(queries, labels, scores, strict=True)
    ]
    return sorted(found, key=lambda one: -one.score)


def to_picture(
    logits: Tensor, padded: tuple[int, int], size: tuple[int, int], original: tuple[int, int]
) -> Tensor:
    """Mask logits (N, h, w) at the picture's own size (N, H, W)."""
    from torch.nn.functional import interpolate

    logits = interpolate(logits[:, None], size=padded, mode="bilinear", align_corners=False)
    logits = logits[:, :, : size[0], : size[1]]
    return interpolate(logits, size=original, mode="bilinear", align_corners=False)[:, 0]


def mask_boxes(masks: Tensor) -> list[tuple[float, float, float, float]]:
    """Boxes of bool masks (N, H, W): x1, y1, x2, y2, end exclusive, zeros for an empty mask."""
    columns, rows = masks.any(dim=1).cpu().numpy(), masks.any(dim=2).cpu().numpy()
    boxes = []
    for column, row in zip(columns, rows, strict=True):
        x, y = column.nonzero()[0], row.nonzero()[0]
        if len(x):
            boxes.append((float(x[0]), float(y[0]), float(x[-1] + 1), float(y[-1] + 1)))
        else:
            boxes.append((0.0, 0.0, 0.0, 0.0))
    return boxes
