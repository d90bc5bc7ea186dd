"""Features of a set of pictures: how they were taken, where they are kept, and when two sets compare.

A figure of the FID family means something only beside its recipe: which network, which resize, which crop, which
weights. `Recipe.digest` names it; statistics of another recipe are refused. Features stay on disk (`FeatureFile`),
moments are summed as they arrive, so memory does not grow with the number of pictures.

`clean` resize is Pillow's bicubic with antialiasing on each channel in float, clipped to 0..255 and not rounded
(clean-fid, Parmar et al., arXiv:2104.11222); `legacy` is the bilinear resize of TensorFlow 1 without antialiasing, as
torch-fidelity does it. On pictures of 1024 pixels the two are different metrics.

N pictures, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evals.errors import InputError, UsageError
from evals.metrics import manifold
from evals.metrics.frechet import Gaussian, Moments

Resize = Literal["clean", "legacy"]
RESIZES = ("clean", "legacy")
SCHEMA = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the features of a picture.

    ``features``: the short name of the network, part of metric names. ``input_px``: what it sees. ``crop_px``: pictures
    are first resized to this short side and cropped at the centre; None: seen whole.
    """

    features: str
    dimensions: int
    resize: str
    input_px: int
    weights_sha256: str
    crop_px: int | None = None

    @property
    def digest(self) -> str:
        """First 16 hex digits of the sha256 of all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def refuse_other(self, other: Recipe, what: str) -> None:
        """Raises UsageError that names every field in which ``what`` was made differently."""
        mine, theirs = asdict(self), asdict(other)
        differing = [f"{k} {theirs[k]!r}, not {mine[k]!r}" for k in mine if mine[k] != theirs[k]]
        if differing:
            raise UsageError(
                f"{what} was made by another recipe ({'; '.join(differing)}): such sets have no distance; take the "
                "same features of both"
            )


def center_crop(image: Any, size_px: int) -> Any:
    """Short side to ``size_px`` (bicubic, antialiased), then the middle square: the convention of COCO-30K."""
    from PIL import Image

    width, height = image.size
    scale = size_px / min(width, height)
    new = (max(size_px, round(width * scale)), max(size_px, round(height * scale)))
    if new != image.size:
        image = image.resize(new, Image.Resampling.BICUBIC)
    left, top = (new[0] - size_px) // 2, (new[1] - size_px) // 2
    return image.crop((left, top, left + size_px, top + size_px))


def clean_resize(image: Any, size_px: int) -> np.ndarray:
    """RGB picture -> float32 (size, size, 3) in 0..255, antialiased, not rounded."""
    from PIL import Image

    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, c])).resize(
            (size_px, size_px), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2).clip(0, 255)


class FeatureFile:
    """Features of a set on disk, appended in batches and read as an array that is mapped, not loaded."""

    def __init__(self, dimensions: int, with_moments: bool = True) -> None:
        self._file = tempfile.TemporaryFile(prefix="blip3o-eval-features-")
        self.dimensions, self.n = dimensions, 0
        self.moments = Moments(dimensions if with_moments else 0)
        self._with_moments = with_moments

    def append(self, features: np.ndarray) -> None:
        """Add features (B, D). Raises ValueError as `Moments.update`."""
        if self._with_moments:
            self.moments.update(features)
        self._file.write(np.ascontiguousarray(features, dtype="<f4").tobytes())
        self.n += len(features)

    def array(self) -> np.ndarray:
        """All rows, float32 (N, D)."""
        self._file.flush()
        if not self.n:
            return np.empty((0, self.dimensions), dtype="<f4")
        return np.memmap(self._file, dtype="<f4", mode="r", shape=(self.n, self.dimensions))


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of pictures as features, with all that distances to it need.

    ``features`` (N, D) float32, mapped from the file. ``radii`` (N,): see `manifold`. ``group_of`` (N,): index into
    ``groups``. ``source``: what the pictures were, and ``source_sha256`` which ones.
    """

    recipe: Recipe
    gaussian: Gaussian
    features: np.ndarray
    radii: np.ndarray
    groups: tuple[str, ...] = ()
    group_of: np.ndarray | None = None
    source: str = ""
    source_sha256: str = ""

    @property
    def n(self) -> int:
        return len(self.features)

    @property
    def digest(self) -> str:
        """First 16 hex digits over the recipe, the number of pictures and which they were."""
        text = f"{self.recipe.digest} {self.n} {self.source_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def of_group(self, group: str) -> np.ndarray:
        """The features of one group; empty for a group that the set does not have."""
        if self.group_of is None or group not in self.groups:
            return self.features[:0]
        return self.features[self.group_of == self.groups.index(group)]


def collect(
    batches: Iterable[tuple[np.ndarray, Sequence[str]]],
    recipe: Recipe,
    source: str,
    source_sha256: str,
) -> Statistics:
    """Statistics of features that arrive as (features (B, D), group of each).

    Raises: UsageError for fewer than four pictures: neither a covariance nor a manifold exists.
    """
    file, groups, group_of = FeatureFile(recipe.dimensions), {}, []  # type: ignore[var-annotated]
    for features, names in batches:
        file.append(features)
        group_of += [groups.setdefault(name, len(groups)) for name in names]
    if file.n <= manifold.NEIGHBOURS:
        raise UsageError(
            f"{source}: holds {file.n} pictures, statistics need {manifold.NEIGHBOURS + 1} or more"
        )
    features = file.array()
    return Statistics(
        recipe,
        file.moments.compute(),
        features,
        manifold.radii(features),
        tuple(groups),
        np.asarray(group_of, dtype="<i4"),
        source,
        source_sha256,
    )


_ARRAYS = {"mean": "<f8", "covariance": "<f8", "features": "<f4", "radii": "<f8", "group_of": "<i4"}
_TYPES = {"<f8": "F64", "<f4": "F32", "<i4": "I32"}


def save(statistics: Statistics, path: Path) -> None:
    """Write a statistics file (safetensors, the recipe among its metadata) by a rename."""
    group_of = statistics.group_of
    arrays: dict[str, np.ndarray] = {
        "mean": statistics.gaussian.mean,
        "covariance": statistics.gaussian.covariance,
        "features": statistics.features,
        "radii": statistics.radii,
        "group_of": np.zeros(statistics.n) if group_of is None else group_of,
    }
    record = {
        "schema": SCHEMA,
        "recipe": asdict(statistics.recipe),
        "recipe_digest": statistics.recipe.digest,
        "n": statistics.n,
        "groups": list(statistics.groups),
        "source": statistics.source,
        "source_sha256": statistics.source_sha256,
    }
    header: dict[str, Any] = {"__metadata__": {"blip3o_eval": json.dumps(record, sort_keys=True)}}
    end = 0
    for name, kind in _ARRAYS.items():
        size = int(np.dtype(kind).itemsize * arrays[name].size)
        header[name] = {
            "dtype": _TYPES[kind],
            "shape": list(arrays[name].shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, kind in _ARRAYS.items():
                for start in range(0, len(arrays[name]), 4096):
                    file.write(np.ascontiguousarray(arrays[name][start : start + 4096], kind).tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Statistics:
    """Read a statistics file; the features stay on disk. Raises InputError for anything else."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            total = os.fstat(file.fileno()).st_size
            if not 0 < length <= min(total - 8, 2**20):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        record = json.loads(header["__metadata__"]["blip3o_eval"])
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, read is {SCHEMA}")
        recipe = Recipe(**record["recipe"])
        arrays = {k: _map(path, header[k], kind, 8 + length, total) for k, kind in _ARRAYS.items()}
        n, d = arrays["features"].shape
        shapes = [arrays[k].shape for k in ("mean", "covariance", "radii", "group_of")]
        if n != record["n"] or d != recipe.dimensions or shapes != [(d,), (d, d), (n,), (n,)]:
            raise ValueError("the arrays do not fit each other")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no statistics file of this package ({' '.join(str(error).split())[:80]}); files of other "
            "tools do not say how they were made: make it anew with `blip3o-eval fid statistics DIR --output FILE`"
        ) from None
    gaussian = Gaussian(n, np.array(arrays["mean"]), np.array(arrays["covariance"]))
    return Statistics(
        recipe,
        gaussian,
        arrays["features"],
        np.array(arrays["radii"]),
        tuple(record["groups"]),
        np.array(arrays["group_of"]),
        str(record["source"]),
        str(record["source_sha256"]),
    )


def _map(path: Path, entry: Mapping[str, Any], kind: str, start: int, total: int) -> np.ndarray:
    first, last = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    if last - first != np.dtype(kind).itemsize * count or start + last > total or not count:
        raise ValueError("cut short")
    return np.memmap(path, dtype=kind, mode="r", offset=start + first, shape=shape)
