"""Folders of weights from one layout to another, shard by shard, so that memory holds one shard at a time.

``blip3o``: our own folder. ``released`` and ``released-new``: the layout of the published checkpoints, with the
backbone's names of transformers 4.51 or of 4.52 and later. ``target-encoder``: EVA-CLIP weights as a target encoder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from blip3o.card import CARD_NAME, PipelineCard, check_digests, write_digests
from blip3o.checkpoint_files import INDEX_NAME, folder_headers, iter_tensors
from blip3o.config import Blip3oConfig
from blip3o.errors import ConfigError, WeightsError
from blip3o.released import (
    Spelling,
    backbone_licence,
    config_to_released,
    current_name,
    is_unused,
    map_name,
    unmap_name,
)
from blip3o.storage import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    make_readable,
    read_json,
    whole_folder,
    write_json,
)
from blip3o.strict_loading import check_finite, is_released, read_config
from blip3o.vision.targets import RELEASED_PREFIX, eva_target

Layout = Literal["blip3o", "released", "released-new", "target-encoder"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
SHARD_BYTES = 5_000_000_000
# Kinds of small files that travel as they are: tokenizer, chat template, generation settings, licences.
_SIDE_SUFFIXES = {".json", ".txt", ".jinja", ".model", ".md", ".log"}
_OWN_FILES = {CONFIG_NAME, INDEX_NAME, CARD_NAME, "digests.json", "model_index.json"}


class ShardWriter:
    """Collects tensors and writes a file whenever ``limit`` bytes are together; ``close`` names and indexes them."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self._tensors: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        self._shards: list[list[str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._tensors and self._bytes + size > self.limit:
            self._flush()
        self._tensors[name] = tensor.contiguous()
        self._bytes, self._total = self._bytes + size, self._total + size

    def _flush(self) -> None:
        path = self.folder / f".shard-{len(self._shards)}.safetensors"
        save_file(self._tensors, path, metadata={"format": "pt"})
        self._shards.append(list(self._tensors))
        self._tensors, self._bytes = {}, 0

    def close(self) -> None:
        """Final names: ``model.safetensors`` alone, or numbered shards and their index."""
        if self._tensors:
            self._flush()
        count = len(self._shards)
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            single = count == 1
            name = WEIGHTS_NAME if single else f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            (self.folder / f".shard-{number}.safetensors").replace(self.folder / name)
            weight_map |= dict.fromkeys(names, name)
        if count > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            write_json(self.folder / INDEX_NAME, index)
        make_readable(self.folder)


def convert(
    source: Path,
    target: Path,
    layout: Layout,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write ``target`` from ``source`` in another layout; ``source`` is left alone.

    Args: dtype: precision of the new files (default: as they are). Returns: what could not be taken along, one line
    each. Raises: WeightsError, ConfigError for a folder that is not empty or a model that the layout cannot hold.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r} is unknown; choose {', '.join(LAYOUTS)}")
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not an empty folder; name a new one")
    if layout == "target-encoder":
        with whole_folder(target) as folder:
            return _convert_eva(source, folder, dtype)
    if not source.is_dir():
        raise WeightsError(f"model folder {source} does not exist")
    check_digests(source)
    config = read_config(source)
    with whole_folder(target) as folder:
        if layout == "blip3o":
            notes = _to_ours(source, folder, config, dtype, shard_bytes)
        else:
            notes = _to_released(source, folder, config, layout, dtype, shard_bytes)
    return [note.replace(str(folder), str(target)) for note in notes]


def _write_weights(
    source: Path, target: Path, rename: Callable[[str], str | None], dtype: torch.dtype | None, limit: int
) -> None:  # fmt: skip
    writer = ShardWriter(target, limit)
    for name, tensor in iter_tensors(source):
        new = rename(name)
        if new is not None:
            check_finite({name: tensor}, source)
            if dtype and tensor.is_floating_point():
                tensor = _cast(tensor, dtype, name)
            writer.add(new, tensor)
    writer.close()


def _cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    cast = tensor.to(dtype)
    if not bool(torch.isfinite(cast).all()):
        kind = str(dtype).removeprefix("torch.")
        raise WeightsError(f"{name} holds values beyond the range of {kind}; keep its precision, or use bfloat16")
    return cast


def _our_name(source: Path) -> Callable[[str], str | None]:
    return map_name if is_released(source) else current_name


def _to_ours(
    source: Path, target: Path, config: Blip3oConfig, dtype: torch.dtype | None, limit: int
) -> list[str]:
    from blip3o.loading import load_tokenizer, token_config

    card = PipelineCard(dtype=_precision(source, dtype), licence=backbone_licence(config))
    if is_released(source):
        config.token_config = asdict(token_config(load_tokenizer(source)))
        card = PipelineCard(**{**asdict(card), "reconstruction_size_px": 448})
    _write_weights(source, target, _our_name(source), dtype, limit)
    config.save_pretrained(target)
    decoder = _copy_decoder(source, target / "decoder")
    if decoder is not None and not (target / "decoder" / CONFIG_NAME).is_file():
        write_json(target / "decoder" / CONFIG_NAME, {"kind": "latent_unet"})
    if any(name.startswith(RELEASED_PREFIX) for name in folder_headers(source)):
        from blip3o.vision.targets import load_target

        load_target(source, dtype).save_pretrained(target / "target_encoder")
    card_file = source / CARD_NAME
    values = read_json(card_file) if card_file.is_file() else {**asdict(card), "format": 1}
    write_json(target / CARD_NAME, values)
    _copy_side_files(source, target)
    write_digests(target)
    return [] if decoder else [f"{source} has no pixel decoder; the model answers questions and makes features"]


def _to_released(
    source: Path, target: Path, config: Blip3oConfig, layout: str, dtype: torch.dtype | None, limit: int
) -> list[str]:  # fmt: skip
    if (config.target, config.objective, config.head) != ("clip", "flow", "dit"):
        raise ConfigError(
            f"a {config.target} + {config.objective} model with head {config.head} has no place in the released "
            "layout; it holds CLIP + flow models with a DiT"
        )
    values = config_to_released(config)
    spelling: Spelling = "old" if layout == "released" else "new"
    ours = _our_name(source)
    is_tied = bool(values.get("tie_word_embeddings"))

    def rename(name: str) -> str | None:
        if is_released(source) and is_unused(name):
            return name  # a target encoder that was saved along stays
        own = ours(name)
        if own is None or (is_tied and own.startswith("backbone.vlm.lm_head.")):
            return None
        return unmap_name(own, spelling)

    _write_weights(source, target, rename, dtype, limit)
    write_json(target / CONFIG_NAME, {**values, "torch_dtype": _precision(target, None)})
    _copy_side_files(source, target)
    notes = []
    decoder = _copy_decoder(source, target / "diffusion-decoder")
    config_file = target / "diffusion-decoder" / CONFIG_NAME
    if decoder is None:
        notes.append(f"{source} has no pixel decoder, so {target} has no diffusion-decoder/")
    elif read_json(config_file).get("kind") == "latent_unet" if config_file.is_file() else True:
        config_file.unlink(missing_ok=True)  # upstream's folder has none
    else:
        notes.append("diffusion-decoder/ is of a kind that only this package reads")
    if (source / "target_encoder").is_dir():
        notes.append("target_encoder/ was left out: the released layout has no folder for it")
    if config.dit.dim != 1792 or config.dit.num_layers != 24:
        notes.append(
            "the transformer is not of the released size; upstream's code builds that size whatever the weights say"
        )
    return notes


def _precision(folder: Path, dtype: torch.dtype | None) -> str:
    """Name of the precision that most of a folder's floating values have."""
    if dtype is not None:
        return str(dtype).removeprefix("torch.")
    bytes_by_kind: dict[str, int] = {}
    for header in folder_headers(folder).values():
        bytes_by_kind[header.dtype] = bytes_by_kind.get(header.dtype, 0) + header.num_bytes
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    known = {kind: size for kind, size in bytes_by_kind.items() if kind in names}
    return names[max(known, key=lambda kind: known[kind])] if known else "float32"


def _copy_decoder(source: Path, target: Path) -> Path | None:
    """The decoder's data files; code that lies beside them is not taken along."""
    for name in ("decoder", "diffusion-decoder"):
        folder = source / name
        if folder.is_dir():
            files = [p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".txt")]
            _copy(folder, target, files)
            return folder
    return None


def _copy_side_files(source: Path, target: Path) -> None:
    files = [p for p in source.iterdir() if p.suffix in _SIDE_SUFFIXES and p.name not in _OWN_FILES]
    _copy(source, target, [p for p in files if not (target / p.name).exists()])


def _copy(source: Path, target: Path, files: Iterable[Path]) -> None:
    for path in files:
        if path.is_file():
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def _convert_eva(source: Path, target: Path, dtype: torch.dtype | None) -> list[str]:
    """EVA-CLIP weights: a file of plain tensors, or a released folder that holds them."""
    from blip3o.vision.targets import load_target

    if source.is_dir():
        load_target(source, dtype).save_pretrained(target)
        return []
    tensors = read_plain_tensors(source)
    eva_target(tensors, source, dtype=dtype or next(iter(tensors.values())).dtype).save_pretrained(target)
    return []


def read_plain_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a ``pytorch_model.bin`` read without running any code from it.

    Raises: WeightsError, also for a pickle that holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        from blip3o.storage import read_tensors

        return read_tensors(path)
    import pickle

    try:
        values: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{path} holds something else than tensors, or is damaged ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise WeightsError(f"{path} must hold named tensors, got {type(values).__name__}")
    return values
