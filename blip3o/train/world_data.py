"""Sticker scenes as training batches: pictures, captions and conversations, every batch a function of its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.prompts import SYSTEM, Prompts
from blip3o.stickers import CLASSES, COLORS, Scene, SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption, prompt, short_caption
from blip3o.stickers.questions import Question


@dataclass
class PictureBatch:
    """Scenes with their pictures. ``pixels``: (B, 3, H, W) float32 in [-1, 1]; ``captions``: one a scene."""

    ids: list[str]
    scenes: list[Scene]
    pixels: Tensor
    captions: list[str]


def to_pixels(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) pictures -> (B, 3, H, W) float32 in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def caption_of(scene: Scene, choice: float) -> str:
    """``choice`` in [0, 1): 60 % the GenEval-style prompt, 15 % a paraphrase, 25 % the dense caption."""
    if choice < 0.6:
        return prompt(scene)
    return short_caption(scene) if choice < 0.75 else long_caption(scene)


class Scenes:
    """Consecutive scenes of one split as batches."""

    def __init__(self, split: str, config: SceneConfig, batch_size: int, first: int = 0) -> None:
        self.split, self.config, self.batch_size, self.first = split, config, batch_size, first

    def __call__(self, step: int) -> PictureBatch:
        start = self.first + step * self.batch_size
        scenes = [make_scene(self.split, start + i, self.config) for i in range(self.batch_size)]
        return PictureBatch(
            ids=[f"{self.split}/{start + i}" for i in range(self.batch_size)],
            scenes=scenes,
            pixels=to_pixels([render(scene).image for scene in scenes]),
            captions=[prompt(scene) for scene in scenes],
        )


@dataclass
class TextBatch:
    """Right-padded token ids (B, L) and labels (B, L), -100 where nothing is asked; optional pictures."""

    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    pixels: Tensor | None = None


def chat_pieces(turns: Sequence[tuple[str, str]], n_image_tokens: int) -> list[tuple[str, bool]]:
    """ChatML pieces of (user, assistant) turns, each with whether its tokens are learned.

    ``n_image_tokens`` > 0 puts one picture in front of the first question. Equal to the chat template of
    :mod:`blip3o.train.tokenizer` (tested).
    """
    pieces = [(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n", False)]
    for number, (user, assistant) in enumerate(turns):
        picture = ""
        if number == 0 and n_image_tokens:
            picture = "<|vision_start|>" + "<|image_pad|>" * n_image_tokens + "<|vision_end|>"
        pieces.append(
            (f"<|im_start|>user\n{picture}{user}<|im_end|>\n<|im_start|>assistant\n", False)
        )
        pieces.append((f"{assistant}<|im_end|>", True))
        pieces.append(("\n", False))
    return pieces


def tokenize_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[tuple[str, bool]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces -> (input_ids, attention_mask, labels), each (B, L), padded on the right."""
    rows: list[tuple[list[int], list[int]]] = []
    for pieces in chats:
        encoded = tokenizer([text for text, _ in pieces], add_special_tokens=False)["input_ids"]
        ids: list[int] = []
        wanted: list[int] = []
        for piece_ids, (_, learned) in zip(encoded, pieces, strict=True):
            ids += piece_ids
            wanted += piece_ids if learned else [-100] * len(piece_ids)
        rows.append((ids, wanted))
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, (ids, wanted) in enumerate(rows):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        labels[i, : len(ids)] = torch.tensor(wanted)
        mask[i, : len(ids)] = 1
    return input_ids, mask, labels


# nano is asked as it is trained: the image start token follows an open assistant turn.
PROMPTS = Prompts(is_closed=False)


DESCRIBE = "Describe the image."
IMAGINE = "Describe an image of the following caption: "


def question_text(question: Question) -> str:
    """The question as it is put to a model; lettered choices on lines of their own."""
    options = [
        f"{letter}. {choice}" for letter, choice in zip("ABCD", question.choices, strict=False)
    ]
    return "\n".join([question.question, *options])


@dataclass
class CellBatch:
    """Pictures (B, 3, H, W), and class and colour of every cell of a raster, each (B, n) of
    :class:`CellLabels`' numbers."""

    ids: list[str]
    pixels: Tensor
    classes: Tensor
    colors: Tensor


class CellLabels:
    """Scenes with labels for every cell of a ``grid`` x ``grid`` raster: the sticker that covers most of it, if it
    covers at least ``share``, else no class. Classes are numbered as in CLASSES, colours as in COLORS, then an
    object's own colours, then none."""

    NO_CLASS = len(CLASSES)
    NATURAL, NO_COLOR = len(COLORS), len(COLORS) + 1
    NUM_CLASSES, NUM_COLORS = NO_CLASS + 1, NO_COLOR + 1

    def __init__(
        self,
        split: str,
        config: SceneConfig,
        batch_size: int,
        first: int = 3_000_000,
        grid: int = 4,
        share: float = 0.1,
    ) -> None:
        self.split, self.config, self.batch_size = split, config, batch_size
        self.first, self.grid, self.share = first, grid, share

    def __call__(self, step: int) -> CellBatch:
        start = self.first + step * self.batch_size
        scenes = [make_scene(self.split, start + i, self.config) for i in range(self.batch_size)]
        drawn = [render(scene) for scene in scenes]
        classes = torch.full((self.batch_size, self.grid**2), self.NO_CLASS)
        colors = torch.full((self.batch_size, self.grid**2), self.NO_COLOR)
        for row, (scene, picture) in enumerate(zip(scenes, drawn, strict=True)):
            n, height, width = picture.masks.shape
            blocks = picture.masks.reshape(
                n, self.grid, height // self.grid, self.grid, width // self.grid
            )
            cover = blocks.mean(axis=(2, 4)).reshape(n, -1)  # (stickers, cells)
            best = cover.argmax(axis=0)
            for cell in np.flatnonzero(cover.max(axis=0) >= self.share):
                sticker = scene.stickers[best[cell]]
                classes[row, cell] = CLASSES.index(sticker.class_name)
                colors[row, cell] = COLORS.index(sticker.color) if sticker.color else self.NATURAL
        return CellBatch(
            [f"{self.split}/{start + i}" for i in range(self.batch_size)],
            to_pixels([picture.image for picture in drawn]),
            classes,
            colors,
        )
