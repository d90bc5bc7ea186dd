"""Prompts in the grammar of the official file, and captions that are true of their scene."""

from __future__ import annotations

import re

import pytest

from blip3o.stickers import COLORS, Background, Placement, Scene, SceneConfig, Sticker, make_scene
from blip3o.stickers.captions import long_caption, plural, prompt, region, short_caption

GREY = Background("light grey", (218, 222, 226), (218, 222, 226))
OPPOSITE = {"left": "right", "right": "left", "above": "below", "over": "below", "below": "above"}


def _scene_of(line) -> Scene:
    """A scene that shows what an official metadata line asks for."""
    include, relation = line["include"], None
    objects = [(e["class"], e.get("color")) for e in include for _ in range(e["count"])]
    if line["tag"] == "position":
        relation = include[1]["position"][0]
        objects.reverse()  # the placed object is mentioned first
    stickers = tuple(Sticker(n, c, "noto", "x", Placement(0.5, 0.5, 0.3)) for n, c in objects)
    return Scene("test", 0, line["tag"], stickers, GREY, relation)


def test_all_553_official_prompts_and_specs_are_reproduced(official):
    for line in official:
        assert _scene_of(line).spec() == line


def test_plurals_follow_the_official_spelling():
    words = ("bus", "knife", "bench", "person", "wine glass", "sandwich")
    assert [plural(w) for w in words] == [
        "buses",
        "knifes",
        "benchs",
        "persons",
        "wine glasses",
        "sandwichs",
    ]
    assert plural("scissors") == "scissors"


@pytest.mark.parametrize("level", ["easy", "full"])
def test_short_captions_name_the_right_things_in_many_ways(level):
    config = SceneConfig.level(level)
    for i in range(300):
        scene = make_scene("test", i, config)
        captions = {short_caption(scene, seed) for seed in range(12)}
        assert len(captions) >= 3
        for caption in captions:
            for s in scene.stickers:
                assert s.class_name in caption
                if scene.kind in ("colors", "color_attr", "free") and s.color:
                    assert s.color in caption


def test_paraphrased_relations_stay_true():
    config = SceneConfig.level("easy", kinds=(("position", 1.0),))
    turned = 0
    for i in range(200):
        scene = make_scene("test", i, config)
        first, second = (s.class_name for s in scene.stickers)
        for seed in range(4):
            text = short_caption(scene, seed)
            at = {n: re.search(rf"\ban? {n}\b", text).start() for n in (first, second)}
            word = re.search(r"\b(left|right|above|over|below|under|beneath)\b", text).group()
            word = {"under": "below", "beneath": "below", "over": "above"}.get(word, word)
            if at[second] < at[first]:
                turned += 1
                word = OPPOSITE[word]
            assert scene.relation.startswith(word), (text, scene.relation)
    assert turned > 50


@pytest.mark.parametrize("level", ["easy", "full"])
def test_long_captions_tell_every_object_colour_place_and_the_background(level):
    config = SceneConfig.level(level)
    for i in range(300):
        scene = make_scene("test", i, config)
        text = long_caption(scene)
        assert scene.background.name in text
        for s in scene.stickers:
            assert s.class_name in text and region(s) in text.lower()
            assert s.color is None or s.color in text
        shown = {s.color for s in scene.stickers}
        words = text
        for ground in ("plain", "graded"):
            words = words.replace(f"{ground} {scene.background.name}", "")
        named = {c for c in COLORS if re.search(rf"\b{c}\b", words)}
        if "orange" in {s.class_name for s in scene.stickers}:
            named, shown = named - {"orange"}, shown - {"orange"}
        assert named == shown - {None}, text


def test_captions_depend_on_scene_and_seed_only():
    scene = make_scene("train", 1, SceneConfig.level("full"))
    assert short_caption(scene, 3) == short_caption(scene, 3)
    assert long_caption(scene) == long_caption(scene)
    assert prompt(scene).startswith("a photo of ")
