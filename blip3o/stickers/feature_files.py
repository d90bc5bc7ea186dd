"""The sticker features' two files: names, checks, metadata. Needs no torch, so that they can be named cheaply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blip3o.errors import WeightsError

FOLDER = Path(__file__).resolve().parents[1] / "weights" / "sticker_features"
WEIGHTS, METADATA = "features.safetensors", "features.json"
SIZE_PX = 64
N_FEATURES = 96
VERSION = 1
REPAIR = "reinstall blip3o-eval, or train it again with `python -m blip3o.stickers.feature_train`"


def read_metadata(folder: Path = FOLDER) -> dict[str, Any]:
    """The JSON file beside the weights: digest, accuracy, how they were trained. Raises WeightsError."""
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); {REPAIR}") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); {REPAIR}") from error
    if not isinstance(metadata, dict) or metadata.get("version") != VERSION:
        raise WeightsError(f"{path} is not version {VERSION} of the sticker features; {REPAIR}")
    if not isinstance(metadata.get("sha256"), str):
        raise WeightsError(f"{path} lacks sha256; {REPAIR}")
    return metadata
