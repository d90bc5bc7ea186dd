"""The table of words for the classes: what captions name, and what they do not."""

from __future__ import annotations

import pytest

from blip3o.stickers import CLASSES, SceneConfig, make_scene
from blip3o.stickers.captions import long_caption, prompt, short_caption
from tasks.understanding.stickers_words import SYNONYMS, classes_named


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", []),
        ("A dog, a DOG and the dogs.", ["dog", "dog", "dog"]),
        ("a hot dog and a dog", ["hot dog", "dog"]),
        ("a teddy bear beside a bear", ["teddy bear", "bear"]),
        ("a tv remote on a television set", ["tv remote", "tv"]),
        ("a microwave oven, not an oven", ["microwave", "oven"]),
        ("the dog's ball", ["dog", "sports ball"]),
        ("three knives and two knifes", ["knife", "knife"]),
        ("mice, benches, buses and puppies", ["computer mouse", "bench", "bus", "dog"]),
        ("a dogged catalogue of carpets", []),
        ("a bus stop beside a train station, a roll of toilet paper", []),
        ("a cell-phone", ["cell phone"]),
        ("some people and a woman", ["person", "person"]),
        ("a pair of scissors", ["scissors"]),
        ("a poodle and a glass", []),  # kinds and relatives are not the thing
        ("orange", ["orange"]),
        ("an orange and two oranges", ["orange", "orange"]),
        ("an orange cup", ["cup"]),
        ("The cup is orange.", ["cup"]),
        ("an orange and white cup", ["cup"]),
        ("an orange orange", ["orange"]),
        ("a red-colored orange", ["orange"]),
        ("an orange-colored bowl", ["bowl"]),
        ("the orange is above the orange cup", ["orange", "cup"]),
        ("on a plain orange background", []),
        ("an orange background", []),
    ],
)
def test_what_a_text_names(text: str, named: list[str]) -> None:
    assert classes_named(text) == named


def test_no_word_stands_for_two_classes() -> None:
    words = [word for name in CLASSES for word in (name, *SYNONYMS.get(name, ()))]
    assert len(set(words)) == len(words) and set(SYNONYMS) <= set(CLASSES)
    for name in CLASSES:
        for word in (name, *SYNONYMS.get(name, ())):
            assert classes_named(word) == [name]


@pytest.mark.parametrize("split", ["test_seen", "test_unseen"])
def test_descriptions_of_the_world_name_exactly_its_objects(split: str) -> None:
    world = SceneConfig.level("easy")
    for index in range(400):
        scene = make_scene(split, index, world)
        shown = {sticker.class_name for sticker in scene.stickers}
        for text in (prompt(scene), short_caption(scene, index), long_caption(scene, index)):
            assert set(classes_named(text)) == shown, text


def test_a_very_long_text_is_read_in_its_length() -> None:
    assert len(classes_named("an orange dog " * 50_000)) == 50_000
