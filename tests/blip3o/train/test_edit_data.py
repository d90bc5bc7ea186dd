"""Edit pairs and conversations as batches: what they hold, that they resume, and that a model learns from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip3o.dialogue import Turn
from blip3o.pipeline import Blip3oPipeline
from blip3o.prompts import RECONSTRUCT, Prompts
from blip3o.stickers import SceneConfig, render
from blip3o.stickers.captions import prompt
from blip3o.train.dialogue_data import Dialogues, learned_texts
from blip3o.train.edit_data import EditPairs, condition_of
from blip3o.train.stages import GenerationStage
from blip3o.vision.preprocess import qwen_patches

WORLD = SceneConfig.level("easy", size_px=32)
TOKENS = 4  # of a 32 px picture in the tiny vision tower: 4 x 4 patches, merged 2 x 2


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained("tiny")


@pytest.fixture(scope="module")
def patches_of(pipe):
    vision = pipe.model.backbone.vision_config
    return lambda pixels: qwen_patches(
        pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    )


def features_of(pixels: torch.Tensor) -> torch.Tensor:
    """Colours of a coarse grid, in place of a target encoder: (B, 6, 4, 4)."""
    return torch.nn.functional.avg_pool2d(pixels, 8).repeat(1, 2, 1, 1)


def pairs(pipe, batch: int = 6, **settings) -> EditPairs:
    return EditPairs("train", WORLD, pipe.tokenizer, batch, TOKENS, features_of=features_of, **settings)


def talks(pipe, batch: int = 8, **settings) -> Dialogues:
    return Dialogues("train", WORLD, pipe.tokenizer, batch, TOKENS, features_of=features_of, **settings)


def same(first, second) -> bool:
    names = [n for n in vars(first) if isinstance(getattr(first, n), torch.Tensor)]
    return first.ids == second.ids and all(
        torch.equal(getattr(first, n), getattr(second, n)) for n in names
    )


def test_a_batch_is_a_function_of_its_step(pipe) -> None:
    assert same(pairs(pipe)(3), pairs(pipe)(3)) and not same(pairs(pipe)(3), pairs(pipe)(4))
    once, again = talks(pipe)(3), talks(pipe)(3)
    assert all(same(a, b) for a, b in zip(once, again, strict=True) if a is not None)
    assert pairs(pipe)(1).ids[0] == "train/edit/6"


def test_pictures_and_texts_of_a_batch_belong_together(pipe) -> None:
    batch = pairs(pipe)(0)
    for row, pair in enumerate(batch.pairs):
        for tensor, scene in ((batch.shown, pair.source), (batch.target, pair.target)):
            drawn = np.asarray((tensor[row] + 1) * 127.5).round().astype(np.uint8)
            assert np.array_equal(drawn.transpose(1, 2, 0), render(scene).image)
        text = pipe.tokenizer.decode(batch.input_ids[row][batch.attention_mask[row].bool()])
        assert pair.instruction in text and text.count("<|image_pad|>") == TOKENS
    assert torch.equal(batch.features, features_of(batch.target))


def test_the_prompt_of_training_is_that_of_the_pipeline(pipe) -> None:
    from PIL import Image

    builder = pairs(pipe, prompts=pipe.prompts)
    batch, seen = builder(0), []
    encode = type(pipe.model).encode_condition

    def spy(self, ids, mask, **tensors):
        seen.append((ids, mask))
        return encode(self, ids, mask, **tensors)

    type(pipe.model).encode_condition = spy
    try:
        sources = [Image.fromarray(render(pair.source).image) for pair in batch.pairs]
        pipe.edit(sources, batch.captions, output_type="latent")
    finally:
        type(pipe.model).encode_condition = encode
    ids, mask = seen[0]
    assert torch.equal(ids[mask.bool()], batch.input_ids[batch.attention_mask.bool()])


def test_some_chats_ask_for_the_picture_itself(pipe) -> None:
    batch = pairs(pipe, 40, repeat_share=0.5)(0)
    repeats = [wish == RECONSTRUCT for wish in batch.captions]
    assert 8 < sum(repeats) < 32
    for row, again in enumerate(repeats):
        assert torch.equal(batch.shown[row], batch.target[row]) == again
        assert (batch.pairs[row] is None) == again


def test_conversations_mix_text_and_pictures(pipe) -> None:
    text, pictures = talks(pipe, 60)(0)
    learned = learned_texts(text, pipe.tokenizer)
    ends = [row for row, words in enumerate(learned) if words.endswith("[IMG]")]
    assert pictures is not None and 10 < len(ends) < 50
    assert pictures.ids == [text.ids[row] for row in ends]
    assert any(words.count("<|im_end|>") >= 2 for words in learned)  # answers of several turns
    shown = int((text.input_ids == pipe.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum())
    assert shown == TOKENS * len(text.pixels)
    # What is to be drawn is not seen before: at most the source of an edit is.
    places = pictures.input_ids == pipe.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert set(places.sum(dim=1).tolist()) <= {0, TOKENS}


@pytest.mark.parametrize("another", [0.0, 1.0])
def test_the_later_picture_of_a_conversation_is_an_edit_of_the_first_or_another_one(pipe, another) -> None:
    builder = talks(pipe, 40, draw_first=1.0, max_questions=0, another=another)
    later = [talk[1] for talk in builder._talks(0) if len(talk) > 1]
    wishes = [turn.words.startswith(builder.prompts.generate.format(caption="")) for turn in later]
    assert len(later) > 10 and wishes == [bool(another)] * len(later)
    if another:
        assert all(prompt(turn.drawn) in turn.words for turn in later)


@pytest.mark.parametrize("another", [0.0, 1.0])
def test_a_conversation_has_the_tokens_that_the_dialogue_gives_it(pipe, another) -> None:
    # A row that goes on from a drawn picture, turn by turn through the dialogue.
    from PIL import Image

    prompts = Prompts(is_closed=False)
    builder = talks(pipe, 1, draw_first=1.0, max_questions=0, another=another, prompts=prompts)
    for step in range(20):
        _, pictures = builder(step)
        if pictures is not None and pictures.shown is not None:
            break
    caption = builder._conversation(step, np.random.default_rng([step, 41]))
    dialogue = Blip3oPipeline(pipe.model, pipe.tokenizer, pipe.decoder, pipe.card).chat()
    dialogue.pipeline.prompts = prompts
    drawn = Image.fromarray(render(caption[0].drawn).image)
    first, later = (turn.words.removeprefix(prompts.generate.format(caption="")) for turn in caption[:2])
    dialogue.add(Turn("user", first, wish="draw"))
    dialogue.add(Turn("assistant", images=(drawn,), seed=1))
    dialogue.add(Turn("user", later, wish="draw" if another else "edit"))
    header = pipe.inputs.encode(prompts.picture_header(), [])
    expected = pictures.input_ids[0][pictures.attention_mask[0].bool()].tolist()
    assert [*dialogue._context.ids, *header] == expected


def test_a_few_steps_of_training_on_edits_lower_the_loss(patches_of) -> None:
    model = Blip3oPipeline.from_pretrained("tiny").model
    own = Blip3oPipeline.from_pretrained("tiny")
    stage = GenerationStage(model, pairs(own, 16), condition_of(model, patches_of), draws=2)
    learned = [*model.queries.parameters(), *model.dit.parameters()]
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.AdamW(learned, lr=3e-3)

    def loss_at(step: int) -> torch.Tensor:
        return stage.loss(stage.batch(step % 3), torch.Generator().manual_seed(step % 3))[0]

    first = loss_at(0).item()
    for step in range(24):
        optimizer.zero_grad()
        loss_at(step).backward()
        optimizer.step()
    assert loss_at(0).item() < 0.8 * first


def test_conversations_feed_the_text_loss(pipe, patches_of) -> None:
    text, _ = talks(pipe)(0)
    loss = pipe.model.text_loss(
        text.input_ids, text.attention_mask, text.labels, *patches_of(text.pixels)
    )
    assert torch.isfinite(loss) and loss.item() > 1
