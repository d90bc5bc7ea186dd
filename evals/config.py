"""RunConfig: every setting of a run of one task, and where each value came from.

Layers are merged in this order, later ones win: defaults < preset < ``--config`` files <
environment < ``--set`` < flags. Unknown keys are refused with a suggestion. A preset is what model
and task bring along: their values stand where nobody gave one (``evals.settings.show``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from evals.errors import ConfigError, shown, suggest
from evals.io.redact import redact_json

MAX_SEED = 2**53 - 1

BatchSize = Annotated[int, Field(ge=1, le=4096)] | Literal["auto"]


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Arguments are written into the manifest, so they have to be what JSON can hold."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise PydanticCustomError(
            "not_json", "must be texts, finite numbers, true, false, null, and lists and maps of them"
        ) from None
    return json.loads(text)


Arguments = Annotated[dict[str, Any], AfterValidator(_as_json)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        """`limit: true` would be a limit of 1."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise PydanticCustomError("truth_value", "true and false are not among its values")
        return value


class ModelConfig(_Section):
    """Which model, and how it is loaded."""

    name: str = Field(
        default="nano", min_length=1, description="registered name, name:argument, folder or hub id"
    )
    revision: str | None = Field(default=None, description="commit or tag of a hub id")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$",
        description="auto, cpu, cuda, cuda:N, mps",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: the weights' own"
    )
    args: Arguments = Field(default_factory=dict, description="further arguments of the model")


class GenerationConfig(_Section):
    """How pictures are sampled; None is the model's own default."""

    guidance_scale: float | None = Field(
        default=None, ge=0, le=100, allow_inf_nan=False, description="classifier-free guidance"
    )
    steps: int | None = Field(default=None, ge=1, le=1000, description="sampling steps")
    height: int | None = Field(default=None, ge=8, le=8192, description="pixels")
    width: int | None = Field(default=None, ge=8, le=8192, description="pixels")


class JudgeConfig(_Section):
    """Who judges."""

    name: str = Field(default="auto", min_length=1, description="auto: the judge of the model's domain")
    batch_size: BatchSize = Field(default="auto", description="pictures per call of the judge")
    args: Arguments = Field(default_factory=dict, description="further arguments of the judge")


class TrackingConfig(_Section):
    """MLflow."""

    enabled: bool = Field(default=True, description="log the finished run")
    experiment: str = Field(default="blip3o-eval", min_length=1, max_length=250)
    tracking_uri: str | None = Field(
        default=None, description="None: MLFLOW_TRACKING_URI or runs/mlflow.db"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the MLflow run")

    @field_validator("tags", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else value


class RunConfig(_Section):
    """All settings of a run of one task."""

    task: str = Field(min_length=1, description="registered name")
    data: str | None = Field(
        default=None,
        min_length=1,
        description="file, folder or prompt list with the task's data; None: BLIP3O_EVAL_DATA, then the hub's cache",
    )
    limit: int | None = Field(
        default=None, ge=1, description="prompts or questions, spread over the groups; None: all"
    )
    num_images: int | None = Field(default=None, ge=1, le=1000, description="None: the official number")
    seed: int = Field(default=42, ge=0, le=MAX_SEED, description="run seed")
    seed_mode: Literal["sample", "upstream"] = Field(
        default="sample",
        description="sample: a seed per picture; upstream: the seed set again before each prompt",
    )
    batch_size: BatchSize = Field(default="auto", description="pictures or questions per model call")
    metrics: list[str] = Field(
        default_factory=list,
        description="further figures beside the task's own, by their registered names",
    )
    max_errors: float = Field(default=0.01, ge=0, le=1, description="share of outputs that may fail")
    model: ModelConfig = Field(default_factory=ModelConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, data: Any) -> Any:
        """``model: nano`` and ``judge: stickers`` are short for their ``name``."""
        if isinstance(data, Mapping):
            return {
                k: {"name": v} if k in ("model", "judge") and isinstance(v, str) else v
                for k, v in data.items()
            }
        return data


def keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """All dotted keys: task, limit, model.name, ...; ``*.args`` and ``tracking.tags`` are open."""
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += keys(inner, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


OPEN_SECTIONS = ("model.args", "judge.args", "tracking.tags")
SHORT_NAMES = {"model": "model.name", "judge": "judge.name"}


def set_key(layer: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of a nested layer. Raises ConfigError for an unknown key."""
    key = SHORT_NAMES.get(key, key)
    known = keys()
    is_open = any(key.startswith(f"{o}.") for o in OPEN_SECTIONS) and all(key.split("."))
    if key not in known and not is_open:
        raise ConfigError(f"unknown key {shown(key)}.{suggest(key, known)}")
    *parents, last = key.split(".")
    for parent in parents:
        layer = layer.setdefault(parent, {})
        if not isinstance(layer, dict):
            raise ConfigError(f"key {key!r} cannot be set: {parent!r} was given as {shown(layer)}")
    layer[last] = value


def is_open_map(key: str, value: Any) -> bool:
    """Whether a value's names can be set one by one: all are plain, and there are some."""
    return (
        key in OPEN_SECTIONS
        and isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(n, str) and n and "." not in n for n in value)
    )


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of a nested layer; open sections such as ``model.args`` stay one value."""
    sections = {k.rpartition(".")[0] for k in keys()} - {""}
    for name, value in data.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and (
            key in sections or (prefix == "" and key in ("model", "judge"))
        ):
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def resolve(
    layers: Sequence[tuple[str | Mapping[str, str], Mapping[str, Any]]],
) -> tuple[RunConfig, dict[str, str]]:
    """Merge (origin, layer) pairs, later ones winning, into a checked RunConfig.

    Args: origin: one text for the whole layer, or one per dotted key. Open sections (``model.args``,
    ``tracking.tags``) are merged name by name.
    Returns: the config and, per dotted key that was given, where its value came from.
    Raises: ConfigError that lists every wrong value with what is allowed and its origin.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in flatten(layer):
            key = SHORT_NAMES.get(key, key)
            named = {f"{key}.{n}": v for n, v in value.items()} if is_open_map(key, value) else {}
            for one, inner in (named or {key: value}).items():
                set_key(merged, one, inner)
                origins[one] = origin if isinstance(origin, str) else origin.get(one, origin.get(key, "?"))
    try:
        return RunConfig.model_validate(merged), origins
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, origins) for e in error.errors())) from None


def _explain(error: Any, origins: Mapping[str, str]) -> str:
    parts = [str(p) for p in error["loc"] if str(p) in _field_names()]
    key, value = ".".join(parts) or ".".join(map(str, error["loc"])), error.get("input")
    origin = f" (from {origins[key]})" if key in origins else ""
    value = shown(value)
    if error["type"] == "missing":
        return f"{key} is required"
    bounds = [
        f"{word} {error['ctx'][name]}"
        for name, word in (
            ("ge", "at least"),
            ("gt", "more than"),
            ("le", "at most"),
            ("lt", "less than"),
        )
        if name in error.get("ctx", {})
    ]
    expected = error.get("ctx", {}).get("expected")
    if error["type"] == "string_pattern_mismatch":
        expected = "auto, cpu, mps, cuda or cuda:N"
    rule = " and ".join(bounds) or (f"one of {expected}" if expected else error["msg"].lower())
    return (
        f"{key} = {value}{origin} is not allowed: must be {rule}"
        if bounds or expected
        else (f"{key} = {value}{origin} is not allowed: {rule}")
    )


def _field_names() -> set[str]:
    return {part for key in keys() for part in key.split(".")}


def public_config(config: RunConfig) -> dict[str, Any]:
    """The config as JSON values for manifests and screens, without secrets."""
    public: dict[str, Any] = redact_json(config.model_dump(mode="json"))
    return public
