"""What stands beside a figure: words for figures that are named after a network."""

import pytest

from evals.api import MetricValue
from reports.definitions import definition, estimation, reading


def of(name, unit="distance", **more):
    return MetricValue(name, 1.0, 10, unit=unit, **more)


@pytest.mark.parametrize(
    ("task", "name", "words"),
    [
        ("fid", "fid-clean", ["Frechet distance", "equal numbers only", "antialiased bicubic"]),
        ("fid", "fid-legacy:animals", ["without antialiasing", "group animals alone"]),
        ("fid", "kid-clean", ["Unbiased", "Inception"]),
        ("fid", "is-clean", ["Inception score", "The reference plays no part"]),
        ("fid_stickers", "fd-stickers", ["Frechet distance", "sticker scenes; it compares with no figure"]),
        ("fid", "fd-effnetlite0-legacy", ["EfficientNet-Lite0"]),
        ("fid_stickers", "precision-stickers", ["Share of the pictures"]),
        ("fid_stickers", "recall-stickers", ["Share of the reference's pictures"]),
        ("clipscore", "clipscore-clip-vit-large-patch14", ["100 times the cosine"]),
        ("vqascore", "vqascore-blip-vqa:basic", ["says Yes", "group basic alone"]),
    ],
)
def test_figures_named_after_a_network_say_what_they_are(task, name, words):
    text = definition(of(name), task, ())
    assert all(word in text for word in words), text
    assert "As the task defines it" not in text


def test_a_stranger_of_a_similar_name_is_not_explained_as_one_of_them():
    for name in ("fid", "is", "precision", "fidget-clean", "kidney"):
        assert definition(of(name), "someones_task", ()) == "As the task defines it; unit: distance."


def test_long_prompts_have_the_words_of_geneval():
    overall = of("overall", "fraction")
    assert definition(overall, "geneval_long", ()) == definition(overall, "geneval", ())
    assert reading(overall, "geneval_long").startswith("About 100 of 100 pictures")


def test_intervals_of_sets_name_their_way():
    line = estimation(of("kid-clean", higher_is_better=False, ci95=(0.1, 0.2), method="disjoint parts"))
    assert line.startswith("Lower is better.") and "ten disjoint parts of the prompts" in line
