"""How much a point computes, and how a joint point gets the budget of its sequential twin. Imports no torch.

Arithmetic is counted by formulas (``blip3o.flops``, multiply-adds as two operations; a backward costs two forwards,
through frozen weights one, since only activations need gradients) over real tokens, padding left out:

    sequential   U steps of understanding, then G steps of queries and generator on frozen states
    joint        the same U * rows texts and J * batch pictures, in J steps that hold both

``match: flops`` chooses J so that J * (pictures of a joint step) = G * (pictures of a sequential step): each of the two
tasks gets the arithmetic it has in the sequential twin, and the pictures of joint training, which cost more, are fewer.
``match: samples`` takes J = G: the same pictures and texts, at more arithmetic. On a pretrained backbone there are no U
steps: each joint step holds ``texts`` rows beside its captions, and ``flops`` counts both against the captions of the
twin. The start (vision tower), target
features and decoders are the same work for both and stand outside the match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blip3o.flops import backbone_flops, dit_flops
from blip3o.train.nano_config import (
    BACKBONE_TEXT,
    BACKBONE_VISION,
    DIT_CONFIG,
    IMAGE_TOKENS,
    VOCAB_SIZE,
)
from blip3o.train.study.settings import StudySettings

# Mean tokens, by nano's tokenizer over training scenes of level easy (a test measures them again): captions with the
# chat template, packed rows, and the learned tokens of a row.
CAPTION_TOKENS = {"prompt": 35.8, "short": 37.1, "long": 68.9}
ROW_TOKENS = {"scenes": 292, "edits": 226, "texts": 288, "imagined": 96}
LEARNED_TOKENS = {"scenes": 43, "edits": 70, "texts": 23, "imagined": 54}
PICTURE_ROWS = ("scenes", "edits")
VAE_CHANNELS = 16
BACKWARD, FROZEN_BACKWARD = 2, 1  # forwards that a backward costs


@dataclass(frozen=True)
class DiTShape:
    """Sizes of a generator's transformer, as ``DiTConfig`` has them, without importing it."""

    in_channels: int
    num_tokens: int
    patch_size: int
    dim: int
    num_layers: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    temb_width: int
    condition_dim: int


@dataclass(frozen=True)
class Budget:
    """What a point's generator phase does. ``steps`` of ``batch`` captions; ``text_rows``: rows of text in all of its
    steps together, by kind (joint only); ``flops``: of this phase; ``flops_before``: of the understanding phase that
    the point builds on (sequential only)."""

    steps: int
    batch: int
    text_rows: dict[str, int]
    flops: float
    flops_before: float

    @property
    def images(self) -> int:
        return self.steps * self.batch

    @property
    def flops_total(self) -> float:
        return self.flops + self.flops_before

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "images": self.images, "flops_total": self.flops_total}


def dit_values(target: str) -> dict[str, Any]:
    """``dit_config`` of a target: only the channels of a patch differ."""
    return {**DIT_CONFIG, **({"in_channels": VAE_CHANNELS} if target == "vae" else {})}


def dit_shape(target: str) -> DiTShape:
    """The sizes behind ``dit_values``."""
    values = dit_values(target)
    heads = values["num_heads"]
    return DiTShape(
        in_channels=values["in_channels"],
        num_tokens=(values["input_size"] // values["patch_size"]) ** 2,
        patch_size=values["patch_size"],
        dim=values["dim"],
        num_layers=values["num_layers"],
        kv_heads=heads,
        head_dim=values["dim"] // heads,
        ffn_width=values["ffn_dim"],
        temb_width=min(values["dim"], 1024),
        condition_dim=values["condition_dim"],
    )


def vision_flops() -> float:
    """One picture through the backbone's vision tower, forward."""
    vision = BACKBONE_VISION
    width, merge = vision["hidden_size"], vision["spatial_merge_size"] ** 2
    patches = IMAGE_TOKENS * merge
    layer = 2 * patches * (4 * width**2 + 3 * width * vision["intermediate_size"])
    layer += 4 * width * patches**2
    embed = 2 * patches * width * 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    merged = width * merge
    merger = 2 * IMAGE_TOKENS * (merged**2 + merged * vision["out_hidden_size"])
    return float(vision["depth"] * layer + embed + merger)


def row_flops(kind: str) -> float:
    """One packed row of text, forward and backward, with its picture."""
    head = 2 * BACKBONE_TEXT["hidden_size"] * VOCAB_SIZE * LEARNED_TOKENS[kind]
    forward = backbone_flops(BACKBONE_TEXT, ROW_TOKENS[kind]) + head
    if kind in PICTURE_ROWS:
        forward += vision_flops()
    return (1 + BACKWARD) * forward


def prompt_tokens(settings: StudySettings) -> float:
    """Mean tokens of a caption with its template and the image start token."""
    shares = zip(CAPTION_TOKENS.values(), settings.mixture.shares, strict=True)
    return 1 + sum(tokens * share for tokens, share in shares)


def caption_flops(settings: StudySettings, *, is_frozen: bool) -> float:
    """One caption through backbone and generator, forward and backward; ``is_frozen``: nothing of the backbone learns,
    and its backward runs for the queries alone."""
    prompt, queries = round(prompt_tokens(settings)), settings.num_queries
    whole = backbone_flops(BACKBONE_TEXT, prompt + queries)
    if is_frozen:
        backbone = whole + FROZEN_BACKWARD * (whole - backbone_flops(BACKBONE_TEXT, prompt))
    else:
        backbone = (1 + BACKWARD) * whole
    return backbone + settings.generator.draws * (1 + BACKWARD) * head_flops(settings)


def head_flops(settings: StudySettings) -> float:
    """The generation head's network on one sample, forward."""
    shape = dit_shape(settings.target)
    if settings.head == "linear":
        patch = shape.patch_size**2 * shape.in_channels
        return 2.0 * settings.num_queries * shape.condition_dim * patch
    return float(dit_flops(shape, settings.num_queries))  # type: ignore[arg-type]


def understanding_flops(settings: StudySettings) -> float:
    """The whole understanding phase, which a pretrained backbone has behind it."""
    own = settings.understanding
    return 0.0 if settings.backbone == "pretrained" else own.steps * rows_flops(own.rows)


def rows_flops(rows: Mapping[str, int]) -> float:
    """Packed rows, numbers by kind, forward and backward."""
    return sum(count * row_flops(kind) for kind, count in rows.items())


def budget(settings: StudySettings) -> Budget:
    """What the generator phase of a point does, matched as ``settings.match`` says."""
    own, before = settings.generator, understanding_flops(settings)
    frozen = own.batch * caption_flops(settings, is_frozen=True)
    if settings.schedule == "sequential":
        return Budget(own.steps, own.batch, {}, own.steps * frozen, before)
    learning = own.batch * caption_flops(settings, is_frozen=False)
    if settings.backbone == "pretrained":
        learning += rows_flops(settings.texts.rows)
    steps = own.steps if settings.match == "samples" else max(round(own.steps * frozen / learning), 1)
    per_step, times = settings.understanding.rows, settings.understanding.steps
    if settings.backbone == "pretrained":
        per_step, times = settings.texts.rows, steps
    rows = {kind: times * count for kind, count in per_step.items()}
    return Budget(steps, own.batch, rows, steps * learning + before, flops_before=0.0)
