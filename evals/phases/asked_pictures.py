"""Small copies of the pictures that questions were about, in the run folder: the report needs them, and data move.

``inputs/<digest>.webp``, and ``inputs/index.json``: sample id -> names of its pictures, in order. Of large runs the
copies belong to samples spread evenly over the groups. Written once, when a run is finished; nothing reads them but
the report, so a picture that cannot be read or written costs its copy and no more.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.api import Sample
from evals.errors import StoreError
from evals.io.files import json_problem, write_atomically, write_json
from evals.phases.plan import spread_evenly

FOLDER, INDEX = "inputs", "index.json"
MAX_SAMPLES, MAX_PICTURES = 400, 8  # and pictures of one sample
SIDE_PX, CRISP_PX = 256, 128  # longest side; smaller ones are kept without loss

log = logging.getLogger("evals")


def keep(root: Path, samples: Sequence[Sample], groups: Sequence[str]) -> None:
    """Write the copies of a run in ``root``, unless they are there."""
    folder = root / FOLDER
    if json_problem(folder / INDEX) is None:
        return
    try:
        found = {sample.id: _kept(folder, sample) for sample in spread_evenly(samples, groups, MAX_SAMPLES)}
        if any(found.values()):
            write_json(folder / INDEX, {"samples": found}, is_durable=False)
    except (OSError, StoreError) as error:
        log.warning("the report shows no pictures of the questions: %s", error)


def read(root: Path) -> Mapping[str, Sequence[Path]]:
    """Sample id -> its copies; empty where there are none, or no sound list of them."""
    import json

    path = root / FOLDER / INDEX
    if json_problem(path) is not None:
        return {}
    found = json.loads(path.read_bytes()).get("samples")
    return {
        str(name): [root / FOLDER / one for one in names if isinstance(one, str) and _is_ours(one)]
        for name, names in (found if isinstance(found, dict) else {}).items()
        if isinstance(names, list)
    }


def _kept(folder: Path, sample: Sample) -> list[str]:
    """The names of the copies of a sample's pictures."""
    try:
        pictures = [p.convert("RGB") for p in list(sample.images)[:MAX_PICTURES] if hasattr(p, "convert")]
    except Exception:  # a task's own code hands them out; its question has failed, and says why
        return []
    return [_copy(folder, picture) for picture in pictures]


def _copy(folder: Path, picture: Any) -> str:
    """The name of the copy of a picture (RGB)."""
    name = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()[:16] + ".webp"
    if not (folder / name).exists():
        folder.mkdir(exist_ok=True)
        is_small = max(picture.size) <= CRISP_PX
        picture.thumbnail((SIDE_PX, SIDE_PX), reducing_gap=2.0)
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=is_small, quality=80, method=2)
        write_atomically(folder / name, file.getvalue(), is_durable=False)
    return name


def _is_ours(name: str) -> bool:
    return len(name) == 21 and name.endswith(".webp") and set(name[:16]) <= set("0123456789abcdef")
