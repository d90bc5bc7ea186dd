"""A point of the study at any size: a pretrained backbone, data sets of records, the designs of the paper. No torch.

The backbone's own pretraining is the understanding phase (as BLIP3-o takes Qwen2.5-VL), so a sequential point is one
stage on the frozen backbone; a joint point trains everything on pictures and conversations for as many steps as the
same arithmetic allows. ``instruction_share`` gives the last share of the steps to a stage of its own on
``instruction_data``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blip3o.errors import ConfigError
from blip3o.flops import backbone_flops, dit_flops, eva_flops
from blip3o.heads.kinds import COMBINATIONS
from blip3o.presets import PRESETS, preset_folder, released_config_values
from blip3o.train.study.compute import BACKWARD, FROZEN_BACKWARD, DiTShape
from blip3o.train.study.planned import PlannedStage
from blip3o.train.study.settings import (
    Head,
    ImpossibleCombination,
    Match,
    Objective,
    Schedule,
    Target,
    read_settings,
)

# What the released transformer is (blip3o.dit.DiTConfig), and the patches of each target: 64 tokens for both. The
# paper does not say which VAE it used; this one is 256 px to 32 x 32 x 4, as Stable Diffusion's.
RELEASED_DIT: dict[str, Any] = {
    "input_size": 8, "patch_size": 1, "in_channels": 1792, "dim": 1792, "num_layers": 24, "num_heads": 28,
}  # fmt: skip
VAE_PATCHES = {"input_size": 32, "patch_size": 4, "in_channels": 4}


@dataclass(frozen=True)
class _Tower:
    """The EVA tower of the released models, as ``EvaConfig`` has it."""

    image_size: int = 448
    patch_size: int = 14
    width: int = 1792
    layers: int = 64
    mlp_ratio: float = 15360 / 1792


@dataclass(frozen=True, kw_only=True)
class RecipeGenerator:
    """The training: ``batch`` pictures and ``text_batch`` conversations of a micro-batch and process; ``accumulation``
    micro-batches a step. ``steps``: of the sequential points."""

    steps: int = 50_000
    batch: int = 16
    text_batch: int = 8
    accumulation: int = 1
    lr: float = 1e-4
    min_lr_ratio: float = 0.1
    warmup_steps: int = 450
    ema_decay: float = 0.9999
    sharding: str = "fsdp2"
    workers: int = 8
    max_length: int = 512


@dataclass(frozen=True, kw_only=True)
class RecipeStudySettings:
    """One point at the size of ``model`` (preset, hub id or folder).

    ``data``, ``text_data``, ``instruction_data``: data sets as in recipes (docs/training.md); ``mixture`` sets the
    weight of those of ``data`` by name, 0 leaves one out. ``clip_encoder``, ``clip_decoder``: folders, where the model
    does not bring them; ``vae``: folder of the VAE of the VAE target. ``dit``: sizes in place of the released
    transformer's. ``devices``, ``peak_tflops``, ``share``, ``prompt_tokens`` are for the estimate alone.
    """

    model: str
    data: tuple[Any, ...]
    text_data: tuple[Any, ...] = ()
    instruction_data: tuple[Any, ...] = ()
    instruction_share: float = 0.0
    mixture: dict[str, Any] = field(default_factory=dict)
    target: Target = "clip"
    objective: Objective = "flow"
    schedule: Schedule = "sequential"
    head: Head = "dit"
    num_queries: int = 64
    text_weight: float = 1.0
    match: Match = "flops"
    clip_encoder: str | None = None
    clip_decoder: str | None = None
    vae: str | None = None
    dit: dict[str, Any] = field(default_factory=dict)
    generator: RecipeGenerator = field(default_factory=RecipeGenerator)
    devices: int = 32
    peak_tflops: float = 989.0
    share: float = 0.4
    prompt_tokens: int = 150

    def __post_init__(self) -> None:
        if wrong := list(self._wrong()):
            raise ConfigError("; ".join(wrong))
        if reasons := list(self._impossible()):
            raise ImpossibleCombination("; ".join(reasons))

    def _wrong(self) -> Iterator[str]:
        for name in ("data", "text_data", "instruction_data"):
            for entry in getattr(self, name):
                if not isinstance(entry, Mapping) or {"name", "layout", "paths"} - set(entry):
                    yield f"{name}: each data set needs name, layout and paths, got {entry!r}"
        names = [entry["name"] for entry in self.data if isinstance(entry, Mapping) and "name" in entry]
        for name in self.mixture:
            if name not in names:
                yield f"mixture.{name}: no data set has this name; there are {', '.join(map(str, names)) or 'none'}"
        if not self.data:
            yield "data is empty: name at least one data set of pictures with captions"
        if self.schedule == "joint" and not self.text_data:
            yield "text_data is empty: joint training needs conversations"
        if not 0 <= self.instruction_share < 1:
            yield f"instruction_share {self.instruction_share} is out of range: 0 or more, less than 1"
        if self.instruction_share and not self.instruction_data:
            yield f"instruction_share {self.instruction_share} needs instruction_data"
        if self.target == "vae" and self.vae is None:
            yield "target vae needs the folder of a VAE: vae: FOLDER, a decoder folder of kind vae"
        if min(self.devices, self.peak_tflops, self.share, self.prompt_tokens) <= 0:
            yield "devices, peak_tflops, share and prompt_tokens must be greater than 0"

    def _impossible(self) -> Iterator[str]:
        if (self.target, self.objective) not in COMBINATIONS:
            allowed = ", ".join(f"{t} + {o}" for t, o in COMBINATIONS)
            yield f"target {self.target} with objective {self.objective} is not studied (studied: {allowed})"
        if self.head == "linear" and self.objective != "mse":
            yield "head linear learns by mse only"

    @property
    def dit_values(self) -> dict[str, Any]:
        """``dit_config`` without the condition's width, which follows the backbone."""
        patches = VAE_PATCHES if self.target == "vae" else {}
        return {**RELEASED_DIT, **patches, **self.dit}

    @property
    def mixed_data(self) -> list[dict[str, Any]]:
        """``data`` with the weights of ``mixture``."""
        weighted = [{**e, "weight": self.mixture.get(e["name"], e.get("weight", 1.0))} for e in self.data]
        return [entry for entry in weighted if entry["weight"] > 0]


@dataclass(frozen=True)
class RecipeBudget:
    """Steps of the point, and operations of one step on all devices: ``step_flops`` are matched between schedules,
    ``encoder_flops`` are the target encoder's, which a cache saves after the first epoch and nobody learns from."""

    steps: int
    step_flops: float
    encoder_flops: float
    images_per_step: int

    def hours(self, settings: RecipeStudySettings) -> float:
        """Of all devices together, at ``share`` of their peak."""
        speed = settings.peak_tflops * 1e12 * settings.share * settings.devices
        return self.steps * (self.step_flops + self.encoder_flops) / speed / 3600


def is_released(source: str) -> bool:
    """Whether a name is that of a released model, by preset or hub id."""
    return any(source in (name, preset.hub_id) for name, preset in PRESETS.items() if preset.hub_id)


def text_config(source: str) -> dict[str, Any]:
    """Sizes of a model's language model. Raises: ConfigError."""
    import json

    for name, preset in PRESETS.items():
        if source in (name, preset.hub_id) and preset.hub_id:
            return released_config_values(name)
    folder = preset_folder("nano") if source == "nano" else Path(source).expanduser()
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = ", ".join(n for n, p in PRESETS.items() if p.hub_id)
        raise ConfigError(
            f"model {source!r} is neither a released model ({known}) nor a folder of weights with config.json"
        ) from None
    values = values.get("backbone_config", values)
    return dict(values.get("text_config") or values)


def recipe_budget(settings: RecipeStudySettings) -> RecipeBudget:
    """Matched as ``settings.match`` says; see ``compute`` for the rule at the size of nano."""
    own = settings.generator
    text, prompt = text_config(settings.model), settings.prompt_tokens + 1
    whole = backbone_flops(text, prompt + settings.num_queries)
    head = (1 + BACKWARD) * _head_flops(settings, text["hidden_size"])
    frozen = whole + FROZEN_BACKWARD * (whole - backbone_flops(text, prompt)) + head
    # of other target encoders nothing is known here
    has_eva = settings.target == "clip" and settings.clip_encoder is None and is_released(settings.model)
    encoder = eva_flops(_Tower()) if has_eva else 0  # type: ignore[arg-type]
    images = own.batch * own.accumulation * settings.devices
    sequential = images * frozen
    if settings.schedule == "sequential":
        return RecipeBudget(own.steps, sequential, images * encoder, images)
    words = backbone_flops(text, settings.prompt_tokens)
    words += 2 * settings.prompt_tokens * text["hidden_size"] * text["vocab_size"]
    talks = own.text_batch * own.accumulation * settings.devices * (1 + BACKWARD) * words
    joint = images * ((1 + BACKWARD) * whole + head) + talks
    steps = own.steps if settings.match == "samples" else max(round(own.steps * sequential / joint), 1)
    return RecipeBudget(steps, joint, images * encoder, images)


def _head_flops(settings: RecipeStudySettings, hidden: int) -> float:
    values = settings.dit_values
    heads = values["num_heads"]
    multiple = values.get("multiple_of", 256)
    shape = DiTShape(
        in_channels=values["in_channels"],
        num_tokens=(values["input_size"] // values["patch_size"]) ** 2,
        patch_size=values["patch_size"],
        dim=values["dim"],
        num_layers=values["num_layers"],
        kv_heads=values.get("num_kv_heads") or heads,
        head_dim=values["dim"] // heads,
        ffn_width=values.get("ffn_dim") or multiple * -(-int(8 / 3 * values["dim"]) // multiple),
        temb_width=values.get("temb_dim") or min(values["dim"], 1024),
        condition_dim=hidden,
    )
    if settings.head == "linear":
        return 2.0 * settings.num_queries * hidden * shape.patch_size**2 * shape.in_channels
    return float(dit_flops(shape, settings.num_queries))  # type: ignore[arg-type]


def plan_recipe_point(values: Mapping[str, Any], seed: int) -> list[PlannedStage]:
    """Settings of a point with ``model`` -> its stages."""
    settings: RecipeStudySettings = read_settings(values, RecipeStudySettings)
    if settings.schedule == "sequential" and "text_weight" in values:
        raise ImpossibleCombination("text_weight with schedule sequential changes nothing: it has no text loss")
    plan = recipe_budget(settings)
    last = round(settings.instruction_share * plan.steps)
    shares = [("generator", plan.steps - last), *([("instruction", last)] if last else [])]
    text = text_config(settings.model)
    size = 2 * backbone_flops(text, 1)  # float32 weights: two operations and four bytes each
    stages: list[PlannedStage] = []
    for name, steps in shares:
        own = {**asdict(settings), "steps_of_stage": steps}
        if settings.schedule == "sequential":
            del own["text_weight"], own["match"], own["text_data"]
        hours = replace(plan, steps=steps).hours(settings)
        parents = tuple(stage.name for stage in stages)
        stages.append(
            PlannedStage(
                name, own, seed, parents, steps, steps * plan.images_per_step, hours * 3600, 3 * size, size
            )
        )
    return stages
