"""Prompt texts. No torch here: the harness and the trainer use the same strings.

ChatML as in Qwen2.5-VL. The released models were trained with an empty, closed assistant turn before the
image start token but are asked with an open one; ``is_closed`` says which a model wants.

| mode | user turn | assistant turn |
| --- | --- | --- |
| text or picture to text | pictures, then the question | the answer |
| text to picture | ``generate`` with the caption | image start token, queries |
| picture to picture | pictures, a line break, the instruction as it is | image start token, queries |

In a dialogue, a picture that the model made stands in its turn as it would in a user's: between the vision
tokens, read by the vision tower. The start token and the queries that made it are left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SYSTEM = "You are a helpful assistant."
GENERATE = "Please generate image based on the following caption: {caption}"
RECONSTRUCT = "Please reconstruct the given image."
UNCONDITIONAL = " "  # the raw text, without chat, that stands for "no prompt" in the pixel decoder
IMAGE_PAD = "<|image_pad|>"
VISION_BLOCK = f"<|vision_start|>{IMAGE_PAD}<|vision_end|>"  # the placeholder repeats per picture token
TURN_END = "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Texts of one model. ``is_closed``: an empty assistant turn ends before the image start token."""

    system: str = SYSTEM
    generate: str = GENERATE
    is_closed: bool = True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def system_turn(self) -> str:
        return f"<|im_start|>system\n{self.system}{TURN_END}"

    def wish(self, caption: str, pictures: str = "") -> str:
        """The user's words that ask for a picture: a caption, or an instruction about ``pictures``."""
        return f"{pictures}\n{caption}" if pictures else self.generate.format(caption=caption)

    def generation(self, caption: str, pictures: str = "") -> str:
        """The whole text before the image start token. ``pictures``: placeholders of input pictures; with
        them the caption is an instruction and stands alone."""
        return self.system_turn() + user_turn(self.wish(caption, pictures)) + self.picture_header()

    def picture_header(self) -> str:
        """What stands between the user's turn and the image start token."""
        return ASSISTANT + (TURN_END if self.is_closed else "")


def user_turn(text: str) -> str:
    return f"<|im_start|>user\n{text}{TURN_END}"


def text_mark(number: int | str) -> str:
    """Stands in a rendered prompt for the user's text ``number``, so that only the template is searched for special
    tokens (``blip3o.inputs``). Made of characters for private use."""
    return f"\ue000{number}\ue001"
