"""Conversations: cached = uncached, the first turn = the single call, rebuilt = uninterrupted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from blip3o.dialogue import Dialogue, Turn
from blip3o.errors import ConfigError, DataError, WeightsError
from blip3o.pipeline import Blip3oPipeline


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained("tiny")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))


def seed(value: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value)]


def distance(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


def talk(dialogue: Dialogue, photo: Image.Image) -> list:
    """Text and pictures both ways, in six turns of each side."""
    return [
        dialogue.ask("what?", [photo], max_new_tokens=3),
        dialogue.draw("a dog"),
        dialogue.ask("is it a dog?", max_new_tokens=3),
        dialogue.edit("make it red"),
        dialogue.edit("mix it in", [photo]),
        dialogue.ask("and now?", max_new_tokens=3),
    ]


def same(first: list, second: list, tolerance: int) -> bool:
    return all(
        distance(a, b) <= tolerance if isinstance(a, Image.Image) else a == b
        for a, b in zip(first, second, strict=True)
    )


def test_cached_is_uncached(pipe, photo) -> None:
    cached, anew = (pipe.chat(use_cache=flag) for flag in (True, False))
    assert same(talk(cached, photo), talk(anew, photo), tolerance=1)
    assert [turn.role for turn in cached.turns] == ["user", "assistant"] * 6


def test_the_states_behind_the_replies_agree_too(pipe, photo) -> None:
    cached, anew = (pipe.chat(use_cache=flag) for flag in (True, False))
    for dialogue in (cached, anew):
        talk(dialogue, photo)
    assert torch.allclose(cached._condition(), anew._condition(), atol=1e-5)
    context = cached._context
    anew._restart_readers()
    assert torch.allclose(cached._own.read(context), anew._own.read(context), atol=1e-5)


def test_every_turn_is_read_once(pipe, photo, monkeypatch) -> None:
    dialogue, lengths = pipe.chat(), []
    forward = type(pipe.model.backbone).forward
    monkeypatch.setattr(
        type(pipe.model.backbone), "forward",
        lambda self, x, *a, **k: lengths.append(x.shape[1]) or forward(self, x, *a, **k),
    )  # fmt: skip
    pictures = []
    embed = type(pipe.model.backbone).embed
    monkeypatch.setattr(
        type(pipe.model.backbone), "embed",
        lambda self, ids, **k: pictures.append(k.get("pixel_values")) or embed(self, ids, **k),
    )  # fmt: skip
    for number in range(4):
        dialogue.draw(f"dog {number}")
    read, scaffold = sum(lengths[::2]), lengths[1::2]
    final = dialogue.turns[-1]  # its picture was not read yet
    unread = len(pipe.inputs.encode("<|im_start|>assistant\n<|im_end|>\n", []))
    assert read == len(dialogue._context) - unread - 2 - 4  # the last turn: vision tokens and four cells
    assert final.images and len(set(scaffold)) == 1  # header, start token and queries, forgotten each time
    assert sum(p is not None for p in pictures) == 4  # each drawn picture went through the tower once


def test_the_first_turn_is_the_single_call(pipe, photo) -> None:
    assert distance(pipe.chat(seed=7).draw("a dog"), pipe("a dog", generator=seed(7)).images[0]) <= 1
    changed = pipe.chat(seed=7).edit("make it red", [photo])
    assert distance(changed, pipe.edit(photo, "make it red", generator=seed(7)).images[0]) <= 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_state_before_an_answer_is_that_of_transformers_own_forward(pipe, photo, count: int) -> None:
    # Independent truth: the whole chat in one pass of the vision-language model, with its own positions.
    pictures = [photo, Image.new("RGB", (9, 9), "red")][:count]
    dialogue = pipe.chat()
    dialogue.ask("what?", max_new_tokens=2)
    dialogue.add(Turn("user", "what is it?", tuple(pictures)))
    context = dialogue._extended("<|im_start|>assistant\n")
    mine = pipe.model.backbone.logits(dialogue._own.read(context))
    ids = torch.tensor([context.ids])
    patches = pipe.inputs.patches(pictures)
    tensors = {} if patches is None else patches.tensors(torch.device("cpu"), torch.float32)
    with torch.no_grad():
        theirs = pipe.model.backbone.text_logits(ids, torch.ones_like(ids), **tensors)[:, -1]
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_first_answer_is_that_of_the_single_question(pipe, photo) -> None:
    for images in ([], [photo], [photo, photo]):
        first = pipe.chat().ask("what is it?", images, max_new_tokens=6)
        assert first == pipe.ask(images, "what is it?", max_new_tokens=6)


def test_a_drawn_picture_is_seen_in_later_turns(pipe) -> None:
    def state_after(picture: Image.Image) -> torch.Tensor:
        dialogue = pipe.chat()
        dialogue.add(Turn("user", "a dog", wish="draw"))
        dialogue.add(Turn("assistant", images=(picture,), seed=42))
        dialogue.add(Turn("user", "what is it?"))
        return dialogue._own.read(dialogue._context)

    red, blue = (state_after(Image.new("RGB", (32, 32), color)) for color in ("red", "blue"))
    assert not torch.allclose(red, blue, atol=1e-4)


def test_a_conversation_rebuilt_from_its_turns_goes_on_the_same(pipe, photo) -> None:
    whole = pipe.chat(seed=5)
    talk(whole, photo)
    rebuilt = pipe.chat(seed=5)
    for turn in whole.turns:
        rebuilt.add(turn)
    assert rebuilt._context.ids == whole._context.ids
    assert distance(rebuilt.draw("a bus"), whole.draw("a bus")) <= 1
    assert whole.turns[-1].seed == rebuilt.turns[-1].seed == 5 + 3  # three pictures came before


def test_a_failed_turn_leaves_the_conversation_as_it_was(pipe, photo) -> None:
    dialogue, twin = pipe.chat(), pipe.chat()
    for one in (dialogue, twin):
        one.draw("a dog")
    before = dialogue._context.ids
    for call in (
        lambda: dialogue.draw(" "), lambda: dialogue.ask("x", ["photo.png"]),
        lambda: dialogue.draw("a", num_inference_steps=0), lambda: dialogue.ask("dog " * 2000),
        lambda: dialogue.ask("x", max_new_tokens=0), lambda: dialogue.draw("a", colour="red"),
    ):  # fmt: skip
        with pytest.raises((DataError, ConfigError)):
            call()
        assert dialogue._context.ids == before and len(dialogue.turns) == 2
    assert distance(dialogue.edit("red"), twin.edit("red")) <= 1


def test_turns_alternate_and_edits_need_a_picture(pipe) -> None:
    dialogue = pipe.chat()
    with pytest.raises(DataError, match="turn 0 must be the user's, got 'assistant': turns alternate"):
        dialogue.add(Turn("assistant", "hello"))
    with pytest.raises(DataError, match="no picture to edit in this conversation; give one, or draw"):
        dialogue.edit("make it red")
    with pytest.raises(ConfigError, match="a conversation sets generator itself"):
        dialogue.draw("a dog", generator=seed(1))


def test_the_model_may_choose_to_draw(pipe, monkeypatch) -> None:
    start = pipe.model.config.tokens.image_start
    logits = type(pipe.model.backbone).logits

    def eager(self, states):
        values = logits(self, states)
        values[..., start] = 1e4
        return values

    monkeypatch.setattr(type(pipe.model.backbone), "logits", eager)
    dialogue = pipe.chat()
    assert isinstance(dialogue.send("show me a dog"), Image.Image)
    assert isinstance(dialogue.ask("what is it?", max_new_tokens=2), str)  # asked for text, it answers in text
    assert [bool(turn.images) for turn in dialogue.turns] == [False, True, False, False]


def test_half_precision_says_nearly_the_same() -> None:
    exact, low = (Blip3oPipeline.from_pretrained("tiny", dtype=d) for d in (None, torch.bfloat16))
    pictures = []
    for one in (exact, low):
        dialogue = one.chat()
        dialogue.draw("a dog")
        pictures.append(np.asarray(dialogue.edit("make it red"), dtype=int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 5


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3-siglip2", "tiny-clip-mse", "tiny-vae-flow"])
def test_other_variants_talk_too(name: str, photo) -> None:
    pipe = Blip3oPipeline.from_pretrained(name)
    sees = pipe.model.backbone.vision_config is not None
    replies = []
    for use_cache in (True, False):
        dialogue = pipe.chat(use_cache=use_cache)
        replies.append([dialogue.ask("what?", [photo] if sees else [], max_new_tokens=3)])
        if sees:
            replies[-1] += [dialogue.draw("a dog"), dialogue.edit("make it red")]
    assert same(*replies, tolerance=1)
    if not sees:
        with pytest.raises(WeightsError, match="reads text only"):
            dialogue.ask("what?", [photo])
