"""What of a task's data is on this machine, and whether it is what it should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.datasets.record import Record, read_record
from evals.errors import EvalError
from evals.io.digests import file_digest


@dataclass(frozen=True)
class FileState:
    """``state``: ok (as recorded), unrecorded, damaged or missing. ``sha256`` None for a missing one."""

    name: str
    state: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Inventory:
    """``state``: ok, missing (no data), incomplete or damaged; ``problem`` says why, in one line.

    ``rows``: documents here; ``official_rows``: of the whole split, None where nobody knows.
    """

    task: str
    state: str
    problem: str | None = None
    place: str | None = None
    origin: dict[str, Any] | None = None
    files: tuple[FileState, ...] = ()
    rows: int | None = None
    official_rows: int | None = None
    pictures: int | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(name: str, task: Any, reads_pictures: bool = False) -> Inventory:
    """Look at the data of a task.

    Every file is read against its recorded digest, every row against the task's columns; with ``reads_pictures`` every
    picture is decoded.
    """
    official = getattr(task.source, "rows", None)
    try:
        place = task.data_place()
    except EvalError as error:
        return Inventory(name, "missing", str(error), official_rows=official)
    root = place.folder or place.files[0].parent
    base: dict[str, Any] = {"task": name, "place": str(root), "official_rows": official}
    try:
        record = read_record(root)
        files = tuple(_files(root, place.files, record))
        bad = [f"{one.name} is {one.state}" for one in files if one.state in ("missing", "damaged")]
        if bad:
            state = "damaged" if any(one.state == "damaged" for one in files) else "incomplete"
            hint = f"`blip3o-eval data get --task {name} --output {root.parent}` gets it again"
            return Inventory(**base, state=state, problem=f"{'; '.join(bad)}: {hint}", files=files)
        samples = task.samples()
        shown = sum(_decoded(sample) for sample in samples) if reads_pictures else None
    except (EvalError, ValueError) as error:
        return Inventory(**base, state="damaged", problem=str(error))
    return Inventory(
        **base,
        state="ok" if official in (None, len(samples)) else "incomplete",
        problem=None if official in (None, len(samples)) else f"{len(samples)} of {official} documents",
        origin=dict(task.data_origin()),
        files=files,
        rows=len(samples),
        pictures=shown,
        digest=task.digest(),
    )


def _files(root: Path, files: tuple[Path, ...], record: Record | None) -> Iterator[FileState]:
    recorded = dict(record.files) if record else {}
    here = {path.relative_to(root).as_posix(): path for path in files}
    for name in sorted({*recorded, *here}):
        path = here.get(name, root / name)
        if not path.is_file():
            yield FileState(name, "missing", None, None)
            continue
        digest, wanted = file_digest(path), recorded.get(name)
        promised = wanted["sha256"] if wanted else None
        state = "unrecorded" if promised is None else "ok" if digest == promised else "damaged"
        yield FileState(name, state, path.stat().st_size, digest)


def _decoded(sample: Any) -> int:
    return sum(1 for _ in sample.images)
