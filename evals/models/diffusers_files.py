"""A diffusers pipeline on disk: what it is made of, which of its files are read, in which precision they are.

Reads JSON and the heads of safetensors files only, so that what is wrong or missing is said before
anything heavy is imported. Weights in pickles and pipelines with code of their own are refused.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.errors import MissingRequirementError, ModelError, UsageError, shown
from evals.io.digests import files_digest

INDEX = "model_index.json"
HUB_FILES = (INDEX, "*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja")
"""What is fetched of a hub id: single-file checkpoints beside the folders are not."""

_WITHOUT_WEIGHTS = re.compile(r"(tokenizer|scheduler|feature_extractor|.*processor)(_\d+)?")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[\w-]+?))?"
    r"(?:-\d{5}-of-\d{5})?\.safetensors"
)
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack")
_TEXTS = (".json", ".txt", ".model", ".jinja")
_DENOISERS = ("transformer", "unet", "decoder")
_PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MAX_HEAD_BYTES = 100 * 2**20


@dataclass(frozen=True)
class PipelineFiles:
    """``components``: name -> (library, class), without those left empty. ``variant``: such as "fp16"."""

    folder: Path
    class_name: str
    written_by: str
    components: Mapping[str, tuple[str, str]]
    variant: str | None = None

    @cached_property
    def weights(self) -> dict[str, list[Path]]:
        """Component -> its weights files: those of the variant where it has some, else the plain ones."""
        found = {}
        for name in self.components:
            by_variant: dict[str | None, list[Path]] = {}
            for path in sorted((self.folder / name).glob("*.safetensors")):
                match = _WEIGHTS.fullmatch(path.name)
                if match:
                    by_variant.setdefault(match["variant"], []).append(path)
            files = by_variant.get(self.variant) or by_variant.get(None) or []
            if files:
                found[name] = files
            elif by_variant:
                raise UsageError(
                    f"{self.folder.name}/{name} holds weights of variant "
                    f"{', '.join(sorted(v for v in by_variant if v))} only: choose it with model.args.variant"
                )
        return found

    def digest(self) -> str:
        """sha256 of everything that decides a picture: the index, configurations, tokenizers, weights read."""
        files = [self.folder / INDEX, *(p for paths in self.weights.values() for p in paths)]
        for name in self.components:
            files += [
                p
                for p in (self.folder / name).rglob("*")
                if p.suffix in _TEXTS and not p.name.endswith(".index.json") and p.is_file()
            ]
        return files_digest(self.folder, files)

    def precision(self) -> str:
        """The precision in which most of the denoising network is stored; float32 for any that torch cannot name."""
        names = [n for n in _DENOISERS if n in self.weights] or list(self.weights)[:1]
        totals: dict[str, int] = {}
        for path in (p for name in names for p in self.weights[name]):
            for dtype, size in _tensors(path):
                totals[dtype] = totals.get(dtype, 0) + size
        most = max(totals, key=lambda d: (totals[d], d), default="F32")
        return _PRECISIONS.get(most, "float32")


def read_pipeline(
    folder: Path, variant: str | None = None, without: Sequence[str] = ()
) -> PipelineFiles:
    """Read and check a folder in the layout of diffusers; the components of ``without`` need not be there.

    Raises: UsageError for another layout, pickles or code; MissingRequirementError for parts that are absent.
    """
    index = _read_index(folder)
    class_name = index.get("_class_name")
    if isinstance(class_name, list):
        raise UsageError(f"{folder} asks for a pipeline in its own code, which is never run")
    if not isinstance(class_name, str) or not class_name.isidentifier():
        raise UsageError(f"{folder / INDEX}: _class_name {shown(class_name)} names no pipeline")
    components = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue  # settings of the pipeline
        if name in without:
            continue
        if len(value) != 2 or not all(v is None or isinstance(v, str) for v in value):
            raise UsageError(f"{folder / INDEX}: {name} = {shown(value)} is not [library, class]")
        if value[1] is not None:
            components[name] = (str(value[0]), str(value[1]))
    files = PipelineFiles(
        folder, class_name, str(index.get("_diffusers_version", "unknown")), components, variant
    )
    for name in components:
        _check_component(files, name)
    return files


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {INDEX}: give a folder that DiffusionPipeline.save_pretrained wrote, or a hub id of one"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error})") from None
    if not isinstance(index, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return index


def _check_component(files: PipelineFiles, name: str) -> None:
    place = files.folder / name
    library = files.components[name][0]
    if "/" in name or "\\" in name or name in (".", ".."):
        raise UsageError(f"{files.folder / INDEX}: {shown(name)} is no name of a component")
    if not place.is_dir():
        raise MissingRequirementError(
            f"{files.folder} lacks {name}/, which its {INDEX} names: fetch it whole, or correct the folder"
        )
    if (place / f"{library}.py").exists():
        raise UsageError(f"{place} asks for code of its own ({library}.py), which is never run")
    if _WITHOUT_WEIGHTS.fullmatch(name) or files.weights.get(name):
        return
    pickles = sorted(p.name for p in place.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise UsageError(
            f"{place} holds its weights as {pickles[0]} only, and pickles are never read: save the pipeline "
            "again with safe_serialization=True, or take a revision with safetensors"
        )
    if (place / "config.json").is_file():
        raise MissingRequirementError(f"{place} has no weights (*.safetensors): fetch it whole")


def _tensors(path: Path) -> list[tuple[str, int]]:
    """(dtype, bytes) of every tensor, from the head of a safetensors file. Raises ModelError."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEAD_BYTES:
                raise ValueError("its head is too long")
            head = json.loads(file.read(length))
        return [
            (entry["dtype"], entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in head.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{path} is damaged or cut short ({error})") from None
