"""Folders of pictures that others made: which layout they have, and what lies in them.

Two layouts are read. GenEval's (`numbered`): `00000/metadata.jsonl` and `00000/samples/0000.png`, any number of
digits, NNNNN the prompt's line in the official file from 0; grids and other files are passed over. DPG-Bench's
(`grids`): `<item id>.png`, up to four pictures of equal size in a 2 x 2 grid, read top left, top right, bottom
left, bottom right; with one picture per prompt the file is the picture, as in WISE's layout (`<prompt_id>.png`).
Nothing is ever written into the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.pictures.files import FORMATS


@dataclass(frozen=True)
class PictureFolder:
    """A folder as it was found. `numbered`: prompt number -> folder; `grids`: item id -> file."""

    root: Path
    layout: str
    numbered: Mapping[int, Path] = field(default_factory=dict)
    grids: Mapping[str, Path] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """Every file that can change a verdict: pictures and metadata, sorted."""
        if self.layout == "grids":
            return sorted(self.grids.values())
        found = []
        for folder in self.numbered.values():
            found += [folder / "metadata.jsonl", *numbered_pictures(folder).values()]
        return sorted(path for path in found if path.is_file())


def open_folder(root: str | Path) -> PictureFolder:
    """Find out which layout a folder has.

    Raises: InputError if it is no folder, a run folder, empty, or mixes layouts.
    """
    root = Path(root).expanduser()
    entries = _entries(root)
    if "manifest.json" in entries and "images" in entries:
        raise InputError(
            f"{root} is a run folder: `blip3o-eval rescore {root} --judge J` judges its pictures again"
        )
    folders = [name for name, entry in entries.items() if _is_number(name) and entry.is_dir()]
    grids = [n for n, e in entries.items() if Path(n).suffix.lower() in FORMATS and not e.is_dir()]
    if folders and grids:
        raise InputError(
            f"{root} mixes two layouts: {folders[0]}/ (GenEval's, a folder per prompt) and {grids[0]} "
            "(a file per prompt): give one layout a folder"
        )
    if folders:
        numbered = _unique(((int(name), root / name) for name in folders), root)
        _check_inner_layout(root, numbered)
        return PictureFolder(root, "numbered", numbered=numbered)
    if grids:
        return PictureFolder(
            root, "grids", grids=_unique(((Path(n).stem, root / n) for n in grids), root)
        )
    raise InputError(
        f"{root} holds no pictures in a known layout: GenEval's is 00000/metadata.jsonl with "
        "00000/samples/0000.png, DPG-Bench's is <item id>.png with a 2 x 2 grid"
    )


def numbered_pictures(folder: Path) -> dict[int, Path]:
    """Number -> file of a prompt's pictures. Raises InputError when a number stands twice."""
    samples = folder / "samples"
    if not samples.is_dir():
        return {}
    return _unique(
        (
            (int(Path(name).stem), samples / name)
            for name in _entries(samples)
            if Path(name).suffix.lower() in FORMATS and _is_number(Path(name).stem)
        ),
        folder,
    )


def _check_inner_layout(root: Path, numbered: Mapping[int, Path]) -> None:
    """Pictures lie in `samples`; beside it only a grid may. Raises InputError for another layout."""
    bare: list[Path] = []
    with_samples: list[Path] = []
    for folder in numbered.values():
        names = list(_entries(folder))
        pictures = [
            n for n in names if _is_number(Path(n).stem) and Path(n).suffix.lower() in FORMATS
        ]
        bare += [folder / name for name in pictures]
        with_samples += [folder / "samples"] if "samples" in names else []
    if bare:
        example = bare[0].relative_to(root)
        what = (
            f"mixes two layouts: {with_samples[0].relative_to(root)}/ and {example}"
            if with_samples
            else f"has no samples folders: {example}"
        )
        raise InputError(f"{root} {what}; GenEval's layout is 00000/samples/0000.png")


def _entries(folder: Path) -> dict[str, os.DirEntry[str]]:
    """What a folder holds, sorted by name, hidden files left out. Raises InputError."""
    try:
        with os.scandir(folder) as found:
            entries = {e.name: e for e in found if not e.name.startswith((".", "__MACOSX"))}
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: cannot be read as a folder ({reason})") from None
    return dict(sorted(entries.items()))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 9


def _unique(pairs: Iterable[tuple[Any, Path]], where: Path) -> dict[Any, Path]:
    """Pairs as a mapping. Raises InputError when two paths claim one key."""
    found: dict[Any, Path] = {}
    for key, path in pairs:
        if key in found:
            raise InputError(
                f"{where}: {found[key].name} and {path.name} stand for the same number or item; keep one"
            )
        found[key] = path
    return found
