"""Ways of computing the same thing agree, on random weights and on trained ones.

Batch 1 = batch N and float32 = bf16 of every mode are in test_modes.py, the same of every design and backbone in
test_variants.py, conversations in test_dialogue.py. docs/modes.md has the tolerances.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from blip3o.answering.prompts import PromptBuilder
from blip3o.answering.questions import Question
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import COLORS, SceneConfig, make_scene, render
from tasks.understanding.stickers_words import classes_named

MODELS = ("tiny", "nano")
CAPTIONS = ("a photo of a dog", "a photo of three yellow benchs and a clock", "a cup")


@cache
def load(name: str, dtype: torch.dtype = torch.float32) -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained(name, dtype=dtype)


@cache
def scenes(count: int = 12) -> tuple[Image.Image, ...]:
    world = SceneConfig.level("easy")
    return tuple(Image.fromarray(render(make_scene("val", i, world)).image) for i in range(count))


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def prompt_of(pipe: Blip3oPipeline, text: str, pictures: tuple[Image.Image, ...]):
    """Token ids (1, L) of one question and what its pictures hand to the backbone."""
    [prompt] = PromptBuilder(pipe.inputs, pipe.prompts).build([Question(text, pictures)])
    return torch.tensor([prompt.ids]), pipe.inputs.patches(pictures).tensors(pipe.device, pipe.dtype)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_eager_attention_is_the_fused_kernels(name: str) -> None:
    """Text states, query states with a picture in the prompt, and sampled features: plain products against kernels."""
    fused = load(name)
    model = copy.deepcopy(fused.model)
    model.backbone.vlm.set_attn_implementation("eager")
    ids, picture = prompt_of(fused, "Is there a dog in the picture?", scenes()[:1])
    for compute in (
        lambda m: m.backbone.text_logits(ids, torch.ones_like(ids), **picture),
        lambda m: m.encode_condition(ids, **picture),
    ):
        torch.testing.assert_close(compute(model), compute(fused.model), atol=1e-4, rtol=1e-4)
    condition = fused.model.encode_condition(ids, **picture)
    features = fused.model.sample_features(condition, generators=seeds(1))
    with sdpa_kernel([SDPBackend.MATH]):
        plain = fused.model.sample_features(condition, generators=seeds(1))
    torch.testing.assert_close(plain, features, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_on_either_side_changes_no_state_and_no_features_of_nano() -> None:
    model, inputs = load("nano").model, load("nano").inputs
    rows = [inputs.encode(f"<|im_start|>user\n{caption}<|im_end|>\n", []) for caption in CAPTIONS]
    alone = [model.encode_condition(torch.tensor([row])) for row in rows]
    features = [
        model.sample_features(condition, generators=[seed])
        for condition, seed in zip(alone, seeds(3), strict=True)
    ]
    for side in ("left", "right"):
        together = model.encode_condition(*inputs.pad(rows, side=side))
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
        made = model.sample_features(together, generators=seeds(3))
        # 20 steps with guidance carry the rounding on; features have unit variance
        torch.testing.assert_close(made, torch.cat(features), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_answer_on_the_cache_is_the_answer_without(name: str) -> None:
    """Without: the whole chat read anew for every token."""
    pipe = load(name)
    backbone, end = pipe.model.backbone, pipe.tokenizer.eos_token_id
    for picture, text in zip(scenes()[:3], ("Describe the image.", "What color is it?", "where"), strict=True):
        ids, tensors = prompt_of(pipe, text, (picture,))
        written: list[int] = []
        while len(written) < 12:
            row = torch.cat([ids, torch.tensor([written], dtype=torch.long)], dim=1)
            token = int(backbone.text_logits(row, torch.ones_like(row), **tensors)[0, -1].argmax())
            if token == end:
                break
            written.append(token)
        anew = pipe.tokenizer.decode(written, skip_special_tokens=True).strip()
        assert pipe.ask(picture, text, max_new_tokens=12) == anew


def test_nano_saved_is_nano_loaded(tmp_path: Path) -> None:
    pipe = load("nano")
    pipe.save_pretrained(tmp_path)
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    for part in ("model", "decoder", "target_encoder"):
        before, after = getattr(pipe, part).state_dict(), getattr(loaded, part).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    pictures = [np.asarray(p("a photo of a dog", generator=seeds(1)).images[0]) for p in (pipe, loaded)]
    assert np.array_equal(*pictures)
    words = "Describe the image."
    assert pipe.ask(scenes()[0], words) == loaded.ask(scenes()[0], words)


def told(text: str) -> tuple[list[str], set[str]]:
    """What a description says, whichever of the equally good wordings it says it in."""
    facts = {*COLORS, "left", "right", "top", "bottom", "middle", "large", "usual"}
    return list(dict.fromkeys(classes_named(text))), facts & set(text.replace(".", " ").split())


def test_nano_answers_in_half_precision_nearly_always_alike() -> None:
    words = ["What color is it?", "Describe the image."]
    images = [picture for picture in scenes() for _ in words]
    exact, low = (load("nano", d).ask_batch(images, words * 12) for d in (torch.float32, torch.bfloat16))
    assert all(exact) and len(set(exact[1::2])) > 6
    same = sum(a == b for a, b in zip(exact[::2], low[::2], strict=True))
    same += sum(told(a) == told(b) for a, b in zip(exact[1::2], low[1::2], strict=True))
    assert same >= 20, f"{same} of 24 answers are the same"
