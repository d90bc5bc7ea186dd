"""Configuration of the unified model.

``Blip3oConfig`` is a transformers configuration; its parts are frozen dataclasses, and a key that no
part knows is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from transformers import PretrainedConfig

from blip3o.dit import DiTConfig
from blip3o.errors import ConfigError
from blip3o.flow.timesteps import SigmaDistribution, SigmaRule
from blip3o.heads.kinds import USE_DIT_CONFIG, check_combination

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Compat = Literal["default", "released"]
Target = Literal["clip", "vae"]
Objective = Literal["flow", "mse"]
Part = TypeVar("Part", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Flow matching in training and the sampler's defaults.

    ``sigma_*`` and ``logit_*`` describe the noise levels drawn in training, ``sampling_shift`` those of
    the sampler; ``condition_dropout`` is the chance that a sample is trained without condition, which
    guidance needs.
    """

    sigma_rule: SigmaRule = "discrete"
    sigma_shift: float = 1.0
    logit_mean: float = 0.0
    logit_std: float = 1.0
    condition_dropout: float = 0.1
    sampling_shift: float = 1.0
    num_inference_steps: int = 30
    guidance_scale: float = 3.0

    def __post_init__(self) -> None:
        _ = self.distribution  # refuses unknown rules
        if not 0 <= self.condition_dropout < 1:
            raise ConfigError(
                f"flow.condition_dropout must be at least 0 and below 1, got {self.condition_dropout}"
            )
        if self.num_inference_steps < 1 or not self.sampling_shift > 0 or self.guidance_scale < 0:
            raise ConfigError(
                "flow.num_inference_steps must be at least 1, sampling_shift above 0 and guidance_scale "
                f"at least 0, got {self.num_inference_steps}, {self.sampling_shift}, {self.guidance_scale}"
            )

    @property
    def distribution(self) -> SigmaDistribution:
        return SigmaDistribution(
            rule=self.sigma_rule,
            shift=self.sigma_shift,
            logit_mean=self.logit_mean,
            logit_std=self.logit_std,
        )


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """Ids of the tokens that image generation uses; the defaults are those of the released tokenizer.

    ``image_start`` opens a picture, ``query`` holds the place of a query in training sequences.
    The placeholder of understanding pictures belongs to the backbone (``image_token_id``).
    """

    image_start: int = 151665
    image_end: int = 151666
    query: int = 151667


def build_part(kind: type[Part], values: Part | dict[str, Any] | None, name: str) -> Part:
    """A frozen dataclass from a dict, refusing keys it does not know. Raises: ConfigError."""
    if isinstance(values, kind):
        return values
    given: dict[str, Any] = dict(values or {})  # type: ignore[arg-type]  # no Part: that was returned
    known = [field.name for field in dataclasses.fields(kind)]
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown key {name}.{key}{suggestion(key, known)}")
    return kind(**given)


def suggestion(key: str, known: list[str]) -> str:
    """What may have been meant by an unknown key, as the end of a message."""
    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"


def check_compat(compat: str) -> None:
    """Raises: ConfigError."""
    if compat not in get_args(Compat):
        raise ConfigError(f"compat {compat!r} is unknown; choose default or released")


class Blip3oConfig(PretrainedConfig):
    """Backbone, queries, generation head and flow of one model.

    Args:
        backbone_config: a transformers configuration as a dict, with its ``model_type`` (see blip3o.backbones).
        num_queries: query tokens that follow the prompt.
        dit_config, flow_config, token_config: dicts or instances of DiTConfig, FlowConfig, TokenConfig.
        target, objective: what is generated and how it is learned: ``clip`` + ``flow`` (the released models),
            ``clip`` + ``mse``, ``vae`` + ``flow``.
        head: network of the generation side: ``dit``; ``linear`` for ``mse``; or another of blip3o.heads.kinds, whose
            sizes are in head_config.
        compat: ``default``, or ``released`` to repeat what the released inference code does
            (whole-number timesteps).

    Raises: ConfigError for unknown keys, contradictory sizes or an unknown ``compat``.
    """

    model_type = "blip3o"

    def __init__(
        self,
        backbone_config: dict[str, Any] | None = None,
        num_queries: int = 64,
        dit_config: DiTConfig | dict[str, Any] | None = None,
        flow_config: FlowConfig | dict[str, Any] | None = None,
        token_config: TokenConfig | dict[str, Any] | None = None,
        compat: Compat = "default",
        target: Target = "clip",
        objective: Objective = "flow",
        head: str = "dit",
        head_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_combination(target, objective, head)
        check_compat(compat)
        if num_queries < 1:
            raise ConfigError(f"num_queries must be at least 1, got {num_queries}")
        backbone = dict(backbone_config or {"model_type": "qwen2_5_vl"})
        if "model_type" not in backbone:
            raise ConfigError("backbone_config needs a model_type, for instance qwen2_5_vl")
        # Kept as plain dicts, which transformers can write to JSON; the properties give them types.
        self.backbone_config = backbone
        self.num_queries = num_queries
        self.dit_config = asdict(build_part(DiTConfig, dit_config, "dit_config"))
        self.flow_config = asdict(build_part(FlowConfig, flow_config, "flow_config"))
        self.token_config = asdict(build_part(TokenConfig, token_config, "token_config"))
        self.compat = compat
        self.target, self.objective, self.head = target, objective, head
        self.head_config = dict(head_config or {})
        hidden = backbone_hidden_size(backbone)
        if head not in USE_DIT_CONFIG:
            if hidden is None:
                raise ConfigError(f"head {head!r} needs the hidden_size in backbone_config")
        elif hidden is not None and hidden != self.dit.condition_dim:
            raise ConfigError(
                f"dit_config.condition_dim {self.dit.condition_dim} must equal the hidden size {hidden} of the backbone"
            )
        base = set(PretrainedConfig().to_dict()) | _TRANSFORMERS_KEYS
        known = [
            "backbone_config",
            "num_queries",
            "dit_config",
            "flow_config",
            "token_config",
            "compat",
            "target",
            "objective",
            "head",
            "head_config",
        ]
        for key in kwargs:
            if key not in base and not key.startswith("_"):
                raise ConfigError(
                    f"unknown key {key} in the model configuration{suggestion(key, known)}"
                )
        super().__init__(**kwargs)

    @property
    def dit(self) -> DiTConfig:
        return DiTConfig(**self.dit_config)

    @property
    def condition_dim(self) -> int:
        """Width of the condition that the backbone gives to the head."""
        hidden = backbone_hidden_size(self.backbone_config)
        return self.dit.condition_dim if self.head in USE_DIT_CONFIG or hidden is None else hidden

    @property
    def flow(self) -> FlowConfig:
        return FlowConfig(**self.flow_config)

    @property
    def tokens(self) -> TokenConfig:
        return TokenConfig(**self.token_config)


# What transformers itself passes to configurations beside the fields of the base class.
_TRANSFORMERS_KEYS = {
    "attn_implementation", "dtype", "torch_dtype", "name_or_path", "output_attentions",
    "output_hidden_states", "return_dict", "tie_word_embeddings", "use_cache", "model_type",
}  # fmt: skip


def backbone_hidden_size(backbone: dict[str, Any]) -> int | None:
    """Hidden size named in a backbone's configuration, or None where it is left to the default."""
    text = backbone.get("text_config")
    return (text if isinstance(text, dict) else backbone).get("hidden_size")
