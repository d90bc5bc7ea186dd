"""What a training record holds, and how one is read from its raw fields.

Two kinds: a picture with a caption, and a conversation about pictures. A field that is missing, is not text or does
not decode raises DataError naming the record; the loader counts it and goes on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from blip3o.errors import DataError
from blip3o.vision.preprocess import to_rgb

IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp", "image", "img_path")
CAPTION_FIELDS = ("txt", "caption", "text", "prompt")
PLACEHOLDER = "<image>"  # stands in a turn where a picture belongs, as in LLaVA's files


@dataclass(frozen=True)
class RawRecord:
    """A record as it lies in its shard. ``key`` names it in messages; ``fields`` are bytes, text, tables or pictures,
    by file extension (archives) or column (tables)."""

    key: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class CaptionRecord:
    """A picture (RGB) and the text that describes it."""

    key: str
    image: Image.Image
    caption: str


@dataclass(frozen=True)
class InstructionRecord:
    """A conversation: (user, assistant) turns, and the pictures (RGB) in the order in which ``<image>`` stands in
    the user's texts."""

    key: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[Image.Image, ...] = field(default=())


Record = CaptionRecord | InstructionRecord


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How fields become a record. ``root``: folder of pictures that are named by path; a path that leaves it is
    refused. ``max_pixels``: larger pictures are refused before they are decoded."""

    image_fields: Sequence[str] = IMAGE_FIELDS
    caption_fields: Sequence[str] = CAPTION_FIELDS
    root: Path | None = None
    max_pixels: int = 89_478_485  # Pillow's own warning limit

    def caption(self, raw: RawRecord) -> CaptionRecord:
        """Raises: DataError if the picture or the caption is missing or damaged."""
        return CaptionRecord(raw.key, self.picture(raw), self.text(raw))

    def picture(self, raw: RawRecord) -> Image.Image:
        """The picture alone; no caption is needed. Raises: DataError."""
        name, image = _first(raw, self.image_fields, "picture")
        return self._image(raw.key, name, image)

    def text(self, raw: RawRecord) -> str:
        """The caption alone; the picture is not decoded. Raises: DataError."""
        caption_name, caption = _first(raw, self.caption_fields, "caption")
        if isinstance(caption, bytes):
            try:
                caption = caption.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise DataError(f"record '{raw.key}': '{caption_name}' is not UTF-8 text") from None
        if not isinstance(caption, str):
            kind = type(caption).__name__
            raise DataError(f"record '{raw.key}': '{caption_name}' must be text, got {kind}")
        if not caption.strip():
            raise DataError(f"record '{raw.key}': '{caption_name}' is empty")
        return caption.strip()

    def conversation(self, raw: RawRecord) -> InstructionRecord:
        """LLaVA's form (``conversations``: from human or gpt, value) or chat messages (``messages``: role, content).

        Raises: DataError if turns do not alternate, a text is missing, or pictures and placeholders differ in number.
        """
        turns = tuple(_turns(raw))
        found: Any = next((raw.fields[name] for name in self.image_fields if raw.fields.get(name)), [])
        given = list(found) if isinstance(found, list | tuple) else [found]
        wanted = sum(user.count(PLACEHOLDER) for user, _ in turns)
        if wanted != len(given):
            raise DataError(
                f"record '{raw.key}': {wanted} {PLACEHOLDER} in its turns but {len(given)} pictures"
            )
        images = tuple(self._image(raw.key, "image", image) for image in given)
        return InstructionRecord(raw.key, turns, images)

    def _image(self, key: str, name: str, value: Any) -> Image.Image:
        if isinstance(value, Mapping):  # the form of Hugging Face datasets and of parquet files
            value = value.get("bytes") or value.get("path")
        try:
            if isinstance(value, str):
                value = Image.open(self._path(key, value))
            elif isinstance(value, bytes):
                value = Image.open(io.BytesIO(value))
            elif not isinstance(value, Image.Image):
                kind = type(value).__name__
                raise DataError(f"record '{key}': '{name}' must be a picture, got {kind}")
            if value.width * value.height > self.max_pixels:
                raise DataError(
                    f"record '{key}': a picture of {value.width}x{value.height} px; at most {self.max_pixels} pixels"
                )
            return to_rgb(value)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError) as error:
            raise DataError(f"record '{key}': '{name}' does not decode ({error})") from None

    def _path(self, key: str, name: str) -> Path:
        root = self.root or Path()
        path = root / name
        if self.root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise DataError(f"record '{key}': picture '{name}' lies outside {root}")
        return path


ReadRecord = Callable[[RawRecord], Any]  # a Record, or what a training makes of the raw one


def _first(raw: RawRecord, names: Sequence[str], what: str) -> tuple[str, Any]:
    for name in names:
        if raw.fields.get(name) is not None:
            return name, raw.fields[name]
    raise DataError(
        f"record '{raw.key}' has no {what}: none of {', '.join(names)} in {', '.join(raw.fields) or 'nothing'}"
    )


def _turns(raw: RawRecord) -> list[tuple[str, str]]:
    messages = raw.fields.get("conversations") or raw.fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(f"record '{raw.key}' has no list 'conversations' or 'messages'")
    spoken: list[str] = []
    for number, message in enumerate(messages):
        who, text = (
            (message.get("from") or message.get("role"), message.get("value", message.get("content")))
            if isinstance(message, Mapping)
            else (None, None)
        )
        if who == "system" and not spoken:
            continue
        expected = ("human", "user") if len(spoken) % 2 == 0 else ("gpt", "assistant")
        if who not in expected or not isinstance(text, str):
            raise DataError(
                f"record '{raw.key}': turn {number} must be text from {expected[0]} or {expected[1]}"
            )
        spoken.append(text)
    if len(spoken) % 2:
        raise DataError(f"record '{raw.key}': its last question has no answer")
    return list(zip(spoken[::2], spoken[1::2], strict=True))
