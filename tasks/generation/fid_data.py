"""Data sets that the task `fid` reads from a folder: MJHQ-30K's layout, COCO captions, and a plain caption list.

=============  ===========================================================================================
layout         files
=============  ===========================================================================================
mjhq           `meta_data.json` (id -> category, prompt) and `<category>/<id>.jpg`, there or in `mjhq30k_imgs`
captions       `captions.jsonl`, a line each: `id`, `prompt`, and optionally `group`; reference pictures below
               `images`
coco           `captions_val2014.json` (also in `annotations`) and `val2014`; `caption_ids.txt` holds the
               annotation ids to take, one a line; without it 30,000 are drawn with seed 0
=============  ===========================================================================================

In every layout a file `reference.safetensors` (`blip3o-eval fid statistics`) takes the place of the pictures.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.api import Sample
from evals.errors import InputError
from evals.recorded import read_lines

MJHQ_CATEGORIES = (
    "animals", "art", "fashion", "food", "indoor", "landscape", "logo", "people", "plants", "vehicles",
)  # fmt: skip
COCO_PROMPTS, COCO_SEED = 30_000, 0
READY = "reference.safetensors"


@dataclass(frozen=True)
class FidData:
    """Prompts, and the reference: picture files with a group each, or a statistics file."""

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    groups: tuple[str, ...]
    pictures: tuple[Path, ...]
    picture_groups: tuple[str, ...]
    ready: Path | None

    def digest(self) -> str:
        """sha256 over ids, groups and prompts."""
        total = hashlib.sha256(self.layout.encode())
        for sample in self.samples:
            total.update(json.dumps([sample.id, sample.group, sample.prompt]).encode())
        return total.hexdigest()


def read(root: Path, with_reference: bool = True) -> FidData:
    """Find out the layout and read it. Raises InputError that names what is missing.

    Args: with_reference: whether reference pictures or statistics have to be there, too.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; --data takes one that holds prompts (docs/fid.md)")
    captions = [root / "captions_val2014.json", root / "annotations" / "captions_val2014.json"]
    coco = next((path for path in captions if path.is_file()), None)
    if (root / "meta_data.json").is_file():
        return _mjhq(root, with_reference)
    if (root / "captions.jsonl").is_file():
        return _caption_list(root, with_reference)
    if coco is not None:
        return _coco(root, coco, with_reference)
    raise InputError(
        f"{root}: holds none of meta_data.json (MJHQ-30K), captions.jsonl (a caption list) and captions_val2014.json "
        "(COCO)"
    )


def _mjhq(root: Path, with_reference: bool) -> FidData:
    path = root / "meta_data.json"
    records = _json(path)
    if not isinstance(records, dict) or not records:
        raise InputError(f"{path}: must be a map of id -> category and prompt")
    samples, pictures = [], []
    base = root / "mjhq30k_imgs"
    base = base if base.is_dir() else root
    for number, (id, record) in enumerate(records.items()):
        where = f"{path}: {id}"
        group = _text(record, "category", where)
        samples.append(Sample(_id(id, where), number, group, _text(record, "prompt", where)))
        pictures.append(base / group / f"{id}.jpg")
    found = [sample.group for sample in samples]
    order = [g for g in MJHQ_CATEGORIES if g in found]
    order += sorted(set(found) - set(order))
    return _checked(root, "mjhq", samples, order, pictures, found, with_reference)


def _caption_list(root: Path, with_reference: bool) -> FidData:
    path = root / "captions.jsonl"
    samples = []
    for number, line in enumerate(read_lines(path)):
        where, record = line.where, line.object()
        group = _text(record, "group", where) if "group" in record else "all"
        samples.append(
            Sample(_id(record.get("id"), where), number, group, _text(record, "prompt", where))
        )
    if (root / READY).is_file() or not with_reference:
        pictures: list[Path] = []
    else:
        from evals.pictures.sets import picture_paths

        pictures = picture_paths(root / "images")
    groups = list(dict.fromkeys(sample.group for sample in samples))
    return _checked(root, "captions", samples, groups, pictures, ["all"] * len(pictures), with_reference)


def _coco(root: Path, path: Path, with_reference: bool) -> FidData:
    data = _json(path)
    try:
        files = {int(image["id"]): str(image["file_name"]) for image in data["images"]}
        captions = {
            int(a["id"]): (int(a["image_id"]), " ".join(str(a["caption"]).split()))
            for a in data["annotations"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no COCO caption file ({type(error).__name__}: {error})") from None
    listed = root / "caption_ids.txt"
    ids = _ids(listed) if listed.is_file() else _draw(captions)
    samples, pictures = [], []
    for number, id in enumerate(ids):
        if id not in captions or captions[id][0] not in files:
            raise InputError(f"{listed}:{number + 1}: {path.name} has no caption {id} with a picture")
        image_id, caption = captions[id]
        samples.append(Sample(str(id), number, "all", caption, {"image_id": image_id}))
        pictures.append(root / "val2014" / Path(files[image_id]).name)
    unique = list(dict.fromkeys(pictures))
    return _checked(root, "coco", samples, ["all"], unique, ["all"] * len(unique), with_reference)


def _draw(captions: dict[int, Any]) -> list[int]:
    """30,000 captions, at most one of a picture, by seed; in the order of their ids."""
    first: dict[int, int] = {}
    for id in sorted(captions):
        first.setdefault(captions[id][0], id)
    ids = sorted(first.values())
    return sorted(random.Random(COCO_SEED).sample(ids, min(COCO_PROMPTS, len(ids))))


def _ids(path: Path) -> list[int]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        if not line.strip().isdecimal():
            raise InputError(f"{path}:{number}: {line.strip()[:40]!r} is no annotation id")
        found.append(int(line))
    if not found:
        raise InputError(f"{path}: holds no ids")
    return found


def _checked(
    root: Path,
    layout: str,
    samples: list[Sample],
    groups: Iterable[str],
    pictures: list[Path],
    picture_groups: list[str],
    with_reference: bool,
) -> FidData:
    """Raises InputError for ids that stand twice and for reference pictures that are not there."""
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise InputError(f"{root}: id {sample.id!r} stands twice")
        seen.add(sample.id)
    ready = root / READY
    if not with_reference:
        return FidData(root, layout, tuple(samples), tuple(groups), (), (), None)
    if ready.is_file():
        return FidData(root, layout, tuple(samples), tuple(groups), (), (), ready)
    missing = [path for path in pictures if not path.is_file()]
    if missing:
        raise InputError(
            f"{root}: {len(missing):,} of {len(pictures):,} reference pictures are missing, such as "
            f"{missing[0].relative_to(root)}; add them, or put statistics into {READY}"
        )
    return FidData(
        root, layout, tuple(samples), tuple(groups), tuple(pictures), tuple(picture_groups), None
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({str(error)[:100]})") from None


def _text(record: Any, key: str, where: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key} must be a text that is not empty")
    return " ".join(value.split())


def _id(value: Any, where: str) -> str:
    """Ids become file names nowhere, but MJHQ's name pictures."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or "/" in text or "\\" in text or text in (".", ".."):
        raise InputError(f"{where}: id must be a number or a text without slashes")
    return text
