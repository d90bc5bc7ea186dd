"""The typed content of a sweep folder's files; ``evals.sweeps.folder`` reads and writes them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from evals.provenance import now
from evals.sweeps.api import Compute

Status = Literal["pending", "running", "done", "failed", "skipped"]


@dataclass(frozen=True)
class Evaluation:
    """One run of one task: at a step of the last stage, or at the end (``step`` None).

    ``config``: a RunConfig as JSON; of points that train, ``model.name`` is filled in by the point itself.
    """

    name: str
    task: str
    step: int | None
    config: Mapping[str, Any]

    @property
    def folder(self) -> str:
        return f"eval/{self.name}/{self.task}"


@dataclass(frozen=True)
class Point:
    """``point.json``."""

    id: str
    cell: str
    values: Mapping[str, Any]
    seed: int
    stages: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    digest: str

    def to_json(self) -> dict[str, Any]:
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "values": dict(self.values),
            "stages": list(self.stages),
            "evaluations": [asdict(e) for e in self.evaluations],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Point:
        return cls(
            **{f.name: data[f.name] for f in fields(cls) if f.name not in ("stages", "evaluations")},
            stages=tuple(data["stages"]),
            evaluations=tuple(Evaluation(**e) for e in data["evaluations"]),
        )


@dataclass(frozen=True)
class State:
    """``state.json`` of a point or a stage."""

    status: Status = "pending"
    attempts: int = 0
    error: str | None = None
    is_fatal: bool = False
    started: str | None = None
    finished: str | None = None
    seconds: float = 0.0
    host: str | None = None
    pid: int | None = None
    doing: str | None = None
    progress: float = 0.0

    @property
    def has_ended(self) -> bool:
        return self.status in ("done", "failed", "skipped")

    def begun(self) -> State:
        """The next attempt, by this process."""
        return replace(
            State("running", self.attempts + 1, seconds=self.seconds),
            started=now(), host=socket.gethostname(), pid=os.getpid(),
        )  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A metric's value with its bounds, in its unit; None where there is none. ``n``: values behind it."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    unit: str
    higher_is_better: bool
    note: str | None = None


@dataclass(frozen=True)
class CurveRow:
    """A line of ``curve.jsonl``.

    ``step``: of the last stage; ``total``: compute up to there, of all stages on the way, shared ones whole.
    ``metrics``: ``task/metric`` -> figure.
    """

    step: int
    total: Compute
    metrics: Mapping[str, Figure]
    is_final: bool = False


@dataclass(frozen=True)
class PointResult:
    """``result.json`` of a point.

    ``own``: training of stages that no other point uses; ``shared``: of those that others use as well, counted in
    here in full. ``parameters``: numbers trained, over all stages. ``evaluation_seconds``: of its evaluations.
    ``weights_sha256``: digest of the exported model that was scored; None without training.
    """

    metrics: Mapping[str, Figure]
    own: Compute
    shared: Compute
    parameters: int
    weights_sha256: str | None
    evaluation_seconds: float
    is_test_double: bool
    stages: tuple[str, ...] = ()

    @property
    def total(self) -> Compute:
        return self.own + self.shared
