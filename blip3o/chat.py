"""A conversation kept on disk: the transcript as JSON lines, the pictures as PNG files beside it.

``transcript.jsonl`` begins with a line about the model; each further line is one turn::

    {"role": "user", "text": "a photo of a dog", "wish": "draw"}
    {"role": "assistant", "images": [{"path": "001.png", "sha256": "..."}], "seed": 42}

A question and its reply are written together when the reply is there, so a killed session loses at most the turn it
was working on. A conversation opened again goes on as if it had never been closed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from blip3o.dialogue import Dialogue, Turn
from blip3o.errors import DataError
from blip3o.inputs import checked_picture
from blip3o.storage import file_digest

TRANSCRIPT = "transcript.jsonl"
FORMAT = 1


class SavedDialogue:
    """A ``Dialogue`` that writes its turns into a folder, or goes on with those that are there.

    Args: model: name, written into the transcript; another model than the one that began is refused.
    Raises: DataError for a folder in use, a damaged transcript, or a picture that is gone or was changed.
    """

    def __init__(self, dialogue: Dialogue, folder: Path, model: str) -> None:
        self.dialogue, self.folder = dialogue, folder
        self.path = folder / TRANSCRIPT
        head = {"format": FORMAT, "kind": "blip3o-chat", "model": model, "seed": dialogue.seed}
        rows = _read_rows(self.path)
        if rows:
            self._go_on(head, rows)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def _go_on(self, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for key in ("format", "kind", "model"):
            if rows[0].get(key) != head[key]:
                raise DataError(
                    f"{self.path} is of {key} {rows[0].get(key)!r}, not {head[key]!r}; give another folder "
                    "or the same model"
                )
        self.dialogue.seed = rows[0].get("seed", self.dialogue.seed)
        turns = rows[1:]
        if len(turns) % 2:
            turns.pop()  # a question whose reply never came
        for number, row in enumerate(turns, start=2):
            try:
                self.dialogue.add(self._turn(row))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{self.path} line {number} is no turn ({error})") from None
        kept = [rows[0], *turns]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        if self.path.read_bytes() != text.encode():
            part = self.path.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(self.path)

    def attach(self, path: Path) -> Image.Image:
        """A picture of the user's. Raises: DataError."""
        picture = open_picture(path)
        picture.filename = str(path.resolve())  # type: ignore[attr-defined]
        return picture

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Write the turns that are added inside, once all of them are there.

        Raises: DataError if they cannot be written; the conversation then goes on without them.
        """
        before = len(self.dialogue.turns)
        with self.dialogue.undone_on_error():
            yield
            added = self.dialogue.turns[before:]
            try:
                rows = [self._row(number, turn) for number, turn in enumerate(added, before)]
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            except OSError as error:
                raise DataError(
                    f"{self.folder} cannot be written ({error.strerror or error}); the last turn is not kept, make "
                    "room and say it again"
                ) from None

    def picture_path(self, number: int) -> Path:
        """File of the picture that turn ``number`` drew."""
        return self.folder / f"{number:03d}.png"

    def _row(self, number: int, turn: Turn) -> dict[str, Any]:
        row: dict[str, Any] = {"role": turn.role}
        if turn.text or not turn.images:
            row["text"] = turn.text
        if turn.wish:
            row["wish"] = turn.wish
        if turn.role == "assistant" and turn.images:
            path = self.picture_path(number)
            turn.images[0].save(path)
            row |= {"images": [{"path": path.name, "sha256": file_digest(path)}], "seed": turn.seed}
        elif turn.images:
            paths = [Path(str(getattr(image, "filename", ""))) for image in turn.images]
            row["images"] = [{"path": str(path), "sha256": file_digest(path)} for path in paths]
        return row

    def _turn(self, row: dict[str, Any]) -> Turn:
        images = []
        for entry in row.get("images", ()):
            path = self.folder / entry["path"]  # an absolute path stays as it is
            if not path.is_file() or file_digest(path) != entry["sha256"]:
                raise DataError(
                    f"{path}, which {self.path} shows, is gone or was changed; put the file back or begin a new folder"
                )
            images.append(self.attach(path))
        text, wish, seed = row.get("text", ""), row.get("wish", ""), row.get("seed")
        if not isinstance(text, str) or wish not in ("", "draw", "edit"):
            raise ValueError("text must be a string and wish draw or edit")
        return Turn(row["role"], text, tuple(images), wish, seed)


def open_picture(path: Path) -> Image.Image:
    """A picture file, read whole. Raises: DataError."""
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            checked_picture(image)
            return ImageOps.exif_transpose(image)  # a copy, upright
    except UnidentifiedImageError:
        raise DataError(f"{path} is not a readable picture; give a PNG, JPEG or WebP file") from None
    # Decoders and damaged EXIF raise many kinds.
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable picture ({' '.join(str(error).split())})") from None


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a transcript; a last line that breaks off is dropped. Raises: DataError naming a damaged one."""
    if not path.exists():
        return []
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} must be an object")
        rows.append(row)
    return rows
