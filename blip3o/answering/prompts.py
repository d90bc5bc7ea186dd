"""Questions as the backbone reads them: token ids, and how many of them another question may share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from blip3o.answering.questions import Question
from blip3o.inputs import InputBuilder
from blip3o.prompts import IMAGE_PAD, Prompts, text_mark
from blip3o.vision.preprocess import to_rgb


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question as token ids.

    ``pictures``: RGB, in order. ``head``: how many leading tokens end with the last picture's closing token, 0 without
    pictures. ``key``: equal for two prompts exactly when their heads are.
    """

    ids: tuple[int, ...]
    head: int
    pictures: tuple[Image.Image, ...]
    key: tuple[object, ...]

    def __len__(self) -> int:
        return len(self.ids)


class PromptBuilder:
    """Args: shares_pictures: whether questions about one picture may have one key."""

    def __init__(self, inputs: InputBuilder, prompts: Prompts, shares_pictures: bool = True) -> None:
        self.inputs, self.prompts, self.shares_pictures = inputs, prompts, shares_pictures
        # The first entry keeps a picture alive, so that its id stays its own.
        self._prepared: dict[int, tuple[Image.Image, Image.Image, str]] = {}

    def build(self, questions: Sequence[Question], reserved: int = 1) -> list[Prompt]:
        """Args: reserved: tokens that have to fit after a prompt. Raises: DataError for one that is too long."""
        found = [self._build(number, question) for number, question in enumerate(questions)]
        self.inputs.check_length([prompt.ids for prompt in found], reserved)
        return found

    def _build(self, number: int, question: Question) -> Prompt:
        prepared = [self._prepare(picture) for picture in question.pictures]
        ids = self.inputs.encode(self._render(len(prepared)), [question.text])
        if not prepared:
            return Prompt(tuple(ids), 0, (), ("no picture", number))
        counts = [self.inputs.picture_tokens(rgb) for rgb, _ in prepared]
        [ids] = self.inputs.spread_counts([ids], counts)
        pad = self.inputs.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        # The token that closes the last picture belongs to it. A template that places no pictures has no head.
        head = min(len(ids), _last(ids, pad) + 2) if pad in ids else 0
        own: object = None if self.shares_pictures else number
        key = (own, *ids[:head], *(digest for _, digest in prepared))
        return Prompt(tuple(ids), head, tuple(rgb for rgb, _ in prepared), key)

    def _prepare(self, picture: Image.Image) -> tuple[Image.Image, str]:
        """The RGB picture and the digest of its pixels; done once for a picture that comes again."""
        known = self._prepared.get(id(picture))
        if known is None or known[0] is not picture:
            rgb = to_rgb(picture)
            digest = hashlib.blake2b(rgb.tobytes(), digest_size=16)
            digest.update(repr(rgb.size).encode())
            known = self._prepared[id(picture)] = (picture, rgb, digest.hexdigest())
        return known[1], known[2]

    def _render(self, num_pictures: int) -> str:
        """The chat up to the answer, with a mark for the question."""
        # Templates of language models know plain text only; lists are for those that place pictures.
        content: str | list[dict[str, str]] = text_mark(0)
        if num_pictures:
            pictures = [{"type": "image"} for _ in range(num_pictures)]
            content = [*pictures, {"type": "text", "text": text_mark(0)}]
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": self.prompts.system},
            {"role": "user", "content": content},
        ]
        rendered = self.inputs.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(rendered, str)
        return rendered


def _last(ids: Sequence[int], wanted: int) -> int:
    return len(ids) - 1 - list(reversed(ids)).index(wanted)
