"""Reading and writing weights: safetensors only, strict, with one-line errors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blip3o.errors import WeightsError

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and load reports: what matters is raised as an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: WeightsError if it is missing or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; the folder is not a complete model") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise WeightsError(f"{path} is nested too deeply; fetch or save it again") from None
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        problem = str(error).partition(";")[0]
        raise WeightsError(f"{path} is not valid JSON ({problem}); fetch or save it again") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Atomic: a reader sees the old file or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises: WeightsError if it is missing or damaged."""
    if not path.is_file():
        raise WeightsError(f"{path} is missing; the folder is not a complete model")
    try:
        _check_names(path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or cut short ({' '.join(str(error).split())}); fetch or save it again"
        ) from None


def _check_names(path: Path) -> None:
    """The format forbids a name twice; the library keeps the last one. Raises: ValueError.

    Everything else that can be wrong with a header the library finds.
    """

    def names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twins = [name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])]
            raise ValueError(f"its header names {twins[0]} twice")
        return found

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length <= os.fstat(file.fileno()).st_size:
            try:
                json.loads(file.read(length), object_pairs_hook=names)
            except RecursionError:
                raise ValueError("its header is nested too deeply") from None


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a module; every name and shape must agree and every value be finite.

    Half-precision files load into a float32 module; integers and eight-bit floats do not.
    Raises: WeightsError naming the first difference.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected:
        kind, names = ("lacks", missing) if missing else ("has unknown", unexpected)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise WeightsError(
            f"{source} {kind} {names[0]}{more}: it does not fit {type(module).__name__}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, "
                f"the configuration asks for {tuple(own[name].shape)}"
            )
        if not _is_castable(tensor.dtype, own[name].dtype):
            raise WeightsError(
                f"{source}: {name} holds {str(tensor.dtype).removeprefix('torch.')}, which {type(module).__name__} "
                f"cannot take for {str(own[name].dtype).removeprefix('torch.')}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{source}: {name} holds values that are not finite")
    module.load_state_dict(dict(tensors))


_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _is_castable(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Between plain floats, or not at all: eight-bit floats and integers need scales to mean anything."""
    return stored == wanted or (stored in _FLOATS and wanted in _FLOATS)


def save_module(
    folder: Path, module: nn.Module, config: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write config.json and model.safetensors; ``dtype`` (e.g. float16) narrows floating weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_NAME, config)
    tensors = {}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensors[name] = tensor.contiguous().clone()
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    make_readable(folder)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``target`` when the block ends, and goes away if it fails.

    ``target`` must not exist or be empty. Raises: WeightsError where the disk takes no more.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.is_dir():
            target.rmdir()
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{target} was not written ({reason}); nothing of it was left behind") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_readable(folder: Path) -> None:
    """Give weight files the permissions of ordinary files: safetensors writes them for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Silence diffusers' warnings and bars; what matters is raised as an error."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def save_diffusers_part(part: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a diffusers model as safetensors, floating weights in ``dtype`` if given; the model stays as it is."""
    if dtype is not None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in part.state_dict().items()}
        with torch.device("meta"):
            part = type(part).from_config(part.config)
        part.load_state_dict(state, assign=True)
    part.save_pretrained(folder, safe_serialization=True)
    make_readable(folder)


def load_diffusers_part(kind: type[Any], folder: Path, dtype: torch.dtype | None = None) -> Any:
    """A diffusers model from its own folder: safetensors, complete, no network.

    Weights of a named variant (``diffusion_pytorch_model.bf16.safetensors``) are found by themselves.
    Raises: WeightsError.
    """
    read_json(folder / CONFIG_NAME)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} holds no .safetensors file; pickled weights are not loaded")
    plain = any(
        not file.stem.partition("diffusion_pytorch_model")[2].startswith(".") for file in files
    )
    variant = None if plain else files[0].stem.split(".", 1)[1].split("-")[0]
    try:
        with quiet_diffusers():
            model, info = kind.from_pretrained(
                folder,
                variant=variant,
                torch_dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the weights in {folder} cannot be loaded ({' '.join(str(error).split())}); fetch them again"
        ) from None
    for kind_of_fault in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info.get(kind_of_fault):
            raise WeightsError(
                f"the weights in {folder} have {kind_of_fault.replace('_', ' ')}: {info[kind_of_fault][0]}"
            )
    return model
