"""Conversations about sticker scenes as training batches: text and pictures both ways.

A conversation draws or shows a picture, asks about it, edits it or wishes for another one, and asks again. It is cut
after a random turn; what is learned is every answer in text, the image start token where a picture follows, and that
picture itself. Pictures of earlier turns are shown to the vision tower whoever made them, as ``blip3o.dialogue`` does
at inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.prompts import ASSISTANT, TURN_END, Prompts, user_turn
from blip3o.stickers import Scene, SceneConfig, make_scene, render
from blip3o.stickers.captions import prompt
from blip3o.stickers.edits import EDIT_KINDS, make_edit
from blip3o.stickers.questions import questions
from blip3o.train.edit_data import (
    PictureTurnBatch,
    features_without_grad,
    pad_right,
    vision_block,
)
from blip3o.train.tokenizer import IMAGE_START
from blip3o.train.world_data import PROMPTS, TextBatch, question_text, to_pixels, tokenize_chats

Piece = tuple[str, bool]  # text, and whether its tokens are learned


@dataclass(frozen=True)
class _Turn:
    """A user's words with pictures, and the reply: a text, or a scene to draw."""

    words: str
    shown: tuple[Scene, ...] = ()
    answer: str = ""
    drawn: Scene | None = None


class Dialogues:
    """Conversations of one split: (text batch, picture batch or None) per step.

    The text batch holds every conversation with its learned answers; the picture batch those
    that end in a picture (``GenerationStage`` through ``edit_data.condition_of``).
    Args: max_questions: between two pictures. draw_first: share that begins with a drawn, not a shown, picture.
        another: share whose later picture has nothing to do with the first; without any, wishes are taken for edits.
    """

    def __init__(
        self,
        split: str,
        config: SceneConfig,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        n_image_tokens: int,
        *,
        first: int = 0,
        max_questions: int = 2,
        draw_first: float = 0.5,
        another: float = 0.35,
        kinds: tuple[str, ...] = EDIT_KINDS,
        prompts: Prompts = PROMPTS,
        features_of: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split, self.config, self.tokenizer = split, config, tokenizer
        self.batch_size, self.first, self.kinds = batch_size, first, kinds
        self.max_questions, self.draw_first, self.another = max_questions, draw_first, another
        self.prompts, self.features_of = prompts, features_of
        self.block = vision_block(n_image_tokens)

    def conversations(self, step: int) -> list[tuple[list[Piece], list[Scene]]]:
        """A step's conversations as pieces, each with the scenes of the pictures shown in it."""
        found = []
        for talk in self._talks(step):
            shown = [scene for turn in talk for scene in _seen(turn)]
            found.append((self._pieces(talk), shown[:-1] if talk[-1].drawn is not None else shown))
        return found

    def _talks(self, step: int) -> list[list[_Turn]]:
        start = self.first + step * self.batch_size
        rng = np.random.default_rng([step, 41])
        return [self._conversation(start + i, rng) for i in range(self.batch_size)]

    def __call__(self, step: int) -> tuple[TextBatch, PictureTurnBatch | None]:
        start, talks = self.first + step * self.batch_size, self.conversations(step)
        seen = [scene for _, shown in talks for scene in shown]
        text = TextBatch(
            [f"{self.split}/dialogue/{start + i}" for i in range(self.batch_size)],
            *tokenize_chats(self.tokenizer, [pieces for pieces, _ in talks]),
            pixels=to_pixels([render(scene).image for scene in seen]) if seen else None,
        )
        return text, self.pictures(step)

    def pictures(self, step: int) -> PictureTurnBatch | None:
        """The conversations of a step that end in a picture; None where none does."""
        start = self.first + step * self.batch_size
        talks = [(i, t) for i, t in enumerate(self._talks(step)) if t[-1].drawn is not None]
        if not talks:
            return None
        # The start token, the last piece, is added by the model itself; the last picture is to be drawn, not seen.
        prefixes = ["".join(piece for piece, _ in self._pieces(talk)[:-1]) for _, talk in talks]
        before = [s for _, talk in talks for s in [s for turn in talk for s in _seen(turn)][:-1]]
        drawn = [talk[-1].drawn for _, talk in talks if talk[-1].drawn is not None]
        target = to_pixels([render(scene).image for scene in drawn])
        return PictureTurnBatch(
            [f"{self.split}/dialogue/{start + i}" for i, _ in talks],
            *pad_right(self.tokenizer, prefixes),
            shown=to_pixels([render(scene).image for scene in before]) if before else None,
            target=target,
            features=features_without_grad(self.features_of, target),
            captions=[talk[-1].words for _, talk in talks],
            scenes=drawn,
        )

    def _conversation(self, index: int, rng: np.random.Generator) -> list[_Turn]:
        pair = make_edit(self.split, index, self.config, self.kinds)
        if rng.random() < self.draw_first:
            turns = [_Turn(self.prompts.wish(prompt(pair.source)), drawn=pair.source)]
            turns += self._questions(pair.source, rng, 0)
        else:
            first, *more = self._questions(pair.source, rng, 1)
            turns = [_Turn(first.words, (pair.source,), first.answer), *more]
        if rng.random() < self.another:
            drawn = make_scene(self.split, index, self.config)
            turns.append(_Turn(self.prompts.wish(prompt(drawn)), drawn=drawn))
        else:
            drawn = pair.target
            turns.append(_Turn(pair.instruction, drawn=drawn))
        turns += self._questions(drawn, rng, 0)
        return turns[: int(rng.integers(1, len(turns) + 1))]

    def _questions(self, scene: Scene, rng: np.random.Generator, least: int) -> list[_Turn]:
        asked = questions(scene, int(rng.integers(2**31)))
        count = int(rng.integers(least, max(least, self.max_questions) + 1))
        chosen = rng.permutation(len(asked))[:count]
        return [_Turn(question_text(asked[k]), answer=asked[k].answer) for k in chosen]

    def _pieces(self, talk: list[_Turn]) -> list[Piece]:
        pieces: list[Piece] = [(self.prompts.system_turn(), False)]
        for turn in talk:
            pieces.append((user_turn(self.block * len(turn.shown) + turn.words), False))
            if turn.drawn is None:
                pieces += [(ASSISTANT, False), (f"{turn.answer}<|im_end|>", True), ("\n", False)]
            elif turn is talk[-1]:
                pieces += [(self.prompts.picture_header(), False), (IMAGE_START, True)]
            else:
                pieces.append((ASSISTANT + self.block + TURN_END, False))
        return pieces


def _seen(turn: _Turn) -> tuple[Scene, ...]:
    return turn.shown if turn.drawn is None else (*turn.shown, turn.drawn)


def learned_texts(batch: TextBatch, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each conversation of a batch teaches, for a look at the data."""
    return [
        str(tokenizer.decode(ids[labels != -100]))
        for ids, labels in zip(batch.input_ids, batch.labels, strict=True)
    ]


