"""sha256 of weights: of a file, and of a folder as one number.

Digests of large files are remembered by path, size and modification time (in nanoseconds) under the
user's cache folder, so that a run of a 16 GB checkpoint is resumed without reading it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

REMEMBER_FROM_BYTES = 256 * 2**20
_CHUNK = 2**22


def cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "blip3o-eval" / "digests.json"


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    is_large = status.st_size >= REMEMBER_FROM_BYTES
    if is_large and (known := _read().get(key)):
        return known
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if is_large:
        _remember(key, digest.hexdigest())
    return digest.hexdigest()


def folder_digest(folder: Path, suffixes: Iterable[str]) -> str:
    """sha256 over the relative names and digests of a folder's files that end in ``suffixes``.

    Names are sorted, so the number depends on the content alone, not on where the folder lies.
    """
    wanted = tuple(suffixes)
    return files_digest(
        folder, (p for p in folder.rglob("*") if p.is_file() and p.name.endswith(wanted))
    )


def files_digest(folder: Path, files: Iterable[Path]) -> str:
    """The same over the given files of a folder."""
    total = hashlib.sha256()
    for name, path in sorted((p.relative_to(folder).as_posix(), p) for p in files):
        total.update(f"{name}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def _read() -> dict[str, str]:
    try:
        data = json.loads(cache_file().read_text())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home folder
        return {}
    return data if isinstance(data, dict) else {}


def _remember(key: str, digest: str) -> None:
    # A cache that cannot be written costs time, nothing else.
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".digests.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**_read(), key: digest}, indent=0))
        os.replace(temporary, path)
    except (OSError, RuntimeError):
        return
