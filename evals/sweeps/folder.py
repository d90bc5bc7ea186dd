"""What is in a sweep folder, key by key, and the one place that reads and writes it.

``sweep.json`` - the resolved definition, written once before the first job
    schema             version of this page, an integer
    name, description  of the sweep
    definition         the sweep file (``evals.sweeps.schema.SweepConfig``), defaults filled in
    digest             sha256 of all that changes a number; a folder with another one is refused
    axes               label -> list of values: what the points differ in, in the order of the file
    points             ids in the order in which they are shown
    stages             stage id -> ids of the points that need it, parents first; more than one: shared
    left_out           id -> reason: combinations that cannot be
    cells              cell id -> ids of its points, one per seed
    baseline           id of the cell that the others are compared with, or null
    metrics            names (``task/metric``) in printing order, the first is the headline
    tasks              task -> kind, version
    versions, git      of the process that made the folder
    content_sha256     checksum of the rest, as in all JSON files here

``points/<point id>/`` - one combination of the axes with one seed
    point.json         id, cell (id without the seed), values (label -> value), seed, stages (ids in order; empty: it
                       does not train), digest, evaluations (name, task, step or null, config: a RunConfig)
    state.json         status (pending | running | done | failed | skipped), attempts, error (one line), is_fatal (it
                       concerns every point: a full disk), started, finished (ISO 8601, UTC), seconds (of all
                       attempts so far), host, pid, doing (what it works on), progress (0 to 1)
    eval/step-<n>/<task>/, eval/final/<task>/     ordinary run folders (``evals.results``)
    curve.jsonl        one line per evaluated checkpoint, the end included, by step
    result.json        written last: the final figures, and what the point took
    job/               the executor's: log.txt, what the job said, and its own notes

``stages/<stage id>/`` - one stage of training, shared by all points that name it
    stage.json         a StageSpec (``evals.sweeps.api``); result.json a StageResult; state.json as above, of shared
                       stages, which are jobs of their own
    export/, export-step-<n>/     pipelines, loadable as model ``blip3o:PATH``; the rest is the trainer's

``lock``           held by the process that schedules the sweep (kernel lock: no stale ones)
``report.html``, ``table.csv``
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from evals.errors import InputError, StoreError
from evals.io.checksums import JSON_KEY, is_sound, seal_line
from evals.io.files import json_problem, sealed_json, write_atomically, write_json, writing
from evals.io.jsonl import dumps, read_rows
from evals.io.strict_json import parse
from evals.sweeps.api import Compute, StageResult, StageSpec
from evals.sweeps.records import CurveRow, Evaluation, Figure, Point, PointResult, State, Status

SCHEMA_VERSION = 1
SWEEP, POINT, STAGE, STATE, RESULT = (
    "sweep.json", "point.json", "stage.json", "state.json", "result.json",
)  # fmt: skip
CURVE, LOCK, REPORT, TABLE = "curve.jsonl", "lock", "report.html", "table.csv"
FINAL = "final"

__all__ = [
    "CurveRow", "Evaluation", "Figure", "Point", "PointResult", "State", "Status", "SweepFolder", "digest_of",
    "is_complete", "is_disk_full", "is_sweep", "read_curve", "read_json", "read_point", "read_result", "read_stage",
    "read_stage_result", "read_state", "verdict", "write_curve", "write_point", "write_result", "write_stage",
    "write_stage_result", "write_state",
]  # fmt: skip

@dataclass(frozen=True)
class SweepFolder:
    """A sweep folder; methods read and write, properties are paths."""

    root: Path
    _sweep: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    # -- paths --------------------------------------------------------------------------------

    @property
    def points_root(self) -> Path:
        return self.root / "points"

    @property
    def stages_root(self) -> Path:
        return self.root / "stages"

    def point_folder(self, point_id: str) -> Path:
        return self.points_root / point_id

    def stage_folder(self, stage_id: str) -> Path:
        return self.stages_root / stage_id

    def eval_folder(self, point_id: str, name: str, task: str) -> Path:
        return self.point_folder(point_id) / "eval" / name / task

    # -- the sweep ----------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return (self.root / SWEEP).exists()

    def sweep(self) -> Mapping[str, Any]:
        """The content of ``sweep.json``, read once. Raises InputError where it is missing or damaged."""
        if not self._sweep:
            found = read_json(self.root / SWEEP, f"{self.root} is not a sweep folder")
            if found.get("schema") != SCHEMA_VERSION:
                raise InputError(
                    f"{self.root / SWEEP}: schema {found.get('schema')!r}, this version reads {SCHEMA_VERSION}"
                )
            self._sweep.update(found)
        return self._sweep

    def point_ids(self) -> list[str]:
        return list(self.sweep()["points"])

    def stage_users(self) -> Mapping[str, Sequence[str]]:
        """Stage id -> ids of the points that need it, parents before children; shared with more than one."""
        users: Mapping[str, Sequence[str]] = self.sweep()["stages"]
        return users

    def point(self, point_id: str) -> Point:
        return read_point(self.point_folder(point_id))

    def state(self, point_id: str) -> State:
        return read_state(self.point_folder(point_id))

    def stage_state(self, stage_id: str) -> State:
        return read_state(self.stage_folder(stage_id))

    def result(self, point_id: str) -> PointResult | None:
        """None while the point is unfinished."""
        return read_result(self.point_folder(point_id))

    def curve(self, point_id: str) -> list[CurveRow]:
        return read_curve(self.point_folder(point_id))


def is_sweep(path: str | Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (Path(path) / SWEEP).is_file()


# -- readers and writers, by folder of a point or a stage -----------------------------------------


def read_json(path: Path, if_missing: str | None = None) -> dict[str, Any]:
    """A JSON object with its checksum checked and taken off. Raises InputError, one line."""
    try:
        data = parse(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{if_missing or path}: there is no {path.name}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if not isinstance(data, dict) or not is_sound(data):
        raise InputError(f"{path}: damaged, its checksum differs")
    del data[JSON_KEY]
    return data


def read_point(folder: Path) -> Point:
    return Point.from_json(read_json(folder / POINT))


def write_point(folder: Path, point: Point) -> None:
    write_json(folder / POINT, point.to_json())


def read_stage(folder: Path) -> StageSpec:
    return StageSpec.from_json(read_json(folder / STAGE))


def write_stage(folder: Path, spec: StageSpec) -> None:
    write_json(folder / STAGE, spec.to_json())


def read_state(folder: Path) -> State:
    """Its state; ``pending`` without a file, or with one that a full disk cut short."""
    try:
        data = read_json(folder / STATE)
    except InputError:
        return State()
    return State(**{f.name: data[f.name] for f in fields(State) if f.name in data})


def write_state(folder: Path, state: State, is_durable: bool = True) -> None:
    """Where the disk is full, the old file is overwritten in its place: it has its block already, and that the disk is
    full is just what this state has to tell. Cut short there, it reads as pending."""
    try:
        write_json(folder / STATE, asdict(state), is_durable)
    except StoreError as error:
        if not is_disk_full(error) or not (folder / STATE).exists():
            raise
        with writing(folder / STATE), open(folder / STATE, "r+b") as file:
            file.write(sealed_json(asdict(state)))
            file.truncate()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this or what caused it says so; libraries that write weights only say it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left on" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def is_complete(folder: Path) -> bool:
    """Whether a point or stage is done and what it left can be read; damaged files are made again by its job."""
    if json_problem(folder / RESULT) is not None:
        return False
    if (folder / STAGE).exists():
        return True
    try:
        point, curve = read_point(folder), read_curve(folder)
    except InputError:
        return False
    stages = SweepFolder(folder.parent.parent).stages_root
    if any(json_problem(stages / stage / RESULT) is not None for stage in point.stages):
        return False
    wanted = {evaluation.step for evaluation in point.evaluations} if point.stages else ()
    return len(curve) == len(wanted) and read_state(folder).status == "done"


def verdict(folder: Path) -> Literal["done", "failed"] | None:
    """What a job of this folder said last about itself; None: it has not said that it ended."""
    status = read_state(folder).status
    return status if status in ("done", "failed") else None


def read_stage_result(folder: Path) -> StageResult | None:
    """None while the stage is unfinished."""
    if not (folder / RESULT).exists():
        return None
    return StageResult.from_json(read_json(folder / RESULT))


def write_stage_result(folder: Path, result: StageResult) -> None:
    write_json(folder / RESULT, result.to_json())


def read_result(folder: Path) -> PointResult | None:
    if not (folder / RESULT).exists():
        return None
    data = read_json(folder / RESULT)
    return PointResult(
        metrics=_figures(data["metrics"]),
        own=Compute(**data["own"]),
        shared=Compute(**data["shared"]),
        parameters=data["parameters"],
        weights_sha256=data["weights_sha256"],
        evaluation_seconds=data["evaluation_seconds"],
        is_test_double=data["is_test_double"],
        stages=tuple(data["stages"]),
    )


def write_result(folder: Path, result: PointResult) -> None:
    write_json(folder / RESULT, {**asdict(result), "stages": list(result.stages)})


def read_curve(folder: Path) -> list[CurveRow]:
    """By step; empty where nothing was evaluated yet."""
    path = folder / CURVE
    if not path.exists():
        return []
    return [
        CurveRow(row["step"], Compute(**row["total"]), _figures(row["metrics"]), row["is_final"])
        for row in read_rows(path)
    ]


def write_curve(folder: Path, rows: Iterable[CurveRow]) -> None:
    """All lines in one atomic step: they are few."""
    ordered: Sequence[CurveRow] = sorted(rows, key=lambda row: (row.step, row.is_final))
    write_atomically(folder / CURVE, b"".join(seal_line(dumps(asdict(row))) for row in ordered))


def _figures(data: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: Figure(**figure) for name, figure in data.items()}


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of a value, 1.0 and 1 counting as the same."""
    from evals.fingerprint import sha256_of

    return sha256_of(_plain(json.loads(json.dumps(value, allow_nan=False))))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
