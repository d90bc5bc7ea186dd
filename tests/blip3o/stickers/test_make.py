"""Scenes are pure functions that keep their promises: counts, relations, places, colours, held-out content."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from blip3o.errors import ConfigError
from blip3o.stickers import COLORS, SceneConfig, make_scene, render
from blip3o.stickers.layout import _vanishing
from blip3o.stickers.make import picture_held_out
from blip3o.stickers.splits import SPLITS, held_out, is_held_out

LEVELS = ("easy", "full")


def _digest(level: str, split: str, number: int = 40) -> str:
    config = SceneConfig.level(level)
    text = "\n".join(repr(make_scene(split, i, config)) for i in range(number))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Recorded once. A change here means that every cached feature and every trained weight belongs to another world.
RECORDED = {
    ("easy", "train"): "b8849d5a5bde7eea",
    ("easy", "test"): "2ff53187ed021043",
    ("full", "val"): "e119c60d54941906",
    ("full", "test_unseen"): "3ceb29b67161e58c",
}


@pytest.mark.parametrize(("level", "split"), RECORDED)
def test_scenes_are_the_recorded_ones(level, split):
    assert _digest(level, split) == RECORDED[level, split]


def test_another_process_with_another_hash_seed_makes_the_same_scenes():
    code = (
        "from blip3o.stickers import SceneConfig, make_scene\n"
        "config = SceneConfig.level('full')\n"
        "print(*(repr(make_scene('train', i, config)) for i in range(20)), sep='\\n')"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    config = SceneConfig.level("full")
    assert done.stdout.splitlines() == [repr(make_scene("train", i, config)) for i in range(20)]


def test_resolution_does_not_change_the_scene_but_other_settings_do():
    easy = SceneConfig.level("easy")
    big = SceneConfig.level("easy", size_px=256)
    assert make_scene("val", 3, easy) == make_scene("val", 3, big)
    assert big.digest != easy.digest and big.scene_key == easy.scene_key
    wide = replace(easy, jitter=0.0)
    assert [make_scene("val", i, easy) for i in range(5)] != [
        make_scene("val", i, wide) for i in range(5)
    ]


def test_splits_differ():
    config = SceneConfig.level("easy")
    scenes = {
        s: [make_scene(s, i, config).stickers for i in range(30)]
        for s in ("train", "val", "test_seen")
    }
    assert not set(scenes["train"]) & set(scenes["val"])
    assert not set(scenes["val"]) & set(scenes["test_seen"])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "val", "test_seen", "unseen_style"])
def test_seen_splits_show_nothing_held_out(level, split):
    lists, config = held_out(), SceneConfig.level(level)
    for i in range(400):
        scene = make_scene(split, i, config)
        names = {s.class_name for s in scene.stickers}
        assert not {(s.class_name, s.color) for s in scene.stickers} & lists.class_colors
        assert not any(
            frozenset((a, b)) in lists.class_pairs for a in names for b in names if a < b
        )
        assert not is_held_out(scene.spec())
        assert not picture_held_out(scene.stickers)


@pytest.mark.parametrize("level", LEVELS)
def test_unseen_split_asks_only_for_held_out_content(level):
    config = SceneConfig.level(level)
    scenes = [make_scene("test_unseen", i, config) for i in range(200)]
    assert all(is_held_out(s.spec()) for s in scenes)
    assert len({s.kind for s in scenes}) >= 4


def test_unseen_style_appears_in_its_split_and_is_refused_in_training():
    config = SceneConfig.level("full")
    assert {s.style for i in range(50) for s in make_scene("unseen_style", i, config).stickers} == {
        "twemoji"
    }
    assert {s.style for i in range(200) for s in make_scene("train", i, config).stickers} == {
        "fluent",
        "noto",
    }
    with pytest.raises(ConfigError, match="'twemoji' is held out"):
        make_scene("train", 0, replace(config, styles=("twemoji",)))


@pytest.mark.parametrize("level", LEVELS)
def test_content_fits_the_kind(level):
    config = SceneConfig.level(level)
    kinds: Counter[str] = Counter()
    for i in range(1500):
        scene = make_scene("test", i, config)
        kinds[scene.kind] += 1
        names = [s.class_name for s in scene.stickers]
        colors = [s.color for s in scene.stickers]
        n = len(names)
        if scene.kind in ("single_object", "colors"):
            assert n == 1 and (scene.kind != "colors" or colors[0] in COLORS)
        elif scene.kind == "counting":
            assert 2 <= n <= 4 and len(set(names)) == 1
        elif scene.kind == "free":
            assert 1 <= n <= 4
        else:
            assert n == 2 and names[0] != names[1]
        if scene.kind == "color_attr":
            assert None not in colors and colors[0] != colors[1]
        assert (scene.relation is not None) == (scene.kind == "position")
        if level == "easy" and scene.kind not in ("colors", "color_attr"):
            assert set(colors) == {None}
    for kind, weight in config.kinds:
        assert kinds[kind] / 1500 == pytest.approx(weight, abs=4 * math.sqrt(weight / 1500)), kind


def _geneval_relation(a: np.ndarray, b: np.ndarray) -> set[str]:
    """GenEval's rule, written from its description with arrays: the offset is shrunk by 0.1 of both sizes."""
    boxes = np.array([a, b], np.float32).reshape(2, 2, 2)
    (center_a, center_b), (size_a, size_b) = boxes.mean(1), np.abs(np.diff(boxes, axis=1)[:, 0])
    offset = center_a - center_b
    shrunk = np.maximum(np.abs(offset) - 0.1 * (size_a + size_b), 0) * np.sign(offset)
    if np.all(np.abs(shrunk) < 1e-3):
        return set()
    x, y = shrunk / np.linalg.norm(offset)
    tests = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in tests.items() if holds}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size_px", [32, 64, 128])
def test_drawn_boxes_satisfy_genevals_relation_and_no_other(level, size_px):
    config = SceneConfig.level(level, size_px=size_px, kinds=(("position", 1.0),))
    seen = set()
    for i in range(250):
        scene = make_scene("test", i, config)
        boxes = render(scene).boxes
        assert _geneval_relation(boxes[0], boxes[1]) == {scene.relation}, i
        seen.add(scene.relation)
    assert len(seen) == 4


def test_easy_objects_never_touch_and_stand_in_order_of_mention():
    config = SceneConfig.level("easy")
    for i in range(1000):
        scene = make_scene("test", i, config)
        r = render(scene)
        for a in range(len(r.boxes)):
            for b in range(a + 1, len(r.boxes)):
                x1, y1 = np.maximum(r.boxes[a][:2], r.boxes[b][:2])
                x2, y2 = np.minimum(r.boxes[a][2:], r.boxes[b][2:])
                assert x1 >= x2 or y1 >= y2, (i, r.boxes)
        if scene.kind in ("two_object", "color_attr"):
            assert r.boxes[0][2] <= r.boxes[1][0]


def test_full_objects_stay_mostly_visible_and_inside():
    config = SceneConfig.level("full")
    for i in range(400):
        scene = make_scene("test", i, config)
        alone = [render(replace(scene, stickers=(s,))).masks[0].sum() for s in scene.stickers]
        visible = render(scene).masks.sum((1, 2))
        assert (visible >= 0.6 * np.array(alone)).all(), i
        for s in scene.stickers:
            x1, y1, x2, y2 = s.extent
            assert min(x1, y1) >= -0.01 and max(x2, y2) <= 1.01


def test_easy_objects_stand_out_from_the_background():
    config = SceneConfig.level("easy")
    shares = []
    for i in range(500):
        scene = make_scene("test", i, config)
        for s in scene.stickers:
            shares.append(
                _vanishing(s.class_name, s.style, s.sprite, s.color, scene.background.first)
            )
    # Pairs like a black and a white object have no perfect background among the five.
    assert max(shares) < 0.5 and np.mean(np.array(shares) > 0.25) < 0.06


def test_wrong_settings_are_refused_at_once():
    with pytest.raises(ConfigError, match="levels are easy, full"):
        SceneConfig.level("hard")
    with pytest.raises(ConfigError, match="size_px 8 is below 16; styles"):
        SceneConfig(size_px=8, styles=("manga",))
    with pytest.raises(ConfigError, match="unknown split 'dev'.*" + ", ".join(SPLITS)):
        make_scene("dev", 0, SceneConfig())
    with pytest.raises(ConfigError, match="index -1"):
        make_scene("train", -1, SceneConfig())
    with pytest.raises(ConfigError, match="never held out"):
        make_scene("test_unseen", 0, SceneConfig(kinds=(("counting", 1.0),)))
