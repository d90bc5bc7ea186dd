"""The sticker world as a table of records, so that recipes can train on it like on any data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from blip3o.errors import ConfigError
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption
from blip3o.stickers.questions import questions
from blip3o.train.world_data import DESCRIBE, caption_of, question_text

DESCRIBED = 0.25  # share of conversations that ask for a description


@dataclass
class StickerTable:
    """Scenes ``first`` to ``first + rows`` of a split as rows: a picture with a caption, or a conversation about it.

    A row is a pure function of its number. ``level``: ``easy`` or ``full``.
    """

    level: str = "easy"
    split: str = "train"
    rows: int = 1_000_000
    first: int = 0
    kind: Literal["captions", "conversations"] = "captions"
    max_questions: int = 6

    def __post_init__(self) -> None:
        self.config = SceneConfig.level(self.level)
        if self.rows < 1 or self.first < 0:
            raise ConfigError(f"stickers: rows {self.rows}, first {self.first}: at least 1 and 0")

    @classmethod
    def parse(cls, text: str, split: str, kind: str) -> StickerTable:
        """``level``, ``level:rows`` or ``level:rows:first``. Raises: ConfigError."""
        level, *numbers = text.split(":")
        if len(numbers) > 2 or not all(number.isdigit() for number in numbers):
            raise ConfigError(f"stickers: '{text}' is not level, level:rows or level:rows:first")
        if kind not in ("captions", "conversations"):
            raise ConfigError(f"stickers: kind '{kind}' is not there: captions or conversations")
        sizes = dict(zip(("rows", "first"), map(int, numbers), strict=False))
        return cls(level, split, kind=kind, **sizes)  # type: ignore[arg-type]  # one of the two

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, number: int) -> dict[str, Any]:
        index = self.first + number
        scene = make_scene(self.split, index, self.config)
        rng = np.random.default_rng([index, 37])
        row = {"id": f"{self.split}/{index}", "image": Image.fromarray(render(scene).image)}
        if self.kind == "captions":
            return {**row, "caption": caption_of(scene, float(rng.random()))}
        if rng.random() < DESCRIBED:
            turns = [(DESCRIBE, long_caption(scene))]
        else:
            asked = questions(scene, int(rng.integers(2**31)))
            order = rng.permutation(len(asked))[: self.max_questions]
            turns = [(question_text(asked[k]), asked[k].answer) for k in order]
        turns[0] = ("<image>" + turns[0][0], turns[0][1])
        talk = [
            message
            for user, assistant in turns
            for message in ({"from": "human", "value": user}, {"from": "gpt", "value": assistant})
        ]
        return {**row, "conversations": talk}
