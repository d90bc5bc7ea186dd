"""Conditions on disk are those that the model computes, and belong to its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip3o.errors import DataError
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig, make_scene
from blip3o.stickers.captions import prompt
from blip3o.train.condition_cache import (
    CachedConditions,
    CaptionConditions,
    condition_key,
    second_wording,
    write_captions,
    write_turns,
)
from blip3o.train.edit_data import EditPairs, condition_of, pad_right
from blip3o.train.nano_parts import patches_for
from blip3o.train.stages import GeneratorStage, freeze
from blip3o.train.world_data import PROMPTS

WORLD = SceneConfig.level("easy")


@pytest.fixture(scope="module")
def nano() -> Blip3oPipeline:
    pipeline = Blip3oPipeline.from_pretrained("nano")
    freeze(pipeline.model)
    return pipeline


@pytest.fixture(scope="module")
def folder(nano, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conditions")
    conditions_of = CaptionConditions(nano.model, nano.tokenizer)
    write_captions(folder, 0, 8, "train", WORLD, conditions_of, "key")
    edits = EditPairs(
        "train",
        WORLD,
        nano.tokenizer,
        2,
        16,
        features_of=lambda pixels: pixels.repeat(1, 11, 1, 1)[:, :32, :8, :8],
    )
    states_of = condition_of(nano.model, patches_for(nano.model.backbone.vlm))
    write_turns(folder, 0, [edits, lambda step: None], 2, states_of, "key")
    return folder


def batches(folder: Path, **changed) -> CachedConditions:
    features = torch.arange(16).half()[:, None, None, None].expand(16, 32, 8, 8)
    given = {"key": "key", "shards": 1, "turn_shards": 1, "features": features, "captions": 6, "turns": 3,
             "prompt_share": 1.0, "seed": 0}  # fmt: skip
    return CachedConditions(folder, **{**given, **changed})


def test_cached_conditions_are_those_of_the_model(nano, folder) -> None:
    made = batches(folder)
    scenes = [make_scene("train", i, WORLD) for i in range(8)]
    for wording, cached in ((prompt, made.prompt), (second_wording, made.second)):
        texts = [PROMPTS.generation(wording(scene)) for scene in scenes]
        with torch.no_grad():
            wanted = nano.model.encode_condition(*pad_right(nano.tokenizer, texts))
        torch.testing.assert_close(cached.float(), wanted, atol=4e-3, rtol=2e-3)  # half precision on disk
    edits = EditPairs("train", WORLD, nano.tokenizer, 2, 16)(1)
    states_of = condition_of(nano.model, patches_for(nano.model.backbone.vlm))
    with torch.no_grad():
        wanted = states_of(edits)
    torch.testing.assert_close(made.turn_conditions[2:].float(), wanted, atol=4e-3, rtol=2e-3)


def test_a_batch_is_a_function_of_its_step_and_pairs_conditions_with_their_features(folder) -> None:
    made = batches(folder)
    batch, again = made(3), made(3)
    assert torch.equal(batch.condition, again.condition) and batch.ids == again.ids
    assert not torch.equal(batch.condition, made(4).condition)
    scenes = [int(name.split()[1]) for name in batch.ids[:6]]
    assert batch.features[:6, 0, 0, 0].tolist() == scenes and max(scenes) < 8
    assert torch.equal(batch.condition[:6], made.prompt[scenes].float())
    assert torch.equal(batches(folder, prompt_share=0.0)(3).condition[:6], made.second[scenes].float())
    turns = [int(name.split()[1]) for name in batch.ids[6:]]
    assert torch.equal(batch.features[6:], made.turn_features[turns].float())


def test_scenes_are_drawn_as_often_as_their_weights_say(folder) -> None:
    made = batches(folder, captions=4000, weight_of=lambda scene: {0: 3.0, 7: 0.0}.get(scene, 1.0))
    counts = torch.bincount(made(0).features[:4000, 0, 0, 0].long(), minlength=8) / 4000
    wanted = torch.tensor([3 / 9, *[1 / 9] * 6, 0.0])
    assert (counts - wanted).abs().max() < 4 * (1 / 3 * 2 / 3 / 4000) ** 0.5 and counts[7] == 0


def test_conditions_of_other_weights_are_refused(folder, tmp_path) -> None:
    with pytest.raises(DataError, match="other weights or scenes"):
        batches(folder, key="other")
    with pytest.raises(DataError, match="1 of 2 captions-shards"):
        batches(folder, shards=2)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    keys = {condition_key(k, w) for k in "ab" for w in ([one], [two], [one, two], [two, one])}
    assert len(keys) == 8


def test_the_generator_alone_learns_from_them(nano, folder) -> None:
    model = freeze(nano.model)
    model.dit.requires_grad_(True)
    stage = GeneratorStage(model, batches(folder))
    stage.loss(stage.batch(0), torch.Generator().manual_seed(0))[0].backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"dit"}
    freeze(model).zero_grad(set_to_none=True)
