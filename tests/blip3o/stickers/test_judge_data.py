"""Training pictures of the judge: wear, scrambled objects, pure batches."""

from __future__ import annotations

import numpy as np
import torch

from blip3o.stickers import CLASSES, COLORS, SceneConfig, make_scene, render
from blip3o.stickers.judge_data import WearConfig, bend, blur, cut_out, make_batch, scramble, wear
from blip3o.stickers.pixel_color import FAR, ramp_distances

FULL = SceneConfig.level("full")


def test_a_batch_is_a_pure_function_of_its_arguments():
    make = lambda: make_batch("judge", range(8), [FULL], WearConfig(), np.random.default_rng(3))  # noqa: E731
    a, b = make(), make()
    assert torch.equal(a.pictures, b.pictures)
    for s, t in zip(a.targets, b.targets, strict=True):
        assert all(torch.equal(s[k], t[k]) for k in s)


def test_targets_agree_with_the_rendered_scene():
    batch = make_batch("test", range(20), [FULL], None, np.random.default_rng(0), flip=False)
    for i, target in enumerate(batch.targets):
        drawn = render(make_scene("test", i, FULL))
        assert torch.equal(batch.pictures[i], torch.from_numpy(drawn.image).permute(2, 0, 1) / 255)
        names = [CLASSES[n - 1] for n in target["labels"].tolist()]
        shown = [s.class_name for s in make_scene("test", i, FULL).stickers]
        assert set(names) <= set(shown) and len(names) >= len(shown) - 1


def test_flipped_boxes_still_frame_their_masks():
    batch = make_batch("test", range(40), [FULL], None, np.random.default_rng(0), flip=True)
    for target in batch.targets:
        for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_wear_stays_in_range_and_leaves_its_input_alone():
    x = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    worn = wear(x, np.random.default_rng(1), WearConfig(untouched=0.0, each=1.0, compressed=1.0))
    assert torch.equal(x, before)
    assert worn.shape == x.shape and 0 <= worn.min() and worn.max() <= 1
    assert not torch.equal(worn, x)
    untouched = wear(x, np.random.default_rng(1), WearConfig(untouched=1.0))
    torch.testing.assert_close(untouched, x, atol=1e-6, rtol=0)


def test_no_blur_and_no_bend_are_the_identity():
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blur(x, torch.zeros(2)), x)
    torch.testing.assert_close(bend(x, torch.zeros(2, 2, 64, 64)), x, atol=1e-5, rtol=0)


def test_scrambling_touches_one_object_and_changes_it():
    rng = np.random.default_rng(0)
    config = SceneConfig.level("easy", kinds=(("two_object", 1.0),))
    for index in range(24):
        scene = make_scene("test", index, config)
        drawn = render(scene)
        image = drawn.image.astype(np.float32) / 255
        background = np.broadcast_to(image[0, 0], image.shape)
        out = scramble(image, background, drawn.masks, 0, rng)
        assert np.array_equal(out[drawn.masks[1]], image[drawn.masks[1]])
        assert np.abs(out - image)[drawn.masks[0]].mean() > 0.02
        assert 0 <= out.min() and out.max() <= 1 + 1e-5


def test_an_object_mixed_with_another_is_neither():
    """The mix lies between both, and touches nothing but its own place."""
    rng = np.random.default_rng(1)
    config = SceneConfig.level("easy", kinds=(("two_object", 1.0),))
    changed = 0
    for index in range(30):
        drawn, donor = (render(make_scene("test", i, config)) for i in (index, index + 1000))
        image = drawn.image.astype(np.float32) / 255
        background = np.broadcast_to(image[0, 0], image.shape)
        other = cut_out(donor.image.astype(np.float32) / 255, donor.masks[0])
        out = scramble(image, background, drawn.masks, 0, rng, other)
        assert np.array_equal(out[drawn.masks[1]], image[drawn.masks[1]])
        assert 0 <= out.min() and out.max() <= 1 + 1e-5
        changed += np.abs(out - image)[drawn.masks[0]].mean() > 0.02
    assert changed == 30


def test_a_cut_out_holds_the_object_and_nothing_else():
    image = np.full((20, 20, 3), 0.5, np.float32)
    mask = np.zeros((20, 20), bool)
    mask[4:12, 6:10] = True
    cut = cut_out(image, mask)
    assert cut.shape == (12, 12, 4) and cut[..., 3].sum() == mask.sum()
    assert np.array_equal(cut[2:10, 2:6, :3], np.full((8, 4, 3), 0.5, np.float32))


def test_scrambled_and_empty_pictures_have_no_objects():
    only = WearConfig(scrambled=0.0, garbage=1.0)
    batch = make_batch("judge", range(6), [FULL], only, np.random.default_rng(0))
    assert [len(t["labels"]) for t in batch.targets] == [0] * 6


def test_colour_read_from_pixels_names_the_tint():
    config = SceneConfig.level("easy", kinds=(("colors", 1.0),))
    right = []
    for index in range(100):
        scene = make_scene("test", index, config)
        drawn = render(scene)
        picture = torch.from_numpy(drawn.image).permute(2, 0, 1)[None] / 255
        distances = ramp_distances(picture, torch.from_numpy(drawn.masks))
        right.append(COLORS[int(distances[0].argmin())] == scene.stickers[0].color)
    assert np.mean(right) >= 0.95


def test_an_empty_mask_is_far_from_every_tint():
    distances = ramp_distances(torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool))
    assert (distances == FAR).all()
