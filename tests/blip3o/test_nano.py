"""The bundled model: that it is a sampler, that it listens to the prompt, and that it is small enough to ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import blip3o
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import prompt
from blip3o.stickers.judge import StickerJudge
from blip3o.stickers.judge_files import FOLDER as JUDGE

WEIGHTS = Path(blip3o.__file__).parent / "weights"


@pytest.fixture(scope="module")
def nano():
    return Blip3oPipeline.from_pretrained("nano")


def seeds(first, count):
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def pixels(output):
    return np.stack([np.asarray(image) for image in output.images]).astype(int)


def test_all_bundled_weights_are_under_40_megabytes():
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert len(files) >= 4
    assert sum(file.stat().st_size for file in files) < 40e6


def test_the_picture_follows_the_noise(nano):
    first, again = (pixels(nano(["a photo of a dog"] * 2, generator=seeds(0, 2))) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.abs(first[0] - first[1]).mean() > 2  # of 255: other noise, other picture


def test_a_picture_does_not_depend_on_its_batch(nano):
    prompts = [prompt(make_scene("val", i, SceneConfig.level("easy"))) for i in range(32)]
    together = pixels(nano(prompts, generator=seeds(100, 32)))
    for size in (1, 7):
        parts = [
            pixels(
                nano(prompts[i : i + size], generator=seeds(100 + i, len(prompts[i : i + size])))
            )
            for i in range(0, 14, size)
        ]
        assert np.abs(np.concatenate(parts) - together[:14]).max() <= 3


@pytest.fixture(scope="module")
def drawn(nano):
    """48 held-out scenes of one sticker each with the pictures that their prompts gave."""
    world = SceneConfig.level("easy")
    scenes = [make_scene("val", i, world) for i in range(600)]
    scenes = [scene for scene in scenes if scene.kind in ("single_object", "colors")][:48]
    images = []
    for start in range(0, 48, 16):
        prompts = [prompt(scene) for scene in scenes[start : start + 16]]
        images += nano(prompts, generator=seeds(500 + start, 16)).images
    return scenes, StickerJudge.load(JUDGE).find(images)


def share_found(scenes, found):
    """How often the asked class is among what the judge found with more than GenEval's 0.3."""
    hits = [
        any(f.class_name == scene.stickers[0].class_name and f.score > 0.3 for f in row)
        for scene, row in zip(scenes, found, strict=True)
    ]
    return sum(hits) / len(hits)


def test_the_judge_finds_what_the_prompt_asks_for(drawn):
    assert share_found(*drawn) > 0.3


def test_with_shuffled_prompts_the_score_falls_to_chance(drawn):
    scenes, found = drawn
    classes = [scene.stickers[0].class_name for scene in scenes]
    shifts = [
        s
        for s in range(1, 48)
        if all(a != b for a, b in zip(classes, classes[s:] + classes[:s], strict=True))
    ]
    shift = shifts[len(shifts) // 2]
    assert share_found(scenes[shift:] + scenes[:shift], found) < 0.08


def test_the_words_of_other_objects_give_other_pictures(nano):
    same_noise = [torch.Generator().manual_seed(7) for _ in range(2)]
    dog, bus = pixels(nano(["a photo of a dog", "a photo of a bus"], generator=same_noise))
    assert np.abs(dog - bus).mean() > 5


def test_it_answers_questions_with_words_that_were_asked_for(nano):
    from PIL import Image

    scenes = [make_scene("val", i, SceneConfig.level("easy")) for i in range(12)]
    images = [Image.fromarray(render(scene).image) for scene in scenes]
    words = [f"Is there a {scene.stickers[0].class_name} in the picture?" for scene in scenes]
    answers = nano.ask_batch(images, words, max_new_tokens=4)
    assert set(answers) <= {"yes", "no"}


def test_the_training_log_of_the_shipped_weights_travels_with_them():
    lines = (WEIGHTS / "nano" / "training.log").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    finished = {row["stage"] for row in rows if row.get("finished")}
    assert {"clip", "decoder", "understanding", "generation"} <= finished
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) >= 80 and all(np.isfinite(losses))  # every sixth logged step, to keep the file small


def test_tied_weights_are_written_once_also_in_another_precision(nano, tmp_path):
    from safetensors import safe_open

    nano.save_pretrained(tmp_path, torch.float16)
    tied = nano.model.all_tied_weights_keys
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert tied and not set(tied) & set(file.keys())
    again = Blip3oPipeline.from_pretrained(tmp_path)
    vlm = again.model.backbone.vlm
    assert vlm.lm_head.weight is vlm.get_input_embeddings().weight
    state = again.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in nano.model.state_dict().items())
