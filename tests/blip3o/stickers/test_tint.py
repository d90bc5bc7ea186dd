"""Tints: the ten colours are unmistakable and the shape survives."""

from __future__ import annotations

import numpy as np
import pytest

from blip3o.stickers import CLASSES, COLORS, STYLES
from blip3o.stickers.sprites import patch, sprites, tinted
from blip3o.stickers.tint import RAMPS, lab, nearest_color, shade_index


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab_agrees_with_published_values(rgb, expected):
    assert lab(np.array(rgb)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("style", STYLES)
def test_mean_colour_inside_the_mask_names_the_tint(style):
    right = total = 0
    for name in CLASSES:
        for sprite in sprites(name, style):
            for color in COLORS:
                rgba = tinted(sprite, color)
                right += nearest_color(rgba[rgba[..., 3] >= 128][:, :3].mean(0)) == color
                total += 1
    assert right / total >= 0.97, (style, right, total)


@pytest.mark.parametrize("px", [13, 28])
def test_tint_is_still_named_at_drawn_size(px):
    wrong = []
    for name in CLASSES:
        sprite = sprites(name, "noto")[0]
        w, h = (max(1, round(px * side)) for side in sprite.aspect)
        for color in COLORS:
            drawn = patch(name, "noto", sprite.id, color, w, h)
            alpha = 255.0 - drawn.rest[drawn.mask]
            mean = (drawn.color[drawn.mask] * 255.0 / alpha).mean(0)
            wrong += [(name, color)] * (nearest_color(mean) != color)
    assert len(wrong) <= 0.03 * len(CLASSES) * len(COLORS), wrong


@pytest.mark.parametrize("color", COLORS)
def test_brighter_parts_of_the_sprite_stay_brighter(color):
    sprite = sprites("zebra", "noto")[0]
    solid = sprite.rgba[..., 3] >= 128
    weights = np.array([0.299, 0.587, 0.114])
    before = (sprite.rgba[..., :3] @ weights)[solid]
    after = (tinted(sprite, color)[..., :3] @ weights)[solid]
    dark, light = before < 80, before > 200
    assert dark.sum() > 100 and light.sum() > 100
    assert after[light].mean() - after[dark].mean() > 20


def test_median_luminance_takes_the_middle_tone():
    rgba = np.full((9, 9, 4), 255, np.uint8)
    rgba[..., :3] = 90
    rgba[0] = (255, 255, 255, 255)
    shade = shade_index(rgba)
    assert abs(int(shade[4, 4]) - 127.5) <= 0.5
    assert shade[0, 0] > 200


def test_ramps_rise_from_dark_to_light():
    for color, ramp in RAMPS.items():
        light = [lab(np.array(c))[0] for c in ramp]
        assert light[0] < light[1] < light[2], color
