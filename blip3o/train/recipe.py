"""A training run as data: model, stage, data sets and loop, from a YAML file or one that ships, checked before any
weight loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml

from blip3o.errors import ConfigError
from blip3o.train.data_spec import DataSpec
from blip3o.train.evaluation import EvaluateSpec
from blip3o.train.part_recipe import PARTS, PartRecipe
from blip3o.train.recipe_values import read_settings, set_value
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
        set_value(values, override)
    return recipe_from_dict(values, path.name)


def recipe_from_dict(values: Mapping[str, Any], source: str = "recipe") -> TrainRecipe | PartRecipe:
    """Settings -> recipe. Raises: ConfigError naming every unknown, missing, mistyped or contradictory one."""
    problems: list[str] = []
    sets = _data_sets(values.get("data", []), source, problems)
    loop = _group(LoopConfig, values, "loop", source, problems)
    given = {**values, "loop": loop or LoopConfig(steps=1, lr=1e-4)}  # a stand-in, to find what else is wrong
    if "data" in values:
        given["data"] = sets or ()
    if values.get("evaluate") is not None:
        given["evaluate"] = _group(EvaluateSpec, values, "evaluate", source, problems)
    stage, known = values.get("stage"), (*STAGES, *PARTS)
    is_known = stage is None or (isinstance(stage, str) and stage in known)
    if not is_known:
        close = get_close_matches(str(stage), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        problems.append(f"stage '{stage}' is unknown: one of {', '.join(known)}{hint}")
        given["stage"] = "joint"
    kind: type[Any] = PartRecipe if is_known and stage in PARTS else TrainRecipe
    recipe = read_settings(kind, given, source, problems, is_complete=is_known and sets is not None)
    if problems:
        raise ConfigError("; ".join(problems))
    return recipe


def _data_sets(values: Any, source: str, problems: list[str]) -> tuple[DataSpec, ...] | None:
    """What is wrong is added to ``problems``; then None."""
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        problems.append(f"{source}: data must be a list of data sets with name, layout and paths")
        return None
    sets = [read_settings(DataSpec, entry, f"{source}: data.{i}", problems) for i, entry in enumerate(values)]
    return None if None in sets else tuple(sets)


def _group(kind: type[Any], values: Mapping[str, Any], name: str, source: str, problems: list[str]) -> Any:
    """The settings under one name. What is wrong is added to ``problems``; then None."""
    group = values.get(name) or {}
    if not isinstance(group, dict):
        problems.append(f"{source}: {name} must hold settings by name, got {group!r}")
        return None
    return read_settings(kind, group, f"{source}: {name}", problems)
