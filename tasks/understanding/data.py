"""Where the documents of a question task lie on this machine, and what is known about where they came from.

`--data` names a parquet file, a folder laid out like the hub repository, an imagefolder (`image_folder`), or a folder
that holds one of these for each of several tasks; `BLIP3O_EVAL_DATA` a folder of that last kind: for the task `mme`
`mme.parquet` or a folder `mme`. Without them the hub's local cache is looked at. Nothing is fetched here;
`blip3o-eval data get` does that (`evals.datasets`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.datasets.record import read_record, revision_of
from evals.errors import InputError, MissingRequirementError
from tasks.understanding import image_folder

DATA_VARIABLE = "BLIP3O_EVAL_DATA"


@dataclass(frozen=True)
class Source:
    """Where a task's documents come from.

    `hub_id`: the data set. `split`: what the names of its files begin with. `subset`: the folder in
    the repository that holds it ("" for none). `aliases`: further names of a single file. `rows`: how many the official
    split has, where known.
    """

    hub_id: str
    split: str
    subset: str = ""
    aliases: tuple[str, ...] = ()
    rows: int | None = None

    def has(self, name: str) -> bool:
        """Whether a file of the repository, by its path there, belongs to the split."""
        *folders, file = name.split("/")
        is_mine = file.startswith(self.split) and file.endswith(".parquet")
        return is_mine and (not self.subset or self.subset in folders)


@dataclass(frozen=True)
class Place:
    """Files of a task in order, and the folder that says where they came from (None: nobody knows)."""

    files: tuple[Path, ...]
    folder: Path | None

    def origin(self, source: Source) -> Mapping[str, Any]:
        """For the manifest: repository and revision where a record or the hub's cache tells them."""
        record = None if self.folder is None else read_record(self.folder)
        revision = None if self.folder is None else revision_of(self.folder, self.files)
        return {
            "files": [path.name for path in self.files],
            "repository": record.repository if record else source.hub_id if revision else None,
            "revision": record.revision if record else revision,
        }


def find_files(task: str, source: Source, given: str | Path | None = None) -> Place:
    """The files of a task.

    Args: given: a file, its folder, or a folder with the data of several tasks, instead of the usual
    places.
    Raises: InputError for a place that holds none; MissingRequirementError, with the command that
    gets them, when no place was given.
    """
    if given is not None:
        place = Path(given).expanduser()
        return _files_at(own_place(place, task, source) or place, source)
    root = os.environ.get(DATA_VARIABLE)
    if root:
        own = own_place(Path(root).expanduser(), task, source)
        if own is not None:
            return _files_at(own, source)
    else:
        cached = _hub_cache(source.hub_id)
        if cached is not None and (files := _of_split(cached, source)):
            return Place(tuple(files), cached)
    target = f"{root or 'DATA'}/{task}"
    raise MissingRequirementError(
        f"task {task!r} needs the {source.split} split of {source.hub_id}: "
        f"`blip3o-eval data get --task {task} --output {root or 'DATA'}` gets it"
        + ("" if root else f", then give --data {target} or set {DATA_VARIABLE}=DATA")
        + "; or give --data FILE, a parquet file with its columns"
    )


def own_place(folder: Path, task: str, source: Source) -> Path | None:
    """What a folder with the data of several tasks holds for this one."""
    places = (
        place
        for name in (task, *source.aliases)
        for place in (folder / f"{name}.parquet", folder / name)
    )
    return next((place for place in places if place.exists()), None)


def _files_at(place: Path, source: Source) -> Place:
    if place.is_file():
        return Place((place,), None)
    if not place.exists():
        raise InputError(
            f"{place} does not exist: give a parquet file, an imagefolder, or the folder that `blip3o-eval data get` "
            "made"
        )
    if place.is_dir():
        if files := _of_split(place, source):
            return Place(tuple(files), place)
        if metadata := image_folder.find(place, source.split):
            return Place((metadata,), None)
    raise InputError(
        f"{place}: no parquet file of the {source.split} split of {source.hub_id} and no metadata file of an "
        "imagefolder; give the folder that `blip3o-eval data get` or `hf download` made, or one parquet file"
    )


def _of_split(folder: Path, source: Source) -> list[Path]:
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*.parquet"))}
    mine = [path for name, path in files.items() if source.has(name)]
    if mine or not source.subset:
        return mine
    # Somebody may have copied the subset's own folder.
    return [path for name, path in files.items() if path.name.startswith(source.split)]


def _hub_cache(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None
