"""Texts and pictures of users -> tensors of the backbone.

User text never acts as a special token: ``<|im_end|>`` or ``[IMG]`` in a caption are read as the characters
they are. Nothing is cut: what does not fit is refused, with its length.

Dimension letters: B batch, L tokens, P patches of all pictures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.backbone import PictureInputs
from blip3o.card import Understanding
from blip3o.errors import DataError, WeightsError
from blip3o.prompts import IMAGE_PAD, text_mark
from blip3o.vision.preprocess import (
    fit_square,
    normalise,
    qwen_patches,
    qwen_size,
    to_rgb,
    to_unit_tensor,
)

logger = logging.getLogger(__name__)

# What a pipeline takes per prompt or question: no picture, one, or several.
Pictures = Image.Image | Sequence[Image.Image] | None
_MARK = re.compile(text_mark(r"(\d+)"))


class Patches(NamedTuple):
    """Pictures for the vision tower: ``pixel_values`` (P, C*t*p*p), ``image_grid_thw`` (pictures, 3), and the
    number of tokens that each picture takes in the prompt."""

    pixel_values: Tensor
    image_grid_thw: Tensor
    tokens: list[int]

    def tensors(self, device: torch.device, dtype: torch.dtype) -> PictureInputs:
        """As keyword arguments of the backbone."""
        return {
            "pixel_values": self.pixel_values.to(device, dtype),
            "image_grid_thw": self.image_grid_thw.to(device),
        }


class InputBuilder:
    """Tokenizer and picture preparation of one model.

    Args: vision: the vision tower's configuration, None for a backbone that reads text only.
        max_tokens: longest sequence of the backbone, None where it names none.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        understanding: Understanding,
        vision: Any | None,
        max_tokens: int | None,
    ) -> None:
        self.tokenizer, self.understanding = tokenizer, understanding
        self.vision, self.max_tokens = vision, max_tokens
        special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        self._special = re.compile(
            "(" + "|".join(map(re.escape, sorted(special, key=len, reverse=True))) + ")"
        )

    # Text

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def encode(self, rendered: str, texts: Sequence[str]) -> list[int]:
        """Token ids of a rendered prompt, whose marks (``blip3o.prompts.text_mark``) stand for user texts.

        Only the template's own special tokens become special ids.
        """
        filled = _fill(rendered, texts)
        if len(self._special.findall(filled)) == len(self._special.findall(rendered)):
            return list(self.tokenizer(filled, add_special_tokens=False, verbose=False)["input_ids"])
        ids: list[int] = []
        for part in self._special.split(rendered):
            if self._special.fullmatch(part):
                token = self.tokenizer.convert_tokens_to_ids(part)
                assert isinstance(token, int)  # one text, one id
                ids.append(token)
            elif part:
                ids += self.encode_text(_fill(part, texts))
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a user's text alone, of which none acts as a special token."""
        return list(
            # Lengths are checked here, in words of ours (``check_length``).
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                "input_ids"
            ]
        )

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)  # of one sequence
        return text

    def pad(self, rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L), padded on ``side`` ("left" or "right")."""
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return ids, mask

    def check_length(self, rows: Sequence[Sequence[int]], reserved: int) -> None:
        """Raises: DataError for a prompt that the backbone cannot read whole with ``reserved`` tokens after it.

        A prompt longer than the tokenizer's own limit is read whole, with a warning.
        """
        for number, row in enumerate(rows):
            if self.max_tokens is not None and len(row) + reserved > self.max_tokens:
                raise DataError(
                    f"prompt {number} has {len(row)} tokens, pictures included; this model reads at most "
                    f"{self.max_tokens - reserved}: shorten the text or leave out a picture"
                )
            if len(row) > self.tokenizer.model_max_length:
                logger.warning(
                    "prompt %d has %d tokens, more than the %d its tokenizer names as limit; it is read whole",
                    number, len(row), self.tokenizer.model_max_length,
                )  # fmt: skip

    # Pictures

    def patches(
        self, pictures: Sequence[Image.Image], size_px: int | None = None
    ) -> Patches | None:
        """Pictures as patches of the vision tower; None for no pictures.

        Args: size_px: side of a square to fit them into instead of the model's own setting.
        Raises: WeightsError for a backbone without a vision tower; DataError for unusable pictures.
        """
        if not pictures:
            return None
        vision, settings = self._require_vision(), self.understanding
        rows, grids, counts = [], [], []
        for picture in pictures:
            side = size_px or settings.size_px
            if side is not None:
                fitted = fit_square(picture, side, settings.fit)
            else:
                picture = to_rgb(picture)
                fitted = picture.resize(self._dynamic_size(picture), Image.Resampling.BICUBIC)
            tensor = normalise(to_unit_tensor([fitted]), settings.mean, settings.std)
            patches, grid = qwen_patches(
                tensor, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
            )
            rows.append(patches)
            grids.append(grid)
            counts.append(int(grid.prod()) // vision.spatial_merge_size**2)
        return Patches(torch.cat(rows), torch.cat(grids), counts)

    def picture_tokens(self, rgb: Image.Image) -> int:
        """How many tokens a picture, RGB already, will take in the prompt. Raises: as ``patches``."""
        _, height, width = self._grid(rgb)
        return height * width // self._require_vision().spatial_merge_size ** 2

    def grids(self, pictures: Sequence[Image.Image]) -> Tensor | None:
        """``image_grid_thw`` (pictures, 3) of RGB pictures, counted in patches; None without pictures."""
        return torch.tensor([self._grid(rgb) for rgb in pictures]) if pictures else None

    def _grid(self, rgb: Image.Image) -> tuple[int, int, int]:
        vision, side = self._require_vision(), self.understanding.size_px
        width, height = (side, side) if side is not None else self._dynamic_size(rgb)
        return 1, height // vision.patch_size, width // vision.patch_size

    def _dynamic_size(self, rgb: Image.Image) -> tuple[int, int]:
        vision = self._require_vision()
        factor = vision.patch_size * vision.spatial_merge_size
        settings = self.understanding
        return qwen_size(*rgb.size, factor, settings.min_pixels, settings.max_pixels)

    def _require_vision(self) -> Any:
        if self.vision is None:
            raise WeightsError(
                "this model's backbone reads text only (it has no vision tower), so it takes no pictures; "
                "leave them out, or load a model with a vision-language backbone"
            )
        return self.vision

    def spread(self, rows: Sequence[Sequence[int]], patches: Patches | None) -> list[list[int]]:
        """Each single picture placeholder, in order, repeated to as many as its picture has tokens."""
        return self.spread_counts(rows, [] if patches is None else patches.tokens)

    def spread_counts(
        self, rows: Sequence[Sequence[int]], tokens: Sequence[int]
    ) -> list[list[int]]:
        """The same from the pictures' numbers of tokens."""
        if not tokens:
            return [list(row) for row in rows]
        counts = iter(tokens)
        pad = self.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        return [[i for id_ in row for i in [id_] * (next(counts) if id_ == pad else 1)] for row in rows]


def _fill(rendered: str, texts: Sequence[str]) -> str:
    return _MARK.sub(lambda match: texts[int(match[1])], rendered)


def checked_texts(values: str | Sequence[str], name: str) -> list[str]:
    """One text or several as a list. Raises: DataError naming the first that is unusable."""
    texts = [values] if isinstance(values, str) else values
    if not isinstance(texts, Sequence) or isinstance(texts, bytes) or not texts:
        raise DataError(
            f"{name} must be a text or a list of texts, and not empty; got {_shown(values)}"
        )
    for number, text in enumerate(texts):
        which = name if len(texts) == 1 else f"{name} {number}"
        if not isinstance(text, str):
            raise DataError(f"{which} must be a text, got {_shown(text)}")
        if not text.strip():
            raise DataError(f"{which} is empty; write what is wanted")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{which} holds a half of a surrogate pair at character {error.start}, which is no text; remove it"
            ) from None
    return list(texts)


def pictures_per_text(pictures: Any, count: int, name: str) -> list[list[Image.Image]]:
    """Pictures of ``count`` prompts: None, one for all, or a list with an entry (picture, list, None) a prompt.

    Raises: DataError for a wrong number, an entry that is no picture, or a damaged one.
    """
    if pictures is None:
        return [[] for _ in range(count)]
    if isinstance(pictures, Image.Image):
        checked_picture(pictures)
        return [[pictures] for _ in range(count)]
    if not isinstance(pictures, Sequence) or isinstance(pictures, (str, bytes)):
        checked_picture(pictures)
    if len(pictures) != count:
        noun = "prompt needs an input picture" if count == 1 else "prompts need as many input pictures"
        raise DataError(
            f"{count} {noun} ({name}), got {len(pictures)}; several pictures of one prompt go into a list of their own"
        )
    entries = []
    for entry in pictures:
        is_list = isinstance(entry, Sequence) and not isinstance(entry, (str, bytes))
        own = list(entry) if is_list else [] if entry is None else [entry]
        for picture in own:
            checked_picture(picture)
        entries.append(own)
    return entries


def checked_picture(picture: Any) -> None:
    """Raises: DataError for what is no PIL picture, has no pixels, or breaks off in the middle."""
    if not isinstance(picture, Image.Image):
        raise DataError(
            f"a picture must be a PIL image, got {type(picture).__name__}; open it with PIL.Image.open"
        )
    if 0 in picture.size:
        raise DataError(f"a picture of {picture.width}x{picture.height} px has no pixels")
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        source = getattr(picture, "filename", "") or "the picture"
        raise DataError(
            f"{source} is damaged or cut short ({error}); fetch or save it again"
        ) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"
