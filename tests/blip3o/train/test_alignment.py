"""Query states of edits learn from the states of their results' captions, and those of captions stay."""

import pytest
import torch

from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig
from blip3o.stickers.captions import long_caption
from blip3o.train.alignment import AlignmentStage
from blip3o.train.dialogue_data import Dialogues
from blip3o.train.edit_data import EditPairs
from blip3o.train.nano_parts import patches_for
from blip3o.train.packed_chats import PackedUnderstandingStage
from blip3o.train.packed_data import PackedConversations
from blip3o.train.stages import freeze
from blip3o.train.world_data import PROMPTS

WORLD = SceneConfig.level("easy")
ROWS = {"scenes": 1, "edits": 0, "texts": 1, "imagined": 0, "quartets": 0, "dialogues": 0}


@pytest.fixture(scope="module")
def made():
    pipeline = Blip3oPipeline.from_pretrained("nano")
    model, tokenizer = pipeline.model, pipeline.tokenizer
    backbone = model.backbone.vlm
    freeze(model)
    backbone.requires_grad_(True)
    patches_of = patches_for(backbone)
    stage = AlignmentStage(
        model,
        tokenizer,
        WORLD,
        PackedUnderstandingStage(
            backbone, PackedConversations("train", WORLD, tokenizer, 16, **ROWS), patches_of
        ),
        [
            EditPairs("train", WORLD, tokenizer, 3, 16, repeat_share=0.5),
            Dialogues("train", WORLD, tokenizer, 4, 16).pictures,
        ],
        patches_of,
        captions=4,
    )
    return model, tokenizer, stage, stage.batch(1)


@torch.no_grad()
def test_turns_are_to_say_what_the_caption_of_their_result_says(made):
    model, tokenizer, _, batch = made
    assert len(batch.turns) == 2
    for turn, wanted in batch.turns:
        assert len(turn.scenes) == len(turn.input_ids) == len(wanted)
        for scene, states in zip(turn.scenes, wanted, strict=True):
            text = PROMPTS.generation(long_caption(scene))
            ids = tokenizer([text], add_special_tokens=False, return_tensors="pt")["input_ids"]
            alone = model.encode_condition(ids, torch.ones_like(ids))[0]
            # wanted states go through half precision
            torch.testing.assert_close(states, alone, atol=5e-3, rtol=5e-3)


def test_drawn_scenes_are_the_targets(made):
    from blip3o.stickers import render
    from blip3o.train.world_data import to_pixels

    for turn, _ in made[3].turns:
        assert torch.equal(turn.target, to_pixels([render(scene).image for scene in turn.scenes]))


def test_captions_begin_where_they_are_held_and_turns_do_not(made):
    model, _, stage, batch = made
    model.zero_grad(set_to_none=True)
    loss, numbers = stage.loss(batch, torch.Generator())
    assert numbers["captions"] < 1e-4 < 0.05 < numbers["turns"]
    terms, _ = stage.understanding.loss(batch.talks, torch.Generator())
    expected = sum(term.item() for term in terms.values()) + stage.weight * (numbers["captions"] + numbers["turns"])
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learns and all(name.startswith("backbone.") and "visual" not in name for name in learns)


def test_batches_are_a_function_of_the_step(made):
    again, other = made[2].batch(1), made[2].batch(2)
    for one, two in zip(made[3].prompts, again.prompts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert made[3].ids == again.ids != other.ids
