"""The fingerprint of a run: everything that changes outputs or scores, and nothing that does not.

Device, shards, tracking and paths stay out, so a run may be resumed elsewhere. Its sha256 names the
run folder, and resume is refused, key by key, where two fingerprints differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from evals.api import Identity
from evals.config import RunConfig

FINGERPRINT_VERSION = 1
GENERATION_NAMES = {
    "guidance_scale": ("guidance_scale",),
    "steps": ("num_inference_steps", "steps"),
    "height": ("height",),
    "width": ("width",),
}
"""Setting of a run -> the names under which models tell what became of it in ``Identity.settings``."""


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
    for key, names in GENERATION_NAMES.items():
        # It reaches the model with every request, also one that keeps quiet about it.
        value = getattr(config.generation, key)
        if value is not None and not any(name in model.settings for name in names):
            flat[f"generation.{key}"] = value
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
