"""Which picture of a folder answers which prompt, and what is missing, of another prompt, or not to be cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.api import Sample
from evals.errors import InputError
from evals.io.strict_json import NotJsonError, parse
from evals.pictures.files import PictureError, picture_size
from evals.pictures.folders import PictureFolder, numbered_pictures

Place = tuple[str, int]  # sample id, image index

SHOWN = 3
_MAX_METADATA_BYTES = 16 * 2**20
_QUADRANTS = ((0, 0), (1, 0), (0, 1), (1, 1))  # column and row, in upstream's order


@dataclass(frozen=True)
class PicturePlace:
    """Where a picture lies: a file, and the quadrant of it for grids (None: the whole)."""

    path: Path
    quadrant: int | None = None

    def cut(self, image: Any) -> Any:
        """The picture itself, out of the file's."""
        if self.quadrant is None:
            return image
        width, height = image.size[0] // 2, image.size[1] // 2
        column, row = _QUADRANTS[self.quadrant]
        left, top = column * width, row * height
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Contents:
    """A folder set against the prompts of a run: what is there, what is not, and what to say about it."""

    places: Mapping[Place, PicturePlace]
    problems: Mapping[Place, str]  # why there is no picture; begins with a file name
    deviations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def match(
    folder: PictureFolder,
    official: Sequence[Sample],
    samples: Sequence[Sample],
    per_sample: int,
    task_name: str,
    layouts: Sequence[str],
    allow_rewritten: bool = False,
) -> Contents:
    """Set a folder against the prompts of a run.

    Args: official: all samples of the task. samples: those of the run. layouts: those that the task can
    be scored from. allow_rewritten: take prompts whose text differs while what is asked for does not.
    Raises: InputError for another layout, for folders or files that belong to no prompt, for metadata that
    disagrees with the official prompt of its number, and when no picture is there at all.
    """
    if folder.layout not in layouts:
        asked = {"numbered": "GenEval's layout (00000/samples/0000.png)", "grids": "<item id>.png"}
        raise InputError(
            f"{folder.root} holds {asked[folder.layout]}; task {task_name!r} is scored from "
            f"{' or '.join(asked[name] for name in layouts)}"
        )
    if folder.layout == "grids":
        contents = _match_grids(folder, official, samples, per_sample, task_name)
    else:
        contents = _match_numbered(
            folder, official, samples, per_sample, task_name, allow_rewritten
        )
    if not contents.places:
        raise InputError(
            f"{folder.root} holds none of the {len(samples) * per_sample} pictures of this run; the first "
            f"would be {next(iter(contents.problems.values())).partition(':')[0]}"
        )
    return contents


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """``a, b, c and 17 more``."""
    readable = [name.encode("utf-8", "replace").decode() for name in names[:shown]]
    text = ", ".join(readable)
    return text if len(names) <= shown else f"{text} and {len(names) - shown:,} more"


# -- GenEval's layout -------------------------------------------------------------------------


def _match_numbered(
    folder: PictureFolder,
    official: Sequence[Sample],
    samples: Sequence[Sample],
    per_sample: int,
    task_name: str,
    allow_rewritten: bool,
) -> Contents:
    known = {sample.number for sample in official}
    strangers = [
        path.name for number, path in sorted(folder.numbered.items()) if number not in known
    ]
    if strangers:
        raise InputError(
            f"{folder.root}: {some(strangers)} {'is' if len(strangers) == 1 else 'are'} no prompt of task "
            f"{task_name!r}, which has {len(official)} (numbers {min(known)} to {max(known)})"
        )
    rewritten = _check_metadata(folder, samples, allow_rewritten)
    places: dict[Place, PicturePlace] = {}
    problems: dict[Place, str] = {}
    counts: Counter[int] = Counter()
    others = 0
    for sample in samples:
        prompt_folder = folder.numbered.get(sample.number)
        found = numbered_pictures(prompt_folder) if prompt_folder is not None else {}
        counts[len(found)] += 1
        others += sum(path.suffix.lower() != ".png" for path in found.values())
        if max(found, default=0) >= per_sample:  # numbered from 1, or more than are asked for
            found = dict(enumerate(path for _, path in sorted(found.items())))
        name = prompt_folder.name if prompt_folder is not None else f"{sample.number:05d}"
        for index in range(per_sample):
            if index in found:
                places[sample.id, index] = PicturePlace(found[index])
            else:
                problems[sample.id, index] = f"{name}/samples/{index:05d}.png: no such picture"
    deviations = []
    if rewritten:
        deviations.append(
            f"the prompts of {rewritten} of {len(samples)} folders were rewritten (--rewritten-prompts)"
        )
    warnings = _missing(problems, len(samples) * per_sample, counts, per_sample)
    more = sum(n for size, n in counts.items() if size > per_sample)
    if more:
        warnings.append(
            f"{more} of {len(samples)} prompts have more than {per_sample} pictures, up to {max(counts)}; the "
            f"first {per_sample} of each are scored (--num-images {max(counts)} scores all)"
        )
    if others:
        warnings.append(f"{others} pictures are no PNG files; GenEval's own script reads PNG only")
    return Contents(places, problems, tuple(deviations), tuple(warnings))


def _missing(
    problems: Mapping[Place, str], total: int, counts: Counter[int], per_sample: int
) -> list[str]:
    if not problems:
        return []
    names = [text.partition(":")[0] for text in problems.values()]
    text = f"incomplete: {len(names):,} of {total:,} pictures are missing: {some(names)}"
    size = max(counts)
    if len(counts) == 1 and size < per_sample:
        text += (
            f"; every prompt has {size}: --num-images {size} scores these, marked as a deviation"
        )
    return [text]


def _check_metadata(folder: PictureFolder, samples: Sequence[Sample], allow_rewritten: bool) -> int:
    """How many prompts were rewritten. Raises InputError for metadata that is bad or of another prompt."""
    bad, rewritten = [], []
    for sample in samples:
        prompt_folder = folder.numbered.get(sample.number)
        if prompt_folder is None:
            continue
        name = f"{prompt_folder.name}/metadata.jsonl"
        try:
            found = _read_metadata(prompt_folder / "metadata.jsonl")
        except ValueError as error:
            bad.append(f"{name} {error}")
            continue
        differing = [
            key
            for key in dict.fromkeys([*sample.metadata, "include", "exclude"])
            if (found.get(key) or None) != (sample.metadata.get(key) or None)
        ]
        if differing == ["prompt"] and isinstance(found.get("prompt"), str):
            rewritten.append(f"{name} ({_quoted(found['prompt'])})")
        elif differing:
            values = ", ".join(
                f"{k} {_quoted(found.get(k))}, official {_quoted(sample.metadata.get(k))}"
                for k in differing[:2]
            )
            bad.append(f"{name} disagrees with the official prompt of that number: {values}")
    if bad:
        more = f" (and {len(bad) - 1:,} more folders: {some([b.split('/')[0] for b in bad[1:]])})"
        raise InputError(
            f"{folder.root}/{bad[0]}{more if len(bad) > 1 else ''}; a picture is scored by the prompt of "
            "its folder's number, so nothing was scored"
        )
    if rewritten and not allow_rewritten:
        raise InputError(
            f"{folder.root}: {len(rewritten):,} prompts disagree in their text with the official prompt of that "
            f"number: {some(rewritten, 1)}; if they were rewritten on purpose, --rewritten-prompts scores them "
            "and marks the result"
        )
    return len(rewritten)


def _read_metadata(path: Path) -> Mapping[str, Any]:
    """The one JSON object of a metadata.jsonl. Raises ValueError with what is wrong."""
    try:
        if not path.is_file():
            raise ValueError("is missing, so nobody knows which prompt its pictures answer")
        with open(path, "rb") as file:
            data = file.read(_MAX_METADATA_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    if len(data) > _MAX_METADATA_BYTES:
        raise ValueError(f"is larger than {_MAX_METADATA_BYTES:,} bytes")
    try:
        value = parse(data)
    except NotJsonError as error:
        raise ValueError(f"is not one JSON object ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("is not one JSON object")
    return value


# -- DPG-Bench's layout -----------------------------------------------------------------------


def _match_grids(
    folder: PictureFolder,
    official: Sequence[Sample],
    samples: Sequence[Sample],
    per_sample: int,
    task_name: str,
) -> Contents:
    if per_sample > len(_QUADRANTS):
        raise InputError(
            f"{folder.root}: {per_sample} pictures per prompt do not fit into a 2 x 2 grid; give "
            f"--num-images 1 to {len(_QUADRANTS)}"
        )
    known = {sample.id for sample in official}
    strangers = [path.name for name, path in sorted(folder.grids.items()) if name not in known]
    if strangers:
        raise InputError(
            f"{folder.root}: {some(strangers)} {'is' if len(strangers) == 1 else 'are'} named after no item of "
            f"task {task_name!r}"
        )
    present = [(s, folder.grids[s.id]) for s in samples if s.id in folder.grids]
    bad = _bad_sizes([path for _, path in present], is_grid=per_sample > 1)
    places: dict[Place, PicturePlace] = {}
    problems: dict[Place, str] = {}
    for sample in samples:
        path = folder.grids.get(sample.id)
        for index in range(per_sample):
            if path is None:
                problems[sample.id, index] = f"{sample.id}.png: no such file"
            elif path in bad:
                problems[sample.id, index] = bad[path]
            else:
                places[sample.id, index] = PicturePlace(path, index if per_sample > 1 else None)
    warnings = []
    absent = [f"{s.id}.png" for s in samples if s.id not in folder.grids]
    if absent:
        warnings.append(
            f"incomplete: {len(absent):,} of {len(samples):,} files are missing: {some(absent)}"
        )
    if bad:
        warnings.append(f"{len(bad):,} files cannot be cut: {some(list(bad.values()))}")
    return Contents(places, problems, (), tuple(warnings))


def _bad_sizes(paths: Sequence[Path], is_grid: bool) -> dict[Path, str]:
    """Files that cannot be cut into pictures: path -> reason. Upstream cuts all grids by one size."""
    sizes: dict[Path, tuple[int, int]] = {}
    bad: dict[Path, str] = {}
    for path in paths:
        try:
            sizes[path] = picture_size(path, path.name)
        except PictureError as error:
            bad[path] = str(error)
    if not is_grid or not sizes:
        return bad
    common = Counter(sizes.values()).most_common(1)[0][0]
    for path, (width, height) in sizes.items():
        if width % 2 or height % 2:
            bad[path] = (
                f"{path.name}: {width} x {height} pixels are no 2 x 2 grid of equal pictures"
            )
        elif (width, height) != common:
            bad[path] = (
                f"{path.name}: {width} x {height} pixels, where the other grids have {common[0]} x {common[1]}"
            )
    return bad


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
