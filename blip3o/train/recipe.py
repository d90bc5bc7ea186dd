"""A training run as data: model, stage, data sets and loop, from a YAML file or one that ships, checked before any
weight loads."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from blip3o.config import build_part
from blip3o.errors import ConfigError
from blip3o.train.data_spec import DataSpec
from blip3o.train.evaluation import EvaluateSpec
from blip3o.train.part_recipe import PARTS, PartRecipe
from blip3o.train.schedule import LoopConfig

RECIPES = Path(__file__).parent / "recipes"
StageKind = Literal["understanding", "generation", "joint", "instruction"]


@dataclass(frozen=True)
class StageSpec:
    """``learns``: patterns over parameter names, ``{head}`` standing for the generation head's network; all else is
    frozen. The weights are those of the two losses; a loss of weight 0 is not computed."""

    learns: tuple[str, ...]
    image_weight: float
    text_weight: float


STAGES: dict[str, StageSpec] = {
    "understanding": StageSpec(("backbone.*",), 0.0, 1.0),
    "generation": StageSpec(("queries.*", "{head}.*"), 1.0, 0.0),
    "joint": StageSpec(("*",), 1.0, 1.0),
    "instruction": StageSpec(("queries.*", "{head}.*"), 1.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Everything that decides what a run learns.

    ``model``: preset, folder or hub id to start from; ``fresh_head``: draw queries and generation head anew (the
    start of pretraining). ``target_encoder``: folder of the target encoder; default the one beside the weights.
    ``batch_size``, ``text_batch_size``: pictures and conversations of a micro-batch and process. ``max_length``:
    longest sequence in tokens, queries included. ``learns``, ``image_weight``, ``text_weight``: in place of the
    stage's own. ``frozen_dtype``: precision of what does not learn. ``cache``: folder for what frozen parts make of
    every record; filled where it is not, read in every epoch. ``evaluate``: scores and sample pictures on the way.
    """

    model: str
    stage: StageKind
    data: tuple[DataSpec, ...]
    loop: LoopConfig
    fresh_head: bool = False
    target_encoder: str | None = None
    batch_size: int = 16
    text_batch_size: int = 0
    max_length: int = 512
    learns: tuple[str, ...] | None = None
    image_weight: float | None = None
    text_weight: float | None = None
    frozen_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    activation_checkpointing: bool = False
    workers: int = 4
    shuffle_block: int = 1024
    max_bad_share: float = 0.01
    cache: str | None = None
    evaluate: EvaluateSpec | None = None

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def spec(self) -> StageSpec:
        """The stage with this recipe's own patterns and weights in place."""
        own = STAGES[self.stage]
        return StageSpec(
            own.learns if self.learns is None else self.learns,
            own.image_weight if self.image_weight is None else self.image_weight,
            own.text_weight if self.text_weight is None else self.text_weight,
        )

    def _problems(self) -> Any:
        """Every contradiction, so that they are mended in one go."""
        spec, kinds = self.spec, {data.kind for data in self.data}
        draws, talks = kinds & {"captions", "reconstruction"}, "conversations" in kinds
        if not self.data:
            yield "data is empty: name at least one data set"
        names = [data.name for data in self.data]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"data set '{name}' is named twice"
        for data in self.data:
            if not data.weight > 0:
                yield f"data set '{data.name}': weight {data.weight} must be greater than 0"
            if not data.paths:
                yield f"data set '{data.name}' has no paths"
        if spec.image_weight > 0 and not draws:
            yield f"stage '{self.stage}' learns pictures (image_weight {spec.image_weight}) but no data set has any"
        if spec.image_weight == 0 and draws:
            yield f"data of kind {', '.join(sorted(draws))} is unused: image_weight is 0"
        if spec.text_weight > 0 and not talks:
            yield f"stage '{self.stage}' learns answers (text_weight {spec.text_weight}) but no data has conversations"
        if spec.text_weight == 0 and talks:
            yield "data of kind conversations is unused: text_weight is 0"
        if spec.image_weight < 0 or spec.text_weight < 0:
            yield f"weights of losses must be 0 or more, got {spec.image_weight} and {spec.text_weight}"
        if spec.image_weight > 0 and self.batch_size < 1:
            yield f"batch_size {self.batch_size} is out of range: at least 1"
        if spec.text_weight > 0 and self.text_batch_size < 1:
            yield f"text_batch_size {self.text_batch_size} is out of range: at least 1 where answers are learned"
        if self.max_length < 8 or self.workers < 0 or self.shuffle_block < 1:
            yield (
                f"max_length {self.max_length}, workers {self.workers}, shuffle_block {self.shuffle_block}: "
                "at least 8, 0 and 1"
            )
        if self.loop.evaluate_every:
            yield f"loop.evaluate_every {self.loop.evaluate_every} has no effect in a recipe: use evaluate.every"


def named_recipes() -> list[str]:
    """Recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str, overrides: Sequence[str] = ()) -> TrainRecipe | PartRecipe:
    """The recipe of a model or of a part, by name or path.

    ``overrides``: settings on top, as ``a.b=value`` (``data.0.paths=[...]`` reaches into lists).
    Raises: ConfigError for a file that is missing or no YAML, and unknown or contradictory settings.
    """
    path = RECIPES / f"{source}.yaml" if source in named_recipes() else Path(source)
    if not path.is_file():
        close = get_close_matches(source, named_recipes(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"recipes: nano, {', '.join(named_recipes())}"
        raise ConfigError(f"'{source}' is neither a recipe nor a file; {hint}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is no YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings by name, such as model: and stage:")
    for override in overrides:
        _set(values, override)
    return recipe_from_dict(values, path.name)


def recipe_from_dict(values: Mapping[str, Any], source: str = "recipe") -> TrainRecipe | PartRecipe:
    """Settings -> recipe. Raises: ConfigError naming unknown, missing or mistyped keys."""
    values = dict(values)
    data = values.get("data", [])
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise ConfigError(f"{source}: data must be a list of data sets with name, layout and paths")
    values["data"] = tuple(
        _build(DataSpec, entry, f"{source}: data.{i}") for i, entry in enumerate(data)
    )
    values["loop"] = _build(LoopConfig, values.get("loop") or {}, f"{source}: loop")
    if values.get("evaluate") is not None:
        if not isinstance(values["evaluate"], dict):
            raise ConfigError(f"{source}: evaluate must hold settings by name, such as every: and hook:")
        values["evaluate"] = _build(EvaluateSpec, values["evaluate"], f"{source}: evaluate")
    stage = values.get("stage")
    if stage is not None and stage not in (*STAGES, *PARTS):
        close = get_close_matches(str(stage), [*STAGES, *PARTS], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"stage '{stage}' is unknown: one of {', '.join((*STAGES, *PARTS))}{hint}")
    return _build(PartRecipe if stage in PARTS else TrainRecipe, values, source)


def _build(kind: type[Any], values: Mapping[str, Any], name: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    needed = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [key for key in needed if key not in values]:
        raise ConfigError(f"{name} lacks {', '.join(missing)}")
    typed = {
        key: _typed(value, hints[key], f"{name}.{key}") if key in fields else value
        for key, value in values.items()
    }
    return build_part(kind, typed, name)


def _typed(value: Any, hint: Any, name: str) -> Any:
    """The value as the field wants it, or ConfigError. YAML's lists become tuples, its whole numbers floats."""
    options = [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else [hint]
    if value is None:
        if len(options) < len(get_args(hint)):
            return None
        raise ConfigError(f"{name} must not be empty")
    (option,) = options if len(options) == 1 else (Any,)
    if get_origin(option) is Literal:
        if value not in get_args(option):
            raise ConfigError(f"{name} {value!r} is unknown: one of {', '.join(get_args(option))}")
    elif get_origin(option) is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        inner = get_args(option)[0]
        return tuple(_typed(v, inner, name) if inner in (str, float) else v for v in value)
    elif option is float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
            value = float(value)  # YAML 1.1 reads 1e-4 as text
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} must be a number such as 1.0e-4, got {value!r}")
        return float(value)
    elif option is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    elif option is str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be text, got {value!r}")
        return _with_environment(value, name)
    elif option is bool and not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    elif get_origin(option) is dict and not isinstance(value, dict):
        raise ConfigError(f"{name} must hold settings by name, got {value!r}")
    return value


def _with_environment(text: str, name: str) -> str:
    def lookup(match: re.Match[str], name: str = name) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(f"{name}: the environment has no {match[1]}; set it, or --set the path")
        return value

    return re.sub(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", partial(lookup), text)


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override!r}: write it as key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is no YAML value") from None
    *path, last = key.split(".")
    at: Any = values
    for part in path:
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise ConfigError(f"--set {override!r}: there is no entry {part}; entries 0 to {len(at) - 1}")
            at = at[int(part)]
        elif isinstance(at, dict):
            at = at.setdefault(part, {})
        else:
            raise ConfigError(f"--set {override!r}: '{part}' is not a group of settings")
    if isinstance(at, list):
        if not last.isdigit() or int(last) >= len(at):
            raise ConfigError(f"--set {override!r}: there is no entry {last}; entries 0 to {len(at) - 1}")
        at[int(last)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise ConfigError(f"--set {override!r}: '{last}' has no place to go")
