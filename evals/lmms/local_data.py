"""Local files in place of a task's hub data set: what lmms-eval's loader has to be told.

Understood are a parquet, JSON, JSONL, CSV or TSV file, a folder of such files named after their splits (as in a
repository of the hub), a folder of pictures with ``metadata.jsonl``, and one made by ``save_to_disk``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
_SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What speaks of the hub or of archives to unpack; a local copy has neither.
_DROPPED = (
    "token", "revision", "data_files", "data_dir", "split", "trust_remote_code", "video", "From_YouTube",
    "cache_dir", "force_download", "force_unzip", "local_files_only", "create_link", "builder_script",
)  # fmt: skip


@dataclass(frozen=True)
class Override:
    """Keys of the task's configuration that change, and the files behind them."""

    keys: Mapping[str, Any]
    files: tuple[Path, ...]


def override(
    config: Mapping[str, Any], place: Path, task: str, is_shared: bool = False
) -> Override | None:
    """What changes in the configuration.

    Args: config: the task's YAML. place: a file, a folder, or a folder with the data of several tasks
    (``TASK.parquet``, ``TASK.jsonl`` or a folder ``TASK``). is_shared: the place may hold only other tasks' data;
    then None is returned when this task has none there.
    Raises: InputError, naming the place and the split, when it holds no documents of this task.
    """
    place = Path(place).expanduser()
    if not place.exists():
        raise InputError(f"{place} does not exist: give a file or folder with the data of lmms:{task}")
    for own in (place / f"{task}.parquet", place / f"{task}.jsonl", place / task):
        if place.is_dir() and own.exists():
            place = own
            break
    else:
        if is_shared:
            return None
    kept = {k: v for k, v in (config.get("dataset_kwargs") or {}).items() if k not in _DROPPED}
    kept.pop("load_from_disk", None)
    if place.is_file():
        return _of_files(config, kept, {_eval_split(config): [place]})
    if (place / "dataset_dict.json").is_file():
        keys: dict[str, Any] = {"dataset_path": str(place), "dataset_kwargs": {**kept, "load_from_disk": True}}
        return Override(keys, tuple(sorted(place.rglob("*.arrow"))))
    found = _by_split(config, place)
    if found:
        return _of_files(config, kept, found)
    pictures = tuple(p for p in sorted(place.rglob("*")) if p.suffix.lower() in _PICTURES)
    if pictures:
        rest = tuple(p for p in sorted(place.rglob("metadata.*")) if p.is_file())
        data_files = {_eval_split(config): [str(p) for p in (*pictures, *rest)]}
        keys = {
            "dataset_path": "imagefolder",
            "dataset_name": None,
            "dataset_kwargs": {**kept, "data_files": data_files},
        }
        return Override(keys, (*pictures, *rest))
    raise InputError(
        f"{place}: no documents of lmms:{task}; give a parquet or JSONL file, a folder whose files begin with "
        f"{_eval_split(config)!r} (the split), or one with pictures and metadata.jsonl"
    )


def _eval_split(config: Mapping[str, Any]) -> str:
    """The split that is asked: lmms-eval takes ``test_split``, else ``validation_split``."""
    return str(config.get("test_split") or config.get("validation_split") or "test")


def _by_split(config: Mapping[str, Any], place: Path) -> dict[str, list[Path]]:
    """Split -> files whose names begin with it; all files are the asked split's if no name says anything."""
    files = [p for p in sorted(place.rglob("*")) if p.suffix in _BUILDERS and p.name != "metadata.jsonl"]
    subset = config.get("dataset_name")
    if subset and any(subset in p.relative_to(place).parts[:-1] for p in files):
        files = [p for p in files if subset in p.relative_to(place).parts[:-1]]
    for kind in dict.fromkeys(_BUILDERS.values()):  # parquet first: a repository's JSON files are often cards
        mine = [p for p in files if _BUILDERS[p.suffix] == kind]
        splits = {str(config[key]) for key in _SPLITS if config.get(key)}
        named = {split: [p for p in mine if p.name.startswith(split)] for split in sorted(splits)}
        named = {split: paths for split, paths in named.items() if paths}
        if _eval_split(config) in named:
            return named
        if mine and not named and len({p.parent for p in mine}) == 1:
            return {_eval_split(config): mine}
    return {}


def _of_files(
    config: Mapping[str, Any], kept: Mapping[str, Any], files: Mapping[str, Sequence[Path]]
) -> Override:
    first = next(iter(files.values()))[0]
    if first.suffix not in _BUILDERS:
        raise InputError(
            f"{first}: files with documents end in {', '.join(_BUILDERS)}, this one in {first.suffix!r}"
        )
    data_files = {split: [str(p.resolve()) for p in paths] for split, paths in files.items()}
    kwargs = {**kept, "data_files": data_files} | ({"sep": "\t"} if first.suffix == ".tsv" else {})
    keys = {
        "dataset_path": _BUILDERS[first.suffix],
        "dataset_name": None,
        "dataset_kwargs": kwargs,
    }
    return Override(keys, tuple(p for paths in files.values() for p in paths))
