"""The run folder: everything a run writes, and what is found again when it is resumed.

Whole files are replaced atomically, lines are appended per batch, pictures are in place before the
line that names them. So after SIGKILL at any moment a folder holds only finished things, at most one
torn line, and temporary files with fixed names that the next start writes over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.api import Sample
from evals.errors import ConfigMismatchError, StoreError, UsageError
from evals.jsonl import Scan, scan
from evals.locks import FileLock
from evals.plan import Batch, Plan, cut
from evals.results import SCHEMA_VERSION

OUTPUTS, SCORES, RESULTS, MANIFEST, REPORT = (
    "outputs.jsonl",
    "scores.jsonl",
    "results.json",
    "manifest.json",
    "report.html",
)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _NO_SPACE:
            raise StoreError(
                f"no space left on the device of {where}: free some and run the same command again; "
                "everything written so far is kept"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise StoreError(
                f"{where} cannot be written ({error.strerror}): give another folder with --output"
            ) from error
        raise StoreError(f"{where}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; readers see the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


class RunStore:
    """One run folder, opened for writing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest: dict[str, Any] = {}
        self._locks: list[FileLock] = []

    # -- opening ------------------------------------------------------------------------------

    def lock(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Take the kernel locks of a whole run or of one shard.

        A whole run excludes every other process; shards exclude a whole run and the same shard.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            index, count = shard
            whole = FileLock(self.root / ".run.lock", shared=count > 1)
            self._locks.append(whole.acquire())
            if count > 1:
                own = FileLock(self.root / f".shard-{index}-of-{count}.lock")
                self._locks.append(own.acquire(what=f"shard {index}/{count}"))

    def lock_merge(self) -> FileLock:
        """The lock of whoever merges, scores and reports; raises LockedError if taken."""
        with writing(self.root):
            lock = FileLock(self.root / ".merge.lock").acquire(what="merge")
        self._locks.append(lock)
        return lock

    def close(self) -> None:
        for lock in reversed(self._locks):
            lock.release()
        self._locks.clear()

    def check_is_ours(self) -> None:
        """Refuse a folder that holds other things. Raises UsageError."""
        if (self.root / MANIFEST).exists():
            return
        strangers = [p.name for p in self.root.iterdir() if not p.name.startswith(".")]
        if strangers:
            raise UsageError(
                f"{self.root} is not empty and is not a run folder (it holds {sorted(strangers)[0]!r}): "
                "give another --output"
            )

    def clear(self) -> None:
        """Remove the results of an earlier run (``--fresh``); other files are left alone."""
        with writing(self.root):
            for name in (REPORT, RESULTS, SCORES, OUTPUTS, MANIFEST):
                (self.root / name).unlink(missing_ok=True)
            for path in self.shard_files():
                path.unlink()
            if (self.root / "images").is_dir():
                shutil.rmtree(self.root / "images")

    # -- manifest -----------------------------------------------------------------------------

    def open_manifest(self, wanted: dict[str, Any], differing: Callable[..., list[str]]) -> bool:
        """Write ``wanted`` into a new folder, or check it against the one that is there.

        Returns True for a resumed run. Raises ConfigMismatchError that names the keys.
        """
        path = self.root / MANIFEST
        with FileLock(self.root / ".manifest.lock"):
            if not path.exists():
                self.manifest = wanted
                write_json(path, wanted)
                return False
            recorded = self._read_manifest(path)
        lines = differing(recorded["fingerprint"], wanted["fingerprint"], recorded["auto"])
        if lines:
            raise ConfigMismatchError(
                f"{self.root} holds a run of another configuration ({'; '.join(lines)}): "
                "give another --output, or --fresh to start over"
            )
        self.manifest = recorded
        return True

    def _read_manifest(self, path: Path) -> dict[str, Any]:
        try:
            manifest = json.loads(path.read_bytes())
            if (
                manifest["schema"] == SCHEMA_VERSION
                and manifest["fingerprint"]
                and "auto" in manifest
            ):
                return manifest  # type: ignore[no-any-return]
            problem = f"schema {manifest['schema']!r}, this version writes {SCHEMA_VERSION}"
        except (ValueError, KeyError, TypeError) as error:
            problem = f"damaged: {error}"
        raise StoreError(f"{path} {problem}; give another --output, or --fresh to start over")

    def update_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Read, change and replace the manifest under its lock."""
        path = self.root / MANIFEST
        with writing(path), FileLock(self.root / ".manifest.lock"):
            manifest = self._read_manifest(path)
            change(manifest)
            write_json(path, manifest)
            self.manifest = manifest

    # -- outputs and scores -------------------------------------------------------------------

    def outputs_path(self, shard: tuple[int, int] = (0, 1)) -> Path:
        index, count = shard
        return self.root / (OUTPUTS if count == 1 else f"outputs.{index}-of-{count}.jsonl")

    def shard_files(self) -> list[Path]:
        return sorted(self.root.glob("outputs.*-of-*.jsonl"))

    def scan_outputs(self, plan: Plan) -> Scan:
        """All usable outputs, those of shards too. A missing or shortened picture is not usable."""
        files = [p for p in (self.root / OUTPUTS, *self.shard_files()) if p.exists()]
        first = plan.positions_by_key()

        def position_of(row: Mapping[str, Any]) -> int | None:
            return _position(row, first, plan.per_sample)

        return scan(files, len(plan), plan.batches(), position_of, self._is_usable)

    def scan_scores(self, plan: Plan, batch_size: int) -> Scan:
        path = self.root / SCORES
        first = plan.positions_by_key()
        return scan(
            [path] if path.exists() else [],
            len(plan),
            cut(len(plan), batch_size),
            lambda row: _position(row, first, plan.per_sample),
        )

    def _is_usable(self, row: Mapping[str, Any]) -> bool:
        if row.get("status") == "error":
            return True
        if "path" not in row:
            return isinstance(row.get("text"), str)
        path = row["path"]
        if not isinstance(path, str) or not path.startswith("images/") or ".." in path.split("/"):
            return False  # nothing of ours: pictures lie below the run folder
        try:
            return os.stat(self.root / path).st_size == row["bytes"]
        except (OSError, KeyError, ValueError):
            return False

    def drop_scores(self) -> None:
        """Forget everything derived from outputs, because some of them are made again."""
        with writing(self.root):
            for name in (REPORT, RESULTS, SCORES):
                (self.root / name).unlink(missing_ok=True)

    # -- pictures -----------------------------------------------------------------------------

    def write_image(self, sample: Sample, index: int, image: Any) -> dict[str, Any]:
        """Save a picture in GenEval's layout. Returns path, sha256 and bytes for its line."""
        folder = self.root / "images" / f"{sample.number:05d}"
        path = folder / "samples" / f"{index:05d}.png"
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
        data = buffer.getvalue()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            record = folder / "metadata.jsonl"
            if not record.exists():
                _replace(record, (json.dumps(dict(sample.metadata)) + "\n").encode())
            _replace(path, data)
        return {
            "path": path.relative_to(self.root).as_posix(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }

    def read_image(self, row: Mapping[str, Any]) -> Any:
        """The picture of an output line, RGB, checked against its recorded sha256."""
        from PIL import Image

        path = self.root / row["path"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror}; run the same command again: its batch is made again"
            ) from None
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise StoreError(
                f"{path} differs from its recorded checksum: delete it and run the same command again, "
                "its batch is made again"
            )
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")


def _replace(path: Path, data: bytes) -> None:
    # No fsync per picture: after a power loss its size is checked on resume, its checksum on reading.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _position(row: Mapping[str, Any], first: Mapping[str, int], per_sample: int) -> int | None:
    start, index = first.get(row.get("sample_id", "")), row.get("image_index")
    if start is None or not isinstance(index, int) or not 0 <= index < per_sample:
        return None
    return start + index


def whole_batches(plan: Plan, done: Scan, shard: tuple[int, int]) -> list[Batch]:
    """The batches of a shard that still have to be computed."""
    return [b for b in plan.batches(shard) if not done.has_batch(b)]
