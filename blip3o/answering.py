"""Questions, with or without pictures -> answers in text. Functions of explicit parts.

Dimension letters: B batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from blip3o.inputs import InputBuilder
from blip3o.prompts import Prompts, text_mark
from blip3o.storage import quiet_transformers
from blip3o.unified import Blip3oModel

MAX_NEW_TOKENS = 128


def answer(
    model: Blip3oModel,
    inputs: InputBuilder,
    prompts: Prompts,
    pictures: Sequence[Sequence[Image.Image]],
    questions: Sequence[str],
    max_new_tokens: int,
    device: torch.device,
    stop: Sequence[str] = (),
) -> list[str]:
    """One greedy answer per question, by the tokenizer's own chat template.

    An answer ends with the turn, before the first of the texts ``stop``, after ``max_new_tokens``, or where the
    backbone's longest sequence is full.
    Raises: DataError for a question longer than the backbone reads.
    """
    rows = [
        inputs.encode(_render(inputs, prompts, len(own)), [question])
        for question, own in zip(questions, pictures, strict=True)
    ]
    patches = inputs.patches([picture for own in pictures for picture in own])
    rows = inputs.spread(rows, patches)
    inputs.check_length(rows, reserved=1)
    if inputs.max_tokens is not None:
        max_new_tokens = min(max_new_tokens, inputs.max_tokens - max(map(len, rows)))
    ids, mask = inputs.pad(rows, side="left")
    tensors = {} if patches is None else patches.tensors(device, model.dtype)
    ending: dict[str, Any] = {}
    if stop:
        ending = {"stop_strings": list(stop), "tokenizer": inputs.tokenizer}
    with quiet_transformers():
        new = model.backbone.generate(
            ids.to(device),
            mask.to(device),
            **tensors,
            **ending,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=inputs.tokenizer.eos_token_id,
            pad_token_id=inputs.pad_id,
        )
    texts = inputs.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [_before(text, stop).strip() for text in texts]


def _before(text: str, stop: Sequence[str]) -> str:
    ends = [place for end in stop if (place := text.find(end)) >= 0]
    return text[: min(ends)] if ends else text


def _render(inputs: InputBuilder, prompts: Prompts, num_pictures: int) -> str:
    """The chat up to the answer, with a mark for the question."""
    # Templates of language models know plain text only; lists are for those that place pictures.
    content: str | list[dict[str, str]] = text_mark(0)
    if num_pictures:
        pictures = [{"type": "image"} for _ in range(num_pictures)]
        content = [*pictures, {"type": "text", "text": text_mark(0)}]
    messages = [
        {"role": "system", "content": prompts.system},
        {"role": "user", "content": content},
    ]
    rendered: str = inputs.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    return rendered
