"""Prompt texts. No torch here: the harness and the trainer use the same strings.

ChatML as in Qwen2.5-VL. The released models were trained with an empty, closed assistant turn before the
image start token but are asked with an open one; ``is_closed`` says which a model wants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

SYSTEM = "You are a helpful assistant."
GENERATE = "Please generate image based on the following caption: {caption}"
RECONSTRUCT = "Please reconstruct the given image."
UNCONDITIONAL = " "  # the raw text, without chat, that stands for "no prompt" in the pixel decoder


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Texts of one model. ``is_closed``: an empty assistant turn ends before the image start token."""

    system: str = SYSTEM
    generate: str = GENERATE
    is_closed: bool = True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def generation(self, caption: str, pictures: str = "") -> str:
        """The whole text before the image start token. ``pictures``: placeholders of input pictures; with
        them the caption is an instruction and stands alone."""
        user = f"{pictures}\n{caption}" if pictures else self.generate.format(caption=caption)
        ending = "<|im_end|>\n" if self.is_closed else ""
        return (
            f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            f"<|im_start|>assistant\n{ending}"
        )


def without_special_tokens(text: str, special_tokens: Iterable[str]) -> str:
    """The text with a space inside each special token, so that a caption cannot end its turn or place pictures."""
    for token in special_tokens:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
