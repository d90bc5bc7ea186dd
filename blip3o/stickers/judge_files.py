"""The judge's two weight files: names, checks, metadata. Needs no torch, so that a judge can be named cheaply."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip3o.errors import WeightsError
from blip3o.stickers.names import CLASSES, COLORS

FOLDER = Path(__file__).resolve().parents[1] / "weights" / "judge"
WEIGHTS, METADATA = "judge.safetensors", "judge.json"
VERSION = 1
REPAIR = (
    "reinstall blip3o-eval, or train the judge again with `python -m blip3o.stickers.judge_train`"
)


def read_metadata(folder: Path) -> dict[str, Any]:
    """The JSON file beside the weights. Raises WeightsError."""
    path = folder / METADATA
    try:
        metadata = json.loads(read_bytes(path))
        missing = [
            k
            for k in ("version", "sha256", "detector", "calibration", "classes", "colors")
            if k not in metadata
        ]
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); {REPAIR}") from error
    if missing:
        raise WeightsError(f"{path} lacks {', '.join(missing)}; {REPAIR}")
    if metadata["version"] != VERSION:
        raise WeightsError(
            f"{path} has version {metadata['version']}, this package reads {VERSION}; {REPAIR}"
        )
    if metadata["classes"] != list(CLASSES) or metadata["colors"] != list(COLORS):
        raise WeightsError(
            f"{path} was made for other classes or colours than this package's; {REPAIR}"
        )
    return metadata


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the JSON file by a rename."""
    partial = folder / (METADATA + ".partial")
    partial.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / METADATA)


def read_weights(folder: Path, metadata: Mapping[str, Any]) -> bytes:
    """The safetensors file's bytes, checked against the digest in `metadata`. Raises WeightsError."""
    path = folder / WEIGHTS
    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != metadata["sha256"]:
        raise WeightsError(
            f"{path} is damaged or incomplete: {len(data)} bytes with sha256 {digest[:12]}, "
            f"expected {metadata['sha256'][:12]}; {REPAIR}"
        )
    return data


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises WeightsError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); {REPAIR}") from error
