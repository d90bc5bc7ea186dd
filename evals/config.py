"""RunConfig: every setting of a run, where each value came from, and the fingerprint of a run.

Layers are merged in this order, later ones win: defaults < preset < ``--config`` files <
environment < ``--set`` < flags. Unknown keys are refused with a suggestion. The fingerprint holds
everything that changes outputs or scores and nothing that does not (device, shards, tracking).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

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

from evals.api import Identity
from evals.errors import ConfigError, InputError, shown, suggest

MAX_SEED = 2**53 - 1
FINGERPRINT_VERSION = 1

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
    return json.loads(text)  # type: ignore[no-any-return]


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
        "nano", min_length=1, description="registered name, name:argument, folder or hub id"
    )
    revision: str | None = Field(None, description="commit or tag of a hub id")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$",
        description="auto, cpu, cuda, cuda:N, mps",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: the weights' own"
    )
    args: Arguments = Field(default_factory=dict, description="further arguments of the model")


class GenerationConfig(_Section):
    """How pictures are sampled; None is the model's own default."""

    guidance_scale: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1, le=1000, description="sampling steps")
    height: int | None = Field(None, ge=8, le=8192, description="pixels")
    width: int | None = Field(None, ge=8, le=8192, description="pixels")


class JudgeConfig(_Section):
    """Who judges."""

    name: str = Field("auto", min_length=1, description="auto: the judge of the model's domain")
    batch_size: BatchSize = "auto"
    args: Arguments = Field(default_factory=dict, description="further arguments of the judge")


class TrackingConfig(_Section):
    """MLflow."""

    enabled: bool = True
    experiment: str = Field("blip3o-eval", min_length=1)
    tracking_uri: str | None = Field(
        None, description="None: MLFLOW_TRACKING_URI or runs/mlflow.db"
    )
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("tags", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else value


class RunConfig(_Section):
    """All settings of a run of one task."""

    task: str = Field(min_length=1)
    limit: int | None = Field(
        None, ge=1, description="prompts or questions, spread over the groups"
    )
    num_images: int | None = Field(None, ge=1, le=1000, description="None: the official number")
    seed: int = Field(42, ge=0, le=MAX_SEED)
    seed_mode: Literal["sample", "upstream"] = "sample"
    batch_size: BatchSize = "auto"
    max_errors: float = Field(0.01, ge=0, le=1, description="share of outputs that may fail")
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


_OPEN = ("model.args", "judge.args", "tracking.tags")


def set_key(layer: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of a nested layer. Raises ConfigError for an unknown key."""
    key = {"model": "model.name", "judge": "judge.name"}.get(key, key)
    known = keys()
    is_open = any(key.startswith(f"{o}.") for o in _OPEN) and all(key.split("."))
    if key not in known and not is_open:
        raise ConfigError(f"unknown key {shown(key)}.{suggest(key, known)}")
    *parents, last = key.split(".")
    for parent in parents:
        layer = layer.setdefault(parent, {})
        if not isinstance(layer, dict):
            raise ConfigError(f"key {key!r} cannot be set: {parent!r} was given as {shown(layer)}")
    layer[last] = value


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"generation.steps=20"`` -> ("generation.steps", 20); the value is read as YAML."""
    from evals.yaml_settings import SettingsError, parse

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {shown(text)}: give key=value, such as generation.steps=20")
    try:
        return key.strip(), parse(value)
    except SettingsError as error:
        raise ConfigError(
            f"--set {shown(text)}: the value is not valid YAML ({error.problem})"
        ) from None


def read_config_file(path: str | Path) -> dict[str, Any]:
    """A YAML or JSON file as a nested layer. Raises InputError with the file's name."""
    from evals.strict_json import NotJsonError
    from evals.strict_json import parse as parse_json
    from evals.yaml_settings import MAX_BYTES, SettingsError, parse

    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)  # a device without end is not read to the end
        is_json = str(path).lower().endswith(".json")
        data = parse_json(raw) if is_json else parse(raw.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config file {path}: cannot be read ({_first_line(error)})") from None
    except NotJsonError as error:
        raise InputError(f"config file {path}: not valid JSON ({error})") from None
    except SettingsError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise InputError(f"config file {place}: not valid YAML ({error.problem})") from None
    if not isinstance(data, Mapping):
        raise InputError(f"config file {path}: expected keys and values, got {type(data).__name__}")
    layer: dict[str, Any] = {}
    for key, value in _flatten(data):
        try:
            set_key(layer, key, value)
        except ConfigError as error:
            raise InputError(f"config file {path}: {error}") from None
    return layer


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    sections = {k.rpartition(".")[0] for k in keys()} - {""}
    for name, value in data.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and (
            key in sections or (prefix == "" and key in ("model", "judge"))
        ):
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def resolve(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[RunConfig, dict[str, str]]:
    """Merge (origin, layer) pairs, later ones winning, into a checked RunConfig.

    Returns the config and, per dotted key that was given, where its value came from. Raises
    ConfigError that lists every wrong value with what is allowed and its origin.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in _flatten(layer):
            set_key(merged, key, value)
            origins[{"model": "model.name", "judge": "judge.name"}.get(key, key)] = origin
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def public_config(config: RunConfig) -> dict[str, Any]:
    """The config as JSON values for the manifest; passwords inside URLs are taken out."""
    data = config.model_dump(mode="json")
    uri = data["tracking"]["tracking_uri"]
    if uri and "@" in uri:
        parts = urlsplit(uri)
        data["tracking"]["tracking_uri"] = urlunsplit(
            parts._replace(netloc=parts.netloc.rpartition("@")[2])
        )
    return data


def fingerprint(
    config: RunConfig,
    *,
    task: tuple[str, str, str],
    num_images: int,
    model: Identity,
    judge: Identity | None,
) -> dict[str, Any]:
    """Everything that changes outputs or scores, as flat keys -> JSON values.

    Args: task: (name, version, digest of its prompts). num_images: resolved outputs per sample.
    Batch sizes stay as asked for ("auto" or a number); the manifest holds what auto became.
    """
    name, version, digest = task
    flat: dict[str, Any] = {
        "fingerprint": FINGERPRINT_VERSION,
        "task.name": name,
        "task.version": version,
        "task.prompts_sha256": digest,
        "limit": config.limit,
        "num_images": num_images,
        "seed": config.seed,
        "seed_mode": config.seed_mode,
        "batch_size": config.batch_size,
    }
    for prefix, identity in (("model", model), ("judge", judge)):
        if identity is None:
            flat[f"{prefix}.name"] = None
            continue
        flat[f"{prefix}.name"] = identity.name
        flat[f"{prefix}.version"] = identity.version
        flat[f"{prefix}.weights_sha256"] = identity.digest
        for key, value in sorted(identity.settings.items()):
            flat[f"{prefix}.{key}"] = value
    if judge is not None:
        flat["judge.batch_size"] = config.judge.batch_size
    return flat


def sha256_of(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def differing_keys(
    recorded: Mapping[str, Any], wanted: Mapping[str, Any], resolved: Mapping[str, Any]
) -> list[str]:
    """``key: recorded X, wanted Y`` for all keys that differ.

    ``resolved`` holds what "auto" became in the recorded run: "auto" fits whatever it became, and
    so does the same number given by hand.
    """
    lines = []
    for key in sorted({*recorded, *wanted}):
        old, new = recorded.get(key), wanted.get(key)
        if old == new:
            continue
        if key in resolved and (new == "auto" or new == resolved[key]):
            continue
        lines.append(f"{key}: recorded {_short(old)}, wanted {_short(new)}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:16]}...{text[-5:]}"
