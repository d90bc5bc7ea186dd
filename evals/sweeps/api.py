"""Nouns of sweeps: training stages and what they cost, executors and their jobs. Standard library only.

A *point* is one combination of the axes with one seed. It is trained by *stages*, in order; stages with the same
settings and the same parents have the same id and run once for all points that need them. A *job* is one process,
``python -m evals.sweeps.point FOLDER``, of one point or of one shared stage; where it runs is the executor's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from evals.errors import ConfigError


class ImpossibleError(ConfigError):
    """Allowed values that cannot go together, such as a loss that a target has no use for; the message is the reason.

    The plan lists such a point with the reason and leaves it out; any other ConfigError stops the plan.
    """


@dataclass(frozen=True)
class Estimate:
    """What a stage is going to cost: optimizer steps, seconds of training, images seen, and bytes on disk.

    ``bytes``: what it leaves, without the exports at checkpoints; each of these has ``export_bytes``.
    """

    steps: int
    seconds: float
    bytes: int
    images: int
    export_bytes: int = 0


@dataclass(frozen=True)
class StageSpec:
    """One stage of training.

    ``id``: readable name and digest of the stage's own settings, its seed and its parents' ids, such as
    ``understanding-1a2b3c4d5e6f``; safe as a folder name. ``parents``: ids of stages that have to be finished before.
    ``settings``: JSON values. ``export_at``: steps of this stage at which ``export-step-<n>/`` is wanted; it is no
    part of the id.
    """

    id: str
    name: str
    parents: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int
    estimate: Estimate
    export_at: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "parents": list(self.parents), "export_at": list(self.export_at)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageSpec:
        return cls(
            id=data["id"],
            name=data["name"],
            parents=tuple(data["parents"]),
            settings=data["settings"],
            seed=data["seed"],
            estimate=Estimate(**data["estimate"]),
            export_at=tuple(data["export_at"]),
        )


@dataclass(frozen=True)
class Compute:
    """Training that was done: optimizer steps, seconds in the training loop (exports left out), images seen."""

    steps: int = 0
    seconds: float = 0.0
    images: int = 0

    def __add__(self, other: Compute) -> Compute:
        return Compute(
            self.steps + other.steps, self.seconds + other.seconds, self.images + other.images
        )


@dataclass(frozen=True)
class Checkpoint:
    """Where a stage stands: after each log line, and after each export (``export`` is its folder then)."""

    compute: Compute
    total_steps: int
    export: Path | None = None


@dataclass(frozen=True)
class StageResult:
    """What a finished stage took and left. ``parameters``: numbers trained by it. ``at``: compute of this stage
    alone at each step of ``export_at``. ``weights_sha256``: digest of ``export/``, or of the stage's own weights."""

    compute: Compute
    parameters: int
    weights_sha256: str | None = None
    at: Mapping[int, Compute] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": {str(k): asdict(v) for k, v in self.at.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageResult:
        return cls(
            compute=Compute(**data["compute"]),
            parameters=data["parameters"],
            weights_sha256=data["weights_sha256"],
            at={int(k): Compute(**v) for k, v in data["at"].items()},
        )


OnCheckpoint = Callable[[Checkpoint], None]


class Trainer(Protocol):
    """A module or object that trains; ``evals.sweeps.training`` is the one for BLIP3-o."""

    def plan_stages(self, settings: Mapping[str, Any], seed: int) -> Sequence[StageSpec]:
        """Settings under ``train`` -> stages in an order in which they can run; imports no torch, writes nothing.

        The last one leaves ``export/``. Raises: ConfigError naming unknown keys or values with a suggestion,
        ImpossibleError for values that cannot go together.
        """

    def speed_of(self, settings: Mapping[str, Any]) -> str:
        """On what the estimates of seconds rest, such as "2 cores without a GPU"; settings are those of the base."""

    def train_stage(
        self, spec: StageSpec, folder: Path, stages_root: Path, on_checkpoint: OnCheckpoint
    ) -> StageResult:
        """Train in ``folder``, or go on there after an interruption; on a finished stage it only reads.

        Parents lie in ``stages_root / id``. ``on_checkpoint`` may raise, to stop. The last stage of a point leaves
        ``export/``, a folder that loads as the model of ``model_of``, and ``export-step-<n>/`` for every n of
        ``spec.export_at``, each complete or absent (built under another name, then renamed).
        """

    def check_run(self, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Whether a model of these training settings can be evaluated with these run settings (a RunConfig as JSON).

        Raises: ImpossibleError, such as for guidance of a model that samples nothing.
        """

    def flops_of(self, folder: Path) -> Mapping[str, float]:
        """Arithmetic of a point whose last stage lies finished in ``folder``: phase -> floating-point operations.

        What was trained alike for every point is left out; {} where nothing was counted.
        """

    def model_of(self, export: Path) -> str:
        """The name under which the harness finds the exported model, such as ``blip3o:PATH``."""


@dataclass(frozen=True)
class Resources:
    """What one job takes: cores, GPUs, and gigabytes of main memory (None: not counted)."""

    cores: int = 1
    gpus: int = 0
    memory_gb: float | None = None


JobStatus = Literal["running", "done", "failed", "lost"]


class Job(Protocol):
    """One process that was handed to an executor.

    ``log``: the file with its stdout and stderr, if the executor keeps one. ``reason``: one line on why it was lost,
    such as "ended by SIGKILL (out of memory?)". ``is_waiting``: handed over, and not started yet.
    """

    log: Path | None
    reason: str | None

    @property
    def is_waiting(self) -> bool: ...

    def poll(self) -> JobStatus:
        """Quick, never blocks; a job that waits in a queue is ``running``. ``done`` and ``failed`` are what the job
        wrote into ``state.json`` (``evals.sweeps.folder.verdict``); ``lost``: it is gone and wrote neither."""

    def cancel(self) -> None:
        """End it and all its children, and return when they are gone or given up; nothing if it ended already."""


class Executor(Protocol):
    """Starts jobs; a context manager: at its end nothing of it runs.

    ``capacity``: what runs at once, None where a queue decides that. ``per_job``: what a job takes.
    """

    name: str
    capacity: Resources | None
    per_job: Resources

    def has_room(self, resources: Resources) -> bool:
        """Whether a job can be handed over now; a queue always has room."""

    def submit(self, folder: Path, resources: Resources) -> Job:
        """Run ``python -m evals.sweeps.point FOLDER`` for a point's or a stage's folder.

        Raises: ExecutorError where no job can be started at all.
        """

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> Sequence[Job]:
        """Several at once; one job array where there is such a thing."""

    def attach(self, folder: Path) -> Job | None:
        """A job of this folder that an earlier process handed over and that still waits or runs."""

    def close(self) -> None:
        """End what still runs."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...
