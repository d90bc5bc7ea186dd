"""Pixels, masks and boxes, against Pillow's own compositing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from blip3o.stickers import Background, Placement, Scene, SceneConfig, Sticker, make_scene, render
from blip3o.stickers.render import boxes_of
from blip3o.stickers.sprites import sprite, tinted


def _car(color, cx, cy, size):
    return Sticker("car", color, "noto", "1f697", Placement(cx, cy, size))


def _scene(*stickers, background=None):
    background = background or Background("cream", (244, 234, 208), (244, 234, 208))
    return Scene("test", 0, "free", tuple(stickers), background)


def test_picture_equals_pillows_alpha_composite():
    scene = _scene(_car("red", 0.4, 0.5, 0.6), _car(None, 0.6, 0.6, 0.5))
    expected = Image.new("RGBA", (128, 128), (244, 234, 208, 255))
    for s in scene.stickers:
        source = sprite("car", "noto", "1f697")
        w, h = (round(s.placement.size * 128 * side) for side in source.aspect)
        picture = Image.fromarray(tinted(source, s.color)).resize((w, h), Image.Resampling.BICUBIC)
        corner = (round(s.placement.cx * 128 - w / 2), round(s.placement.cy * 128 - h / 2))
        expected.alpha_composite(picture, corner)
    difference = render(scene, 128).image.astype(int) - np.asarray(expected)[..., :3]
    assert np.abs(difference).max() <= 2


def test_masks_are_disjoint_and_cut_by_later_stickers():
    both = render(_scene(_car("red", 0.4, 0.5, 0.6), _car("blue", 0.55, 0.5, 0.6)))
    alone = render(_scene(_car("red", 0.4, 0.5, 0.6)))
    assert not (both.masks[0] & both.masks[1]).any()
    assert 0 < both.masks[0].sum() < alone.masks[0].sum()
    assert np.array_equal(both.masks[0] | (both.masks[1] & alone.masks[0]), alone.masks[0])


def test_sticker_hidden_completely_has_an_empty_mask_and_a_zero_box():
    r = render(_scene(_car("red", 0.5, 0.5, 0.3), _car("blue", 0.5, 0.5, 0.9)))
    assert not r.masks[0].any()
    assert r.boxes[0].tolist() == [0, 0, 0, 0]


def test_boxes_have_an_exclusive_end():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 2:5, 3] = True
    assert boxes_of(mask).tolist() == [[3, 2, 4, 5]]


def test_sticker_over_the_edge_is_cut_off():
    r = render(_scene(_car("red", 0.0, 0.5, 0.5)))
    assert r.boxes[0][0] == 0 and 0 < r.masks.sum()


@pytest.mark.parametrize("px", [32, 64, 96, 128, 256])
def test_the_same_scene_is_drawn_at_any_size(px):
    scene = make_scene("val", 7, SceneConfig.level("full", size_px=px))
    r = render(scene)
    assert r.image.shape == (px, px, 3) and r.image.dtype == np.uint8
    assert r.masks.shape == (len(scene.stickers), px, px) and r.masks.dtype == bool
    reference = render(scene, 64).boxes / 64
    assert np.abs(r.boxes / px - reference).max() <= 1 / px + 1 / 64


def test_rendering_twice_gives_equal_pixels_and_leaves_caches_alone():
    scene = make_scene("train", 5, SceneConfig.level("full"))
    first = render(scene)
    copy = first.image.copy()
    first.image[:] = 0
    assert np.array_equal(render(scene).image, copy)


def test_gradient_runs_from_the_first_colour_to_the_second():
    background = Background("x", (0, 0, 0), (255, 255, 255), 0.0)
    row = render(_scene(background=background)).image[10, :, 0].astype(int)
    assert row[0] < 5 and row[-1] > 250 and (np.diff(row) >= 0).all()
    turned = render(_scene(background=replace(background, angle=np.pi))).image[10, :, 0].astype(int)
    assert np.abs(turned - row[::-1]).max() <= 1
