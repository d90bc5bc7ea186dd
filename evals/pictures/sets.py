"""Folders of pictures as sets: their files, their features, their statistics. The work of ``blip3o-eval fid``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.errors import InputError, UsageError
from evals.metrics.features import FeatureFile, Statistics, collect, load
from evals.metrics.set_figures import PictureSet
from evals.phases.progress import Progress
from evals.pictures.files import FORMATS, PictureError, read_picture

STATISTICS_SUFFIX = ".safetensors"
BATCH = 32


def picture_paths(folder: Path) -> list[Path]:
    """All pictures below a folder, by relative name; hidden ones left out. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder of pictures")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in FORMATS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise InputError(f"{folder}: holds no pictures ({', '.join(FORMATS)})")
    return found


def names_digest(paths: Sequence[Path], root: Path) -> str:
    """sha256 over relative names and sizes in bytes: cheap, and another set has another."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    return total.hexdigest()


def open_picture(path: Path) -> Any:
    """RGB picture. Raises InputError for a file that cannot be used: a set with holes is another set."""
    try:
        return read_picture(path, str(path)).convert("RGB")
    except PictureError as error:
        raise InputError(str(error)) from None


def batches(
    paths: Sequence[Path], judge: Any, groups: Sequence[str] | None, is_quiet: bool, label: str
) -> Iterator[tuple[Any, list[str]]]:
    """(what ``judge.extract`` gives, groups) of a batch of files after another."""
    with Progress(label, len(paths), 0, is_quiet=is_quiet) as progress:
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            extracted = judge.extract([open_picture(path) for path in part])
            names = [""] * len(part) if groups is None else list(groups[start : start + BATCH])
            yield extracted, names
            progress.advance(len(part), 0)


def statistics_of(
    paths: Sequence[Path],
    root: Path,
    judge: Any,
    groups: Sequence[str] | None = None,
    is_quiet: bool = False,
) -> Statistics:
    """Statistics of picture files below ``root``. Raises InputError for the first that cannot be read."""
    found = batches(paths, judge, groups, is_quiet, "reference")
    return collect(
        ((extracted.features, names) for extracted, names in found),
        judge.recipe,
        root.name,
        names_digest(paths, root),
    )


def check_places(folder: Path, reference: Path) -> None:
    """Raises InputError for folders without pictures, UsageError for what can be no reference."""
    if reference.is_dir():
        picture_paths(reference)
    elif reference.suffix != STATISTICS_SUFFIX:
        raise UsageError(f"{reference}: is neither a folder of pictures nor a statistics file ({STATISTICS_SUFFIX})")
    elif not reference.is_file():
        raise InputError(f"{reference}: there is no such file")
    picture_paths(folder)


def reference_of(place: Path, judge: Any, is_quiet: bool = False) -> Statistics:
    """A folder of pictures or a statistics file as the reference. Raises UsageError for another recipe."""
    if place.is_dir():
        return statistics_of(picture_paths(place), place, judge, is_quiet=is_quiet)
    reference = load(place)
    judge.recipe.refuse_other(reference.recipe, str(place))
    return reference


def picture_set(folder: Path, judge: Any, is_quiet: bool = False) -> PictureSet:
    """The features of a folder of pictures, every picture a prompt of its own."""
    paths = picture_paths(folder)
    file = FeatureFile(judge.recipe.dimensions)
    logits: FeatureFile | None = None
    for extracted, _ in batches(paths, judge, None, is_quiet, "pictures"):
        file.append(extracted.features)
        if extracted.logits is not None:
            logits = logits or FeatureFile(extracted.logits.shape[1], with_moments=False)
            logits.append(extracted.logits)
    return PictureSet(
        file.array(), np.arange(file.n), None if logits is None else logits.array()
    )
