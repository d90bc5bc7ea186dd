"""The shipped judge: right answers, independence of the batch, any size, damaged files."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from blip3o.errors import DataError, WeightsError
from blip3o.stickers import CLASSES, SceneConfig, make_scene, render
from blip3o.stickers.judge import CHUNK, StickerJudge, boxes_of_masks, paste_masks, to_tensor
from blip3o.stickers.judge_files import FOLDER, METADATA, WEIGHTS, read_metadata

EASY = SceneConfig.level("easy")


@pytest.fixture(scope="module")
def judge() -> StickerJudge:
    return StickerJudge.load()


@pytest.fixture(scope="module")
def scenes():
    made = [make_scene("test", 5000 + i, EASY) for i in range(16)]
    return [(s, render(s)) for s in made]


def test_it_names_counts_and_places_the_stickers_of_known_scenes(judge, scenes):
    right = 0
    for (scene, drawn), found in zip(scenes, judge.find([d.image for _, d in scenes]), strict=True):
        sure = [f for f in found if f.score > 0.3]
        same = Counter(f.class_name for f in sure) == Counter(s.class_name for s in scene.stickers)
        close = same and all(
            min(np.abs(np.array(f.box) - box).max() for box in drawn.boxes) <= 4 for f in sure
        )
        right += close
    assert right >= 15


def test_it_reads_colours(judge):
    config = SceneConfig.level("easy", kinds=(("colors", 1.0),))
    made = [make_scene("test", 6000 + i, config) for i in range(16)]
    answers = judge.find([render(s).image for s in made])
    by_network = [
        bool(f) and f[0].color == s.stickers[0].color for f, s in zip(answers, made, strict=True)
    ]
    by_pixels = [
        bool(f) and f[0].pixel_color == s.stickers[0].color
        for f, s in zip(answers, made, strict=True)
    ]
    assert sum(by_network) >= 15 and sum(by_pixels) >= 14


def test_a_picture_is_judged_alike_alone_and_in_any_batch(judge, scenes):
    pictures = [d.image for _, d in scenes]
    together = judge.find(pictures * 3)  # more than one chunk
    assert len(pictures) * 3 > CHUNK
    for i in (0, 7, 20, 45):
        alone = judge.find([pictures[i % 16]])[0]
        assert [f.class_name for f in alone] == [f.class_name for f in together[i]]
        for a, b in zip(alone, together[i], strict=True):
            assert a.box == b.box and a.score == pytest.approx(b.score, abs=1e-4)
            assert np.array_equal(a.mask, b.mask)
            assert a.color_logits == pytest.approx(b.color_logits, abs=1e-3)


def test_the_same_picture_gives_the_same_answer_twice(judge, scenes):
    pictures = [d.image for _, d in scenes]
    first, second = judge.find(pictures), judge.find(pictures)
    assert [[(f.box, f.score, f.color_logits) for f in row] for row in first] == [
        [(f.box, f.score, f.color_logits) for f in row] for row in second
    ]


def test_other_sizes_come_back_in_their_own_pixels(judge, scenes):
    scene, drawn = scenes[0]
    large = Image.fromarray(drawn.image).resize((256, 128), Image.Resampling.NEAREST)
    small, big = judge.find([drawn.image, large])
    assert [f.class_name for f in big if f.score > 0.3] == [
        f.class_name for f in small if f.score > 0.3
    ]
    for f, g in zip(small, big, strict=False):
        if f.score > 0.3:
            assert g.mask.shape == (128, 256)
            assert np.abs(np.array(g.box) / (4, 2, 4, 2) - f.box).max() <= 1.5


def test_boxes_frame_masks_with_exclusive_ends(judge, scenes):
    for found in judge.find([d.image for _, d in scenes[:4]]):
        for f in found:
            ys, xs = np.nonzero(f.mask)
            assert f.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert f.mask.dtype == bool and 0 < f.score <= 1


def test_empty_pictures_hold_nothing(judge):
    grey = np.full((64, 64, 3), 200, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert all(f.score <= 0.3 for found in judge.find([grey, noise]) for f in found)
    assert judge.find([]) == []


def test_what_is_not_an_rgb_picture_is_refused(judge):
    with pytest.raises(
        DataError, match=r"shape \(64, 64\) and type uint8: expected uint8 \(H, W, 3\)"
    ):
        judge.find([np.zeros((64, 64), np.uint8)])


def test_masks_paste_like_a_resize_inside_their_box():
    masks = torch.ones(1, 28, 28)
    masks[0, :, 14:] = 0
    pasted = paste_masks(masks, torch.tensor([[8.0, 16.0, 40.0, 48.0]]), 64, 64)
    filled, boxes = boxes_of_masks(pasted)
    assert filled.all() and boxes.tolist() == [[8, 16, 24, 48]]
    empty, none = boxes_of_masks(torch.zeros(1, 64, 64, dtype=torch.bool))
    assert not empty.any() and none.tolist() == [[0, 0, 0, 0]]


def test_pictures_are_resized_with_antialiasing():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[::2] = 255
    assert to_tensor(stripes, 64).sub(0.5).abs().max() < 0.05  # plain bilinear would give 0.5


def test_weights_round_trip(judge, tmp_path):
    judge.save(tmp_path, {k: v for k, v in judge.metadata.items() if k != "sha256"})
    assert (tmp_path / WEIGHTS).read_bytes() == (FOLDER / WEIGHTS).read_bytes()
    assert StickerJudge.load(tmp_path).digest == judge.digest


def test_the_shipped_files_are_small_half_precision_and_measured():
    metadata = read_metadata(FOLDER)
    assert (FOLDER / WEIGHTS).stat().st_size == metadata["bytes"] < 8_000_000
    assert metadata["accuracy"]["measured"]["weights_sha256"] == metadata["sha256"]
    assert set(metadata["accuracy"]["seen_full"]["per_class"]) == set(CLASSES)
    assert metadata["training"]["date"] and metadata["training"]["hardware"]


def test_truncated_weights_give_one_clear_line(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "judge")
    path = tmp_path / "judge" / WEIGHTS
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="damaged or incomplete: 100000 bytes") as error:
        StickerJudge.load(tmp_path / "judge")
    assert "\n" not in str(error.value) and "judge_train" in str(error.value)


def test_random_values_of_the_right_digest_are_still_checked(tmp_path, judge):
    import hashlib

    from safetensors.torch import load_file, save_file

    shutil.copytree(FOLDER, tmp_path / "judge")
    tensors = load_file(tmp_path / "judge" / WEIGHTS)
    first = sorted(tensors)[0]
    for change, message in (
        (
            {**tensors, first: torch.full_like(tensors[first], float("nan"))},
            f"not finite, first in {first.split('.', 1)[1]}",
        ),
        ({k: v for k, v in tensors.items() if k != first}, "1 keys differ"),
    ):
        save_file(change, tmp_path / "judge" / WEIGHTS)
        metadata = json.loads((tmp_path / "judge" / METADATA).read_text())
        metadata["sha256"] = hashlib.sha256((tmp_path / "judge" / WEIGHTS).read_bytes()).hexdigest()
        (tmp_path / "judge" / METADATA).write_text(json.dumps(metadata))
        with pytest.raises(WeightsError, match=message):
            StickerJudge.load(tmp_path / "judge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("sha256"), "lacks sha256"),
        (lambda m: m.update(version=99), "version 99"),
        (lambda m: m.update(classes=["cat"]), "other classes"),
    ],
)
def test_unfit_metadata_is_refused(tmp_path, change, message):
    metadata = read_metadata(FOLDER)
    change(metadata)
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(WeightsError, match=message):
        read_metadata(tmp_path)


def test_missing_or_broken_metadata_is_named(tmp_path):
    with pytest.raises(WeightsError, match="judge.json cannot be read"):
        read_metadata(tmp_path)
    (tmp_path / METADATA).write_text("{")
    with pytest.raises(WeightsError, match="not valid JSON"):
        read_metadata(tmp_path)
