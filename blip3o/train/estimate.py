"""What a recipe will take, without its weights: parameters, memory and arithmetic, counted on the meta device.

Arithmetic is counted by torch over one real training step of the model (multiply-adds as two operations); time is
arithmetic over ``peak`` times ``share``, the part of the hardware's peak that a run reaches. Memory counts what is
certain (weights, gradients, the optimizers' moments, averages); activations come on top.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from blip3o.config import Blip3oConfig
from blip3o.presets import PRESETS, released_config_values
from blip3o.train.optimizers import linear_weights
from blip3o.train.recipe import TrainRecipe
from blip3o.train.records_stage import learn_only
from blip3o.unified import Blip3oModel

if TYPE_CHECKING:
    from blip3o.vision.targets import Target


@dataclass(frozen=True)
class Estimate:
    """``flops_per_sample``: one picture (or conversation) forward and backward, target encoder included.
    ``memory_gb_per_process``: without activations. ``hours``: of the whole run at ``peak_tflops * share`` a process."""

    parameters: int
    learned: int
    prompt_tokens: int
    flops_per_sample: int
    samples: int
    processes: int
    memory_gb_per_process: float
    peak_tflops: float
    share: float
    hours: float

    @property
    def process_hours(self) -> float:
        return self.hours * self.processes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "process_hours": self.process_hours}


def estimate(
    recipe: TrainRecipe,
    *,
    processes: int = 1,
    peak_tflops: float = 989.0,
    share: float = 0.4,
    prompt_tokens: int = 150,
) -> Estimate:
    """Counted on the meta device: no weight is loaded and nothing is downloaded for the released models.

    ``peak_tflops``: of one process's device in the precision of the run; the default is an H100's or H200's in
    bf16. Raises: ConfigError, WeightsError.
    """
    config = _config(recipe.model)
    with torch.device("meta"):
        model = Blip3oModel(config)
    learned_names = set(learn_only(model, recipe.spec.learns))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    learned = sum(size for name, size in sizes.items() if name in learned_names)
    frozen = sum(sizes.values()) - learned
    target = _target_encoder(recipe)
    frozen_bytes = 2 if recipe.frozen_dtype == "bfloat16" else 4
    # Muon keeps one moment, AdamW two
    turned = linear_weights(model) if recipe.loop.optimizer == "muon" else set()
    moments = 2 * learned - sum(p.numel() for p in turned if p.requires_grad)
    # master weights, gradients, averages and moments, each in float32
    state: float = (3 * learned + moments) * 4 + frozen * frozen_bytes
    encoder = sum(p.numel() for p in target.parameters()) * frozen_bytes if target else 0
    if recipe.loop.sharding == "fsdp2":
        state /= processes
    flops = count_flops(model, recipe, prompt_tokens)
    if target is not None:
        flops += count_encoder_flops(target)
    loop = recipe.loop
    batch = recipe.batch_size if recipe.spec.image_weight else recipe.text_batch_size
    samples = loop.steps * loop.accumulation * processes * batch
    hours = samples * flops / (peak_tflops * 1e12 * share * processes) / 3600
    return Estimate(
        sum(sizes.values()),
        learned,
        prompt_tokens,
        flops,
        samples,
        processes,
        (state + encoder) / 1e9,
        peak_tflops,
        share,
        hours,
    )


def count_flops(model: Blip3oModel, recipe: TrainRecipe, prompt_tokens: int) -> int:
    """Operations of one sample's forward and backward on the meta device."""
    total = 0
    spec = recipe.spec
    if spec.image_weight:
        # lengths are known here, so that no value on the meta device is asked for
        prefix = torch.zeros(1, prompt_tokens + 1, model.backbone.hidden_size, device="meta")
        queries = model.queries(1)
        frozen = not any(p.requires_grad for p in model.backbone.parameters())
        with FlopCounterMode(display=False) as counter:
            condition = _condition(model, prefix, queries, frozen)
            features = torch.zeros(1, *model.feature_shape, device="meta")
            noise = torch.zeros_like(features)
            u = torch.full((1,), 0.5, device="meta")
            drop = torch.zeros(1, dtype=torch.bool, device="meta")
            loss = model(target=features, condition=condition, u=u, noise=noise, drop=drop).loss
            loss.backward()
        total += counter.get_total_flops()
    if spec.text_weight:
        embeddings = torch.zeros(1, prompt_tokens, model.backbone.hidden_size, device="meta")
        positions = torch.zeros(1, prompt_tokens, dtype=torch.long, device="meta")
        embeddings.requires_grad_(True)
        with FlopCounterMode(display=False) as counter:
            hidden = model.backbone(embeddings, None, positions).hidden_states
            model.backbone.logits(hidden).sum().backward()
        total += counter.get_total_flops()
    return total


def _condition(
    model: Blip3oModel, prefix: torch.Tensor, queries: torch.Tensor, frozen: bool
) -> torch.Tensor:
    """Query states as training makes them; without padding masks, whose values the meta device does not have."""
    length, count = prefix.shape[1], queries.shape[1]
    positions = torch.zeros(1, length + count, dtype=torch.long, device="meta")
    backbone: Any = model.backbone
    if frozen:
        with torch.no_grad():
            cache = backbone(prefix, None, positions[:, :length], use_cache=True).cache
        states: torch.Tensor = backbone(queries, None, positions[:, length:], cache=cache).hidden_states
        return states
    states = backbone(torch.cat([prefix, queries], dim=1), None, positions).hidden_states
    return states[:, -count:]


def count_encoder_flops(target: Target) -> int:
    """Operations of one picture through the target encoder, forward only."""
    side = target.preprocess.size_px
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        target(torch.zeros(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops())


def _config(source: str) -> Blip3oConfig:
    from blip3o.locate import find_folder
    from blip3o.released import config_from_released
    from blip3o.strict_loading import read_config

    for name, preset in PRESETS.items():
        if preset.hub_id and source in (name, preset.hub_id):
            return config_from_released(released_config_values(name))
    return read_config(find_folder(source))


def _target_encoder(recipe: TrainRecipe) -> Target | None:
    """The target encoder on the meta device: the released tower, or the one in the named folder."""
    if not recipe.spec.image_weight:
        return None
    from blip3o.locate import find_folder
    from blip3o.vision.encoders import EvaConfig, EvaEncoder
    from blip3o.vision.preprocess import Preprocess
    from blip3o.vision.targets import Target, load_target

    hub_ids = {name for p in PRESETS.values() if p.hub_id for name in (p.name, p.hub_id)}
    if recipe.target_encoder is None and recipe.model in hub_ids:
        with torch.device("meta"):
            encoder = EvaEncoder(EvaConfig())
        size = Preprocess(size_px=encoder.config.image_size)
        return Target(encoder, size, {"kind": "eva_clip"}, None, "early_pool2d_4")
    folder = recipe.target_encoder or find_folder(recipe.model) / "target_encoder"
    return load_target(folder).to("meta")  # type: ignore[arg-type]


def describe(found: Estimate) -> str:
    """The estimate in a few lines."""
    return "\n".join(
        (
            f"parameters            {found.parameters / 1e9:.3f} billion, {found.learned / 1e9:.3f} billion learn",
            f"samples               {found.samples:,} of {found.prompt_tokens} prompt tokens",
            f"arithmetic            {found.flops_per_sample / 1e12:.3f} TFLOP a sample, forward and backward",
            f"memory a process      {found.memory_gb_per_process:.1f} GB and activations",
            f"time                  {found.hours:.1f} h on {found.processes} devices of {found.peak_tflops:g} TFLOP/s "
            f"at {found.share:.0%} of peak: {found.process_hours:.0f} device hours",
        )
    )
