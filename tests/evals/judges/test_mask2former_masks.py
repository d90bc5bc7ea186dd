"""Instances against a second reading of mmdet's rules: loops over queries, classes and pixels in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evals.judges.mask2former_masks import instances, mask_boxes, to_picture


def bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """One plane, corners not aligned, in float64."""
    old_height, old_width = plane.shape
    out = np.zeros((height, width))
    for y in range(height):
        sy = max((y + 0.5) * old_height / height - 0.5, 0.0)
        y0 = min(int(sy), old_height - 1)
        y1, fy = min(y0 + 1, old_height - 1), sy - y0
        for x in range(width):
            sx = max((x + 0.5) * old_width / width - 0.5, 0.0)
            x0 = min(int(sx), old_width - 1)
            x1, fx = min(x0 + 1, old_width - 1), sx - x0
            upper = (1 - fx) * plane[y0, x0] + fx * plane[y0, x1]
            lower = (1 - fx) * plane[y1, x0] + fx * plane[y1, x1]
            out[y, x] = (1 - fy) * upper + fy * lower
    return out


def read_rules(class_logits, mask_logits, padded, size, original, limit=100):
    """(label, query, score, box, mask) per pair, in order of class probability."""
    pairs = []
    for query, row in enumerate(class_logits):
        powers = [math.exp(v - max(row)) for v in row]
        for label in range(len(row) - 1):  # the last column is "nothing"
            pairs.append((powers[label] / sum(powers), query, label))
    pairs.sort(key=lambda p: -p[0])
    found = []
    planes = {}
    for probability, query, label in pairs[:limit]:
        if query not in planes:
            whole = bilinear(mask_logits[query], *padded)
            planes[query] = bilinear(whole[: size[0], : size[1]], *original)
        plane = planes[query]
        total, area = 0.0, 0
        xs, ys = [], []
        for y in range(plane.shape[0]):
            for x in range(plane.shape[1]):
                if plane[y, x] > 0:
                    total += 1 / (1 + math.exp(-plane[y, x]))
                    area += 1
                    xs.append(x)
                    ys.append(y)
        box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1) if xs else (0, 0, 0, 0)
        found.append((label, query, probability * total / (area + 1e-6), box, plane > 0))
    return found


def blobs(rng: np.random.Generator, queries: int, height: int, width: int) -> np.ndarray:
    """Logits of one round object per query; the last query has none."""
    y, x = np.mgrid[:height, :width]
    planes = []
    for _ in range(queries):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1.5, height / 2)
        planes.append(6 * (1 - np.hypot(y - cy, x - cx) / radius))
    planes[-1] = np.full((height, width), -3.0)
    return np.clip(np.array(planes), -8, 8)


@pytest.mark.parametrize(
    ("padded", "size", "original"),
    [
        ((32, 32), (32, 32), (41, 41)),
        ((32, 64), (32, 50), (20, 31)),  # padding is cut off before the picture's size is reached
        ((64, 32), (43, 32), (64, 48)),
    ],
)
def test_instances_follow_the_rules(padded, size, original):
    rng = np.random.default_rng(sum(original))
    mask_logits = blobs(rng, 6, padded[0] // 4, padded[1] // 4)
    class_logits = rng.normal(0, 3, (6, 31))
    wanted = read_rules(class_logits.tolist(), mask_logits, padded, size, original)
    got = instances(
        torch.tensor(class_logits), torch.tensor(mask_logits), padded, size, original
    )
    assert len(got) == len(wanted) == 100 < 6 * 30
    assert [one.score for one in got] == sorted((one.score for one in got), reverse=True)
    for one in got:
        nearest = [w for w in wanted if w[0] == one.label and abs(w[2] - one.score) < 2e-5]
        assert any(
            w[3] == one.box and (w[4] != one.mask).sum() <= 2  # logits within rounding of 0
            for w in nearest
        ), one
    empty = [one for one in got if one.box == (0, 0, 0, 0)]
    assert empty and all(one.score == 0 and not one.mask.any() for one in empty)


def test_one_query_stands_for_several_classes_and_none_is_suppressed():
    class_logits = torch.full((2, 4), -20.0)
    class_logits[0, :2] = 3.0
    class_logits[1, 0] = 3.0
    masks = torch.full((2, 8, 8), 5.0)
    got = instances(class_logits, masks, (32, 32), (32, 32), (32, 32))
    assert [one.label for one in got[:3]] == [0, 0, 1]
    assert got[0].score == pytest.approx(torch.sigmoid(torch.tensor(5.0)).item(), abs=1e-5)
    assert got[1].score == got[2].score == pytest.approx(got[0].score / 2, abs=1e-5)
    assert len(got) == 6  # all pairs: fewer than 100


def test_thresholds_apply_at_the_pictures_size():
    """A stripe between -1, 3 and -1 crosses zero a quarter of a cell (4 of 16 pixels) beyond the first cell's centre
    (8 of 64) and before the third one's (40 of 64), so pixels 12 to 35 are inside."""
    logits = torch.full((1, 4, 4), -1.0)
    logits[0, :, 1] = 3.0
    at_picture = to_picture(logits, (16, 16), (16, 16), (64, 64))[0] > 0
    assert mask_boxes(at_picture[None]) == [(12.0, 0.0, 36.0, 64.0)]


def test_box_ends_are_exclusive():
    masks = torch.zeros(3, 6, 9, dtype=torch.bool)
    masks[0, 2, 3] = True
    masks[1] = True
    assert mask_boxes(masks) == [(3, 2, 4, 3), (0, 0, 9, 6), (0, 0, 0, 0)]


def test_masks_of_low_scores_are_left_out():
    class_logits = torch.tensor([[4.0, 0.0, 0.0]])
    got = instances(
        class_logits, torch.full((1, 4, 4), 9.0), (8, 8), (8, 8), (8, 8), keep_masks_above=0.5
    )
    assert [one.mask is None for one in got] == [False, True]
    assert got[1].box == (0, 0, 8, 8)
