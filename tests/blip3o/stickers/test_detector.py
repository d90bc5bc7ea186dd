"""The judge's networks: pooling, one box per object, precision, learning."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou, roi_align

from blip3o.errors import ConfigError
from blip3o.stickers.detector import (
    GREY,
    ColorClassifier,
    DetectorConfig,
    SeparableRoIAlign,
    StickerDetector,
    _Precision,
    calibrate,
    masked_crops,
)

TINY = DetectorConfig(widths=(16, 16, 16, 16), depths=(1, 1, 1, 1), pyramid=16, head=32)


def squares(n: int, seed: int = 0) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Pictures of one bright square each; its class is its colour channel."""
    generator = torch.Generator().manual_seed(seed)
    pictures, targets = torch.full((n, 3, 64, 64), 0.3), []
    for i in range(n):
        x, y = torch.randint(2, 38, (2,), generator=generator).tolist()
        channel = int(torch.randint(3, (1,), generator=generator))
        mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
        mask[0, y : y + 24, x : x + 24] = 1
        pictures[i, channel][mask[0].bool()] = 1.0
        box = torch.tensor([[x, y, x + 24, y + 24]], dtype=torch.float32)
        targets.append({"boxes": box, "labels": torch.tensor([channel + 1]), "masks": mask})
    return pictures, targets


def test_separable_pooling_equals_torchvisions_roi_align():
    maps = torch.randn(2, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    boxes = [
        torch.tensor([[4.0, 6.0, 40.0, 30.0], [0.0, 0.0, 64.0, 64.0]]),
        torch.tensor([[10.5, 3.2, 33.3, 60.1]]),
    ]
    ours = SeparableRoIAlign(7, _Precision())({"p1": maps}, boxes, None)
    theirs = roi_align(maps, boxes, 7, 0.5, SeparableRoIAlign.SAMPLES, aligned=True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_pooling_gradient_equals_torchvisions():
    boxes = [torch.tensor([[4.0, 6.0, 40.0, 30.0]]), torch.tensor([[1.0, 2.0, 30.0, 61.0]])]
    gradients = []
    for pool in (
        lambda m: SeparableRoIAlign(7, _Precision())({"p1": m}, boxes, None),
        lambda m: roi_align(m, boxes, 7, 0.5, SeparableRoIAlign.SAMPLES, aligned=True),
    ):
        maps = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        maps.requires_grad_()
        pool(maps).square().sum().backward()
        gradients.append(maps.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_a_picture_without_proposals_pools_to_nothing():
    pooled = SeparableRoIAlign(7, _Precision())(
        {"p1": torch.randn(2, 4, 32, 32)}, [torch.zeros(0, 4), torch.tensor([[0.0, 0, 9, 9]])], None
    )
    assert pooled.shape == (1, 4, 7, 7)


def test_a_few_steps_lower_the_loss_and_boxes_do_not_repeat():
    torch.manual_seed(0)
    detector = StickerDetector(TINY).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    pictures, targets = squares(4)
    losses = []
    for _ in range(8):
        loss = sum(detector(pictures, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    detector.eval()
    detector.roi_heads.score_thresh = 0.0
    with torch.inference_mode():
        for found in detector(pictures):
            overlap = box_iou(found["boxes"], found["boxes"]).fill_diagonal_(0)
            assert (overlap <= TINY.nms_iou + 1e-6).all(), "one object came out twice"
            assert len(found["boxes"]) <= TINY.max_detections


def test_low_precision_follows_autocast_and_losses_stay_in_float32():
    detector = StickerDetector(TINY).train()
    pictures, targets = squares(2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(pictures, targets)
    assert detector.precision.is_low
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    detector(pictures, targets)
    assert not detector.precision.is_low


def test_masked_crop_is_grey_outside_the_mask():
    picture = torch.ones(1, 3, 64, 64)
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:42, 10:26] = True
    crop = masked_crops(picture, mask, torch.tensor([[10.0, 10.0, 42.0, 42.0]]), torch.tensor([0]))
    assert crop.shape == (1, 3, 32, 32)
    inner = crop[..., 1:-1, 1:-1]  # the outermost bins also sample beyond the box
    assert inner[..., :14].eq(1).all()
    torch.testing.assert_close(inner[..., 16:], torch.full_like(inner[..., 16:], GREY))
    assert ColorClassifier().eval()(crop).shape == (1, 10)


def test_calibration_keeps_order_and_identity():
    scores = torch.tensor([0.05, 0.3, 0.9, 0.999])
    torch.testing.assert_close(calibrate(scores, 1.0, 0.0), scores)
    assert calibrate(scores, 0.7, -0.4).diff().gt(0).all()


def test_wrong_sizes_are_refused():
    with pytest.raises(ConfigError, match="size_px 60 is not divisible by 16"):
        DetectorConfig(size_px=60)
    with pytest.raises(ConfigError, match="unknown detector setting 'width'"):
        DetectorConfig.from_dict({"width": 3})
    assert DetectorConfig.from_dict(TINY.to_dict()) == TINY
