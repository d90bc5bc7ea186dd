"""Settings of the executors: what ``executor:`` of a sweep file and ``--executor-set`` may say, checked at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evals.errors import ConfigError, shown, suggest

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")


def minutes_of(value: Any) -> Any:
    """Minutes of a number, or of ``H:MM``, ``H:MM:SS`` and ``D-H:MM:SS`` as SLURM writes them."""
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        if match is None:
            raise ValueError("must be minutes, or a time such as 12:00:00 or 2-00:00:00")
        days, hours, minutes, seconds = (int(g or 0) for g in match.groups())
        return (days * 24 + hours) * 60 + minutes + (seconds > 0)
    return value


class JobSettings(BaseModel):
    """What every executor knows: the needs of one job, a point or a shared stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cores: int | None = Field(default=None, ge=1, le=4096, description="per job; sets its threads too")
    gpus: int | None = Field(default=None, ge=0, le=64, description="per job")
    memory_gb: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="main memory per job; None: not counted"
    )
    grace_s: float = Field(
        default=10.0, ge=0, le=3600, description="seconds between SIGTERM and SIGKILL when a job is ended"
    )


class LocalSettings(JobSettings):
    """A pool on this machine."""

    total_cores: int | None = Field(default=None, ge=1, description="cores in the pool; None: all")
    total_gpus: int | None = Field(default=None, ge=0, description="GPUs in the pool; None: all")
    total_memory_gb: float | None = Field(default=None, gt=0, description="memory in the pool; None: all")


class SlurmSettings(JobSettings):
    """Jobs of a SLURM cluster, through submitit."""

    partition: str | None = None
    time: Annotated[int, BeforeValidator(minutes_of)] = Field(
        default=24 * 60,
        ge=1,
        description="limit of one job: minutes, or H:MM:SS; then it is lost and goes on next time",
    )
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    extra: dict[str, str | int | bool] = Field(
        default_factory=dict, description="any other option of sbatch, such as {mail-type: END}"
    )
    setup: list[str] = Field(
        default_factory=list, description="shell lines before the job, such as `module load cuda`"
    )
    cluster: Literal["slurm", "local"] = Field(
        default="slurm", description="local: submitit's own processes on this machine, to try things out"
    )


class RaySettings(JobSettings):
    """Tasks of a Ray cluster."""

    address: str | None = Field(
        default=None,
        min_length=1,
        description="of a running cluster, or auto; None: one of our own on this machine",
    )
    total_cores: int | None = Field(default=None, ge=1, description="of our own cluster; None: all")
    total_gpus: int | None = Field(default=None, ge=0, description="of our own cluster; None: all")


SETTINGS: dict[str, type[JobSettings]] = {
    "local": LocalSettings,
    "slurm": SlurmSettings,
    "ray": RaySettings,
}

S = TypeVar("S", bound=JobSettings)


def parse(kind: type[S], name: str, given: Mapping[str, Any]) -> S:
    """Checked settings. Raises ConfigError naming every wrong key or value."""
    unknown = [k for k in given if k not in kind.model_fields]
    if unknown:
        raise ConfigError(
            f"unknown setting {shown(unknown[0])} of executor {name!r}."
            f"{suggest(str(unknown[0]), kind.model_fields)}"
        )
    for key, value in given.items():
        if isinstance(value, bool):  # pydantic would take it for 1 or 0
            raise ConfigError(
                f"executor.{key} = {value} is not allowed: true and false are not among its values"
            )
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"][:2])
    return f"executor.{key} = {shown(error['input'])} is not allowed: {error['msg'].lower()}"
