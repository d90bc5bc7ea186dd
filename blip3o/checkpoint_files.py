"""What a folder of weights holds, from the headers of its safetensors files alone.

Names, shapes and completeness are known before a byte of a tensor is read, so that a missing shard or a
wrong width is said at once and not after sixteen gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from blip3o.errors import WeightsError
from blip3o.storage import WEIGHTS_NAME, read_json

INDEX_NAME = WEIGHTS_NAME + ".index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# A header is JSON and at most this long; the format's own limit.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorHeader:
    """Where a tensor lies and what it is; ``dtype`` in the spelling of safetensors (``F16``, ``BF16``)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def file_headers(path: Path) -> dict[str, TensorHeader]:
    """Tensors of one safetensors file. Raises: WeightsError if it is missing, damaged or cut short."""

    def damaged(reason: str) -> WeightsError:
        return WeightsError(f"{path} is damaged or cut short ({reason}); fetch or save it again")

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
                raise damaged(f"its header claims {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        found, end = {}, 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape, dtype = tuple(entry["shape"]), entry["dtype"]
            begin, stop = entry["data_offsets"]
            if any(type(number) is not int or number < 0 for number in (*shape, begin, stop)):
                raise damaged(f"{name} has sides or places that are no whole numbers")
            found[name] = TensorHeader(path, shape, dtype)
            if stop - begin != found[name].num_bytes:
                raise damaged(f"{name} has {stop - begin} bytes instead of {found[name].num_bytes}")
            end = max(end, stop)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; the folder is not a complete model") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its header cannot be read: {error!r}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from None
    size = path.stat().st_size - 8 - length
    if size != end:
        raise damaged(f"{size} bytes of tensors instead of {end}")
    return found


def folder_headers(folder: Path) -> dict[str, TensorHeader]:
    """All tensors of a model folder, in one file or in shards with an index.

    Raises: WeightsError naming the missing shard, the tensor that its shard lacks, or what else the folder
    holds in place of weights.
    """
    folder = Path(folder)
    single, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    if single.is_file() and index.is_file():
        raise WeightsError(
            f"{folder} holds both {WEIGHTS_NAME} and {INDEX_NAME}, so it is unclear which weights are meant; "
            "remove one of them"
        )
    if single.is_file():
        return file_headers(single)
    if not index.is_file():
        raise _no_weights(folder)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index} has no weight_map; fetch it again")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsError(f"{index} names shards that are no texts; fetch it again")
    shards = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise WeightsError(f"{index} names the shard {name!r}, which is outside the folder; fetch it again")
        if not (folder / name).is_file():
            missing = [s for s in set(weight_map.values()) if not (folder / s).is_file()]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise WeightsError(f"shard {folder / name}{more} is missing; fetch the model again")
        shards[name] = file_headers(folder / name)
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise WeightsError(
                f"{folder / name} lacks {tensor}, which {INDEX_NAME} places there; the shards are of different models"
            )
    return {tensor: shards[name][tensor] for tensor, name in weight_map.items()}


def _no_weights(folder: Path) -> WeightsError:
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        return WeightsError(
            f"{folder / pickled[0]} is a pickle, which can run code when it is read, and is not loaded; "
            "fetch the safetensors files of this model"
        )
    strays = sorted(path.name for path in folder.glob("*.safetensors"))
    if strays:
        return WeightsError(f"{folder} holds {strays[0]} but no {INDEX_NAME}; fetch the index, too")
    return WeightsError(f"{folder / WEIGHTS_NAME} is missing; the folder is not a complete model")


def check_fit(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], source: Path | str
) -> None:
    """Compare shapes by name. Raises: WeightsError naming the first difference, with both shapes."""
    for kind, names in (
        ("lack", sorted(set(wanted) - set(found))),
        ("have unknown", sorted(set(found) - set(wanted))),
        ("have a wrong shape for", sorted(n for n in wanted if found.get(n, wanted[n]) != wanted[n])),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            name = names[0]
            shapes = (
                f": {found[name]} in the file, {wanted[name]} by the configuration"
                if kind.endswith("for")
                else ""
            )
            raise WeightsError(f"the weights in {source} {kind} {name}{more}{shapes}")


def iter_tensors(
    folder: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a folder, one shard open at a time; a tensor lives as long as its user keeps it."""
    from safetensors import safe_open

    by_file: dict[Path, list[str]] = {}
    for name, header in folder_headers(folder).items():
        if wanted(name):
            by_file.setdefault(header.file, []).append(name)
    for path, names in by_file.items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                yield name, file.get_tensor(name)
