"""What one training point of the study is. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from blip3o.errors import ConfigError
from blip3o.heads.kinds import COMBINATIONS
from blip3o.train.kinds import Optimizer
from blip3o.train.nano_config import DIT_CONFIG, QUERIES

Target = Literal["clip", "vae"]
Objective = Literal["flow", "mse"]
Schedule = Literal["sequential", "joint"]
Head = Literal["dit", "linear"]
Match = Literal["flops", "samples"]
Backbone = Literal["pretrained", "fresh"]

SHARD = 4096  # scenes of a file of cached features


class ImpossibleCombination(ConfigError):
    """Allowed values that cannot go together; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class VisionSettings:
    """The start of the backbone's vision tower, taught by the CLIP target tower; the same for all cells."""

    steps: int = 400
    batch: int = 64
    lr: float = 2e-3


@dataclass(frozen=True, kw_only=True)
class UnderstandingSettings:
    """The understanding phase: packed conversations, rows a step by kind (see blip3o.train.packed_data)."""

    steps: int = 400
    scenes: int = 12
    edits: int = 4
    texts: int = 8
    imagined: int = 8
    lr: float = 1.2e-3

    @property
    def rows(self) -> dict[str, int]:
        return {kind: getattr(self, kind) for kind in ("scenes", "edits", "texts", "imagined")}


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Rows of text in each step of joint training on a pretrained backbone, by kind."""

    scenes: int = 1
    edits: int = 0
    texts: int = 1
    imagined: int = 1

    @property
    def rows(self) -> dict[str, int]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """The VAE of the VAE target, encoder and decoder in one."""

    steps: int = 6000
    batch: int = 16
    lr: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Target features on disk, with the token ids of every caption. ``ceiling_scenes``: held-out scenes that go through
    encoder and decoder to the judge; 0 leaves the measurement out."""

    scenes: int = 40_960
    ceiling_scenes: int = 192


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """The generator's phase. ``steps``: of sequential training; a joint point gets as many as its compute allows.
    ``draws``: noise levels drawn for every caption, which needs the flow objective. ``backbone_lr``: of the backbone in
    joint training, which knows something already; null takes ``lr``. ``optimizer``: see blip3o.train.optimizers."""

    steps: int = 2000
    batch: int = 48
    draws: int = 1
    optimizer: Optimizer = "muon"
    lr: float = 3e-3
    backbone_lr: float | None = 3e-4
    ema_decay: float = 0.998


@dataclass(frozen=True, kw_only=True)
class MixtureSettings:
    """Shares of the caption forms: GenEval-style prompt, paraphrase, dense caption."""

    prompt: float = 0.6
    short: float = 0.15
    long: float = 0.25

    @property
    def shares(self) -> tuple[float, float, float]:
        return self.prompt, self.short, self.long


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """One point at the size of ``nano``.

    ``backbone``: ``pretrained`` takes that of ``parts``, which knows pictures and texts and has seen no loss of a
    generator, as BLIP3-o takes Qwen2.5-VL: there is no understanding phase, and joint training sees ``texts`` in every
    step. ``fresh`` trains one: ``vision``, then ``understanding``, whose texts joint training sees instead.
    ``parts``: where tokenizer, CLIP target tower and its pixel decoder come from: ``nano`` (bundled) or a folder that
    ``blip3o train nano`` exported. ``instruction_share``: the last share of the generator's steps that sees
    GenEval-style prompts only. ``text_weight``: of the text loss beside the image loss in joint training.
    ``shared_seed``: seed of what comes before the generator; null takes the point's own, and nothing is shared between
    seeds then. ``match``: what a joint point gets: the arithmetic of its sequential twin (``flops``), or its pictures
    and texts (``samples``). ``compile``: compile transformer blocks where a C++ compiler is at hand.
    """

    target: Target = "clip"
    objective: Objective = "flow"
    schedule: Schedule = "sequential"
    head: Head = "dit"
    num_queries: int = QUERIES
    text_weight: float = 1.0
    instruction_share: float = 0.0
    match: Match = "flops"
    backbone: Backbone = "pretrained"
    parts: str = "nano"
    world: str = "easy"
    shared_seed: int | None = 0
    compile: bool = True
    vision: VisionSettings = field(default_factory=VisionSettings)
    understanding: UnderstandingSettings = field(default_factory=UnderstandingSettings)
    texts: TextSettings = field(default_factory=TextSettings)
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    mixture: MixtureSettings = field(default_factory=MixtureSettings)

    def __post_init__(self) -> None:
        wrong = list(self._out_of_range())
        if wrong:
            raise ConfigError("; ".join(wrong))
        reasons = list(self._impossible())
        if reasons:
            raise ImpossibleCombination("; ".join(reasons))

    def _out_of_range(self) -> Iterator[str]:
        for name, value, ok, allowed in (
            ("num_queries", self.num_queries, 1 <= self.num_queries <= 256, "1 to 256"),
            ("text_weight", self.text_weight, 0 <= self.text_weight <= 100, "0 to 100"),
            ("instruction_share", self.instruction_share, 0 <= self.instruction_share <= 1, "0 to 1"),
            ("world", self.world, self.world in ("easy", "full"), "easy or full"),
        ):
            if not ok:
                yield f"{name} {value!r} is out of range: {allowed}"
        for group in ("vision", "understanding", "texts", "autoencoder", "features", "generator"):
            for name, value in dataclasses.asdict(getattr(self, group)).items():
                least = 0 if group == "texts" or name in ("edits", "imagined", "ceiling_scenes") else 1
                if name in ("lr", "backbone_lr"):
                    if value is not None and not 0 < value < 1:
                        yield f"{group}.{name} {value} is out of range: greater than 0, less than 1"
                elif name == "ema_decay":
                    if not 0 <= value < 1:
                        yield f"{group}.ema_decay {value} is out of range: 0 or more, less than 1"
                elif not isinstance(value, str) and value < least:
                    yield f"{group}.{name} {value} is out of range: at least {least}"
        shares = self.mixture.shares
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            yield f"mixture: shares must be 0 or more and add up to 1, got {', '.join(map(str, shares))}"
        scenes = self.features.scenes
        if scenes % (SHARD if scenes > SHARD else 128):
            yield f"features.scenes {scenes} must be a multiple of 128, above {SHARD} one of {SHARD}"

    def _impossible(self) -> Iterator[str]:
        if (self.target, self.objective) not in COMBINATIONS:
            allowed = ", ".join(f"{t} + {o}" for t, o in COMBINATIONS)
            yield (
                f"target {self.target} with objective {self.objective}: the mean of all latents that fit a prompt "
                f"decodes to a blur, and the paper does not study it (studied: {allowed})"
            )
        if self.head == "linear" and self.objective != "mse":
            yield "head linear learns by mse only; flow matching needs a network that sees noise (head dit)"
        tokens = (DIT_CONFIG["input_size"] // DIT_CONFIG["patch_size"]) ** 2
        if self.head == "linear" and self.num_queries != tokens:
            yield f"head linear maps each query to one of {tokens} patches; num_queries is {self.num_queries}"
        if self.objective == "mse" and self.generator.draws > 1:
            yield f"generator.draws {self.generator.draws} with objective mse: nothing is drawn, so all would be equal"
        if self.features.scenes < self.generator.batch:
            yield f"features.scenes {self.features.scenes} is less than one batch of {self.generator.batch}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_settings(values: Mapping[str, Any], kind: type[Any] = StudySettings, name: str = "train") -> Any:
    """Settings from nested values. Raises: ConfigError for unknown keys and values, with a suggestion."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} must hold settings by name, got {values!r}")
    hints = get_type_hints(kind)
    typed = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"unknown key {name}.{key}.{_suggestion(str(key), list(hints))}")
        typed[key] = _typed(value, hints[key], f"{name}.{key}")
    lacking = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in typed
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if lacking:
        raise ConfigError(f"{name} lacks {', '.join(lacking)}")
    return kind(**typed)


def _suggestion(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" Did you mean: {close[0]}?" if close else f" Known: {', '.join(known)}."


def _typed(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return read_settings(value, hint, name)  # type: ignore[arg-type]
    options = get_args(hint)
    if type(None) in options:
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
    if get_origin(hint) is Literal:
        known = [str(option) for option in get_args(hint)]
        if value not in get_args(hint):
            raise ConfigError(f"{name} {value!r} is unknown.{_suggestion(str(value), known)}")
        return value
    if get_origin(hint) in (dict, tuple):
        wanted, shape = (Mapping, "a map") if get_origin(hint) is dict else (list | tuple, "a list")
        if not isinstance(value, wanted):
            raise ConfigError(f"{name} must be {shape}, got {value!r}")
        return dict(value) if get_origin(hint) is dict else tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise ConfigError(f"{name} must be {kinds[hint]}, got {value!r}")
    return value
