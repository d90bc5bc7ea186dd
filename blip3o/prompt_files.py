"""Many prompts in, a folder of pictures out: reading prompts, naming pictures, and the index beside them.

A folder holds ``00000-00.png`` (prompt and picture, counted from 0) and ``index.jsonl``, a line per picture in that
order: ``prompt``, ``seed``, ``path`` (relative to the folder). A line is written when its picture is on disk.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip3o.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from blip3o.pipeline import Blip3oPipeline

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Wish:
    """A picture to draw, and its file's name."""

    prompt: str
    seed: int
    path: str


def read_prompts(place: Path) -> list[str]:
    """One prompt a line, without the white space around it; ``-`` is standard input.

    Raises: DataError for an empty line before the last prompt, no prompt at all, or bytes that are no UTF-8.
    """
    is_input = str(place) == "-"
    name = "standard input" if is_input else str(place)
    try:
        data = sys.stdin.buffer.read() if is_input else place.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line} of {name} is not UTF-8 ({error.reason}); convert it"
        ) from None
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.rstrip())]
    if lines == [""]:
        raise DataError(f"{name} holds no prompt; write one a line")
    if "" in lines:
        raise DataError(
            f"line {lines.index('') + 1} of {name} is empty; write a prompt there or remove the line"
        )
    return lines


def wishes_of(prompts: Sequence[str], num_images: int, seed: int) -> list[Wish]:
    """Every prompt's pictures begin with the same seed, so they are those of the prompt alone."""
    return [
        Wish(prompt, seed + i, f"{number:05d}-{i:02d}.png")
        for number, prompt in enumerate(prompts)
        for i in range(num_images)
    ]


def check_folder(folder: Path) -> None:
    """Before anything is drawn. Raises: DataError for a file, the name of one, or a folder with pictures of before."""
    from PIL import Image

    if folder.is_file() or (
        folder.suffix.lower() in Image.registered_extensions() and not folder.is_dir()
    ):
        raise DataError(
            f"--output {folder} is one file, and several prompts need a folder; give the name of one"
        )
    if (folder / INDEX).exists():
        raise DataError(
            f"{folder} holds pictures of an earlier command ({INDEX}); give another --output"
        )


def draw(
    pipeline: Blip3oPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    pictures: Sequence[Image.Image],
    batch_size: int,
    **settings: Any,
) -> Iterator[Image.Image]:
    """A picture for each prompt with its seed, ``batch_size`` at once.

    Args: pictures: what the prompts, then instructions, are about. settings: of the pipeline's call.
    """
    import torch

    for start in range(0, len(prompts), batch_size):
        texts = list(prompts[start : start + batch_size])
        own = [
            torch.Generator("cpu").manual_seed(seed) for seed in seeds[start : start + batch_size]
        ]
        if pictures:
            made = pipeline.edit([list(pictures)] * len(texts), texts, generator=own, **settings)
        else:
            made = pipeline(texts, generator=own, **settings)
        yield from made.images


def draw_folder(
    pipeline: Blip3oPipeline,
    wishes: Sequence[Wish],
    folder: Path,
    pictures: Sequence[Image.Image],
    batch_size: int,
    **settings: Any,
) -> Iterator[Path]:
    """Files as they are written; arguments as of ``draw``.

    Raises: DataError before the first picture for a prompt that is too long or a folder that cannot be made.
    """
    from blip3o.generation import check_prompts

    prompts = [wish.prompt for wish in wishes]
    size_px = pipeline.card.reconstruction_size_px
    check_prompts(
        pipeline.model,
        pipeline.inputs,
        pipeline.prompts,
        list(dict.fromkeys(prompts)),
        pictures,
        size_px,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made ({error.strerror}); give another --output"
        ) from None
    with open(folder / INDEX, "x", encoding="utf-8") as index:
        made = draw(
            pipeline, prompts, [wish.seed for wish in wishes], pictures, batch_size, **settings
        )
        for wish, picture in zip(wishes, made, strict=True):
            picture.save(folder / wish.path)
            index.write(json.dumps(asdict(wish), ensure_ascii=False) + "\n")
            index.flush()
            yield folder / wish.path
