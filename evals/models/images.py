"""`images:DIR`: pictures that others made, handed out as if they had just been drawn.

What kind of picture they are nobody has said, so `--judge auto` has no answer for them. The digest covers
every picture and its metadata: another picture in the folder is another run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.api import GenerationRequest, Identity, ModelOptions, Sample, Task
from evals.errors import UsageError, suggest
from evals.io.digests import file_digest
from evals.phases.readymade import MADE_ELSEWHERE, EncodedPicture, Findings, check_apart
from evals.pictures.files import PictureError, read_picture
from evals.pictures.folders import PictureFolder, open_folder
from evals.pictures.matching import Contents, match

_BATCH_SIZE = 16
_ARGUMENTS = ("rewritten_prompts",)


def create(spec: str, options: ModelOptions) -> ImagesModel:
    """Factory for `--model images:DIR`. Raises UsageError or InputError before anything is judged."""
    if not spec:
        raise UsageError("give the folder of the pictures after a colon: images:DIR")
    for name in options.extra:
        if name not in _ARGUMENTS:
            raise UsageError(f"unknown argument {name!r} of 'images'.{suggest(name, _ARGUMENTS)}")
    allowed = options.extra.get("rewritten_prompts", False)
    if not isinstance(allowed, bool):
        raise UsageError(f"argument rewritten_prompts={allowed!r} of 'images': give true or false")
    return ImagesModel(spec, allowed)


class ImagesModel:
    """A readymade `ImageGenerator` over a folder in a layout of `evals.pictures.folders`."""

    def __init__(self, root: str, allow_rewritten: bool = False) -> None:
        self._folder = open_folder(root)
        self._allow_rewritten = allow_rewritten
        self._contents = Contents({}, {})
        files = self._folder.files()
        self.identity = Identity(
            name=f"images:{root.rstrip('/') or root}",
            version="1",
            digest=_digest(self._folder, files),
            domain="unknown",
            settings={"rewritten_prompts": True} if allow_rewritten else {},
            batch_size=_BATCH_SIZE,
            info={MADE_ELSEWHERE: True, "layout": self._folder.layout, "files": len(files)},
        )

    def match(
        self, task: Task, official: Sequence[Sample], samples: Sequence[Sample], per_sample: int
    ) -> Findings:
        """Find the picture of every output of a run. Raises InputError (`evals.pictures.matching.match`)."""
        if task.kind != "generation":
            raise UsageError(
                f"task {task.name!r} asks for answers, and {self.identity.name!r} has pictures"
            )
        self._contents = match(
            self._folder,
            official,
            samples,
            per_sample,
            task.name,
            getattr(task, "picture_layouts", ("numbered",)),
            self._allow_rewritten,
        )
        return Findings(self._contents.deviations, self._contents.warnings)

    def check_output(self, root: Path) -> None:
        """Refuse a run folder in the picture folder or around it. Raises UsageError."""
        check_apart(root, self._folder.root, "the picture folder")

    def load(self) -> None:
        """Nothing to build."""

    def close(self) -> None:
        """Nothing to free."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        """One picture per request, or a PictureError that names the file."""
        opened: dict[Path, Any] = {}  # a grid holds the pictures of several requests
        return [self._picture(request, opened) for request in requests]

    def _picture(self, request: GenerationRequest, opened: dict[Path, Any]) -> Any:
        key = (request.sample_id, request.image_index)
        if key in self._contents.problems:
            return PictureError(self._contents.problems[key])
        place = self._contents.places[key]
        if place.path not in opened:
            opened.clear()
            opened[place.path] = _read(place.path, self._folder)
        found = opened[place.path]
        if isinstance(found, Exception) or place.quadrant is None:
            return found
        return place.cut(found.convert("RGB") if isinstance(found, EncodedPicture) else found)


def _read(path: Path, folder: PictureFolder) -> Any:
    try:
        return read_picture(path, path.relative_to(folder.root).as_posix())
    except PictureError as error:
        return error


def _digest(folder: PictureFolder, files: Sequence[Path]) -> str:
    """sha256 over the relative names and contents; a file that cannot be read counts by its name."""
    total = hashlib.sha256(folder.layout.encode())
    for path in files:
        try:
            content = file_digest(path)
        except OSError as error:
            content = f"unreadable: {error.strerror}"
        total.update(b"\n" + os.fsencode(path.relative_to(folder.root)) + b"\0" + content.encode())
    return total.hexdigest()
