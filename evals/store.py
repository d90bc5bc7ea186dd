"""The run folder: everything a run writes, and what is found again when it is resumed.

Whole files are replaced atomically, lines are appended per batch, pictures are in place before the
line that names them. So after SIGKILL at any moment a folder holds only finished things, at most one
torn line, and temporary files with fixed names that the next start writes over. Lines, manifest,
results and pictures carry checksums (``evals.io.checksums``); the manifest has a second copy.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evals.api import Sample
from evals.errors import ConfigMismatchError, LockedError, StoreError, UsageError
from evals.io.files import json_problem, temporary_of, write_atomically, write_json, writing
from evals.io.jsonl import Scan, scan
from evals.io.locks import FileLock
from evals.phases.attempts import Attempts
from evals.phases.plan import Batch, Locator, Plan, cut
from evals.phases.readymade import EncodedPicture
from evals.results import SCHEMA_VERSION

OUTPUTS, SCORES, RESULTS, MANIFEST, REPORT = (
    "outputs.jsonl",
    "scores.jsonl",
    "results.json",
    "manifest.json",
    "report.html",
)
_COPY = ".manifest.copy.json"
_NEEDED = {"fingerprint": dict, "auto": dict, "sessions": list, "status": str}  # for a resume

log = logging.getLogger("evals")


class RunStore:
    """One run folder, opened for writing."""

    def __init__(self, root: Path, verify: bool = False) -> None:
        """``verify``: read every picture against its checksum when outputs are scanned."""
        self.root = root
        self.verify = verify
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
            try:
                self._locks.append(whole.acquire())
            except LockedError as error:
                raise self._naming_shards(error) from None
            if count > 1:
                own = FileLock(self.root / f".shard-{index}-of-{count}.lock")
                self._locks.append(own.acquire(what=f"shard {index}/{count}"))

    def lock_merge(self) -> FileLock:
        """The lock of whoever merges, scores and reports; raises LockedError if taken."""
        with writing(self.root):
            lock = FileLock(self.root / ".merge.lock").acquire(what="merge")
        self._locks.append(lock)
        return lock

    def _naming_shards(self, error: LockedError) -> LockedError:
        holders = [
            f"{path.name.removeprefix('.').removesuffix('.lock')} ({holder})"
            for path in sorted(self.root.glob(".shard-*.lock"))
            if (holder := FileLock(path).holder()) is not None
        ]
        if not holders:
            return error
        return LockedError(
            f"{self.root}: {', '.join(holders[:8])} of this run still work{'s' * (len(holders) == 1)}; wait "
            "for them, stop them, or give another --output"
        )

    def attempts(self, phase: str, shard: tuple[int, int] = (0, 1)) -> Attempts:
        """The note of which batch is being computed (``evals.phases.attempts``)."""
        return Attempts(self.root / ".working-{}-{}-of-{}".format(phase, *shard))

    def close(self) -> None:
        """Let go of the locks; also what a forked child does with those of its parent."""
        for lock in reversed(self._locks):
            lock.release()
        self._locks.clear()

    def check_is_ours(self) -> None:
        """Refuse a folder that holds other things. Raises UsageError."""
        if (self.root / MANIFEST).exists() or (self.root / _COPY).exists():
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
            for name in (REPORT, RESULTS, SCORES, OUTPUTS, _COPY, MANIFEST):
                (self.root / name).unlink(missing_ok=True)
            for path in (*self.shard_files(), *self.root.glob(".working-*")):
                path.unlink()
            for folder in ("images", "inputs"):
                if (self.root / folder).is_dir():
                    shutil.rmtree(self.root / folder)

    # -- manifest -----------------------------------------------------------------------------

    def open_manifest(
        self,
        new: Callable[[], dict[str, Any]],
        fingerprint: Mapping[str, Any],
        differing: Callable[..., list[str]],
    ) -> bool:
        """Write ``new()`` into a new folder, or check the fingerprint against the one that is there.

        Returns True for a resumed run. Raises ConfigMismatchError that names the keys.
        """
        with writing(self.root / MANIFEST), FileLock(self.root / ".manifest.lock"):
            is_new = not (self.root / MANIFEST).exists() and not (self.root / _COPY).exists()
            if is_new:
                self._write_manifest(new())
                return False
            recorded = self._read_manifest()
        lines = differing(recorded["fingerprint"], fingerprint, recorded["auto"])
        if lines:
            raise ConfigMismatchError(
                f"{self.root} holds a run of another configuration ({'; '.join(lines)}): "
                "give another --output, or --fresh to start over"
            )
        self.manifest = recorded
        return True

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.root / MANIFEST, manifest)
        write_json(self.root / _COPY, manifest, is_durable=False)
        self.manifest = manifest

    def _read_manifest(self) -> dict[str, Any]:
        """The manifest, or its copy if a bad disk or a careless hand damaged it."""
        path, copy = self.root / MANIFEST, self.root / _COPY
        problem = json_problem(path)
        if problem is not None:
            if json_problem(copy) is not None:
                raise StoreError(
                    f"{path} is {problem}, and there is no sound copy; give another --output, or --fresh to start over"
                )
            log.warning("%s is %s: its copy %s takes its place", path, problem, _COPY)
            write_atomically(path, copy.read_bytes())
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        missing = [key for key, kind in _NEEDED.items() if not isinstance(manifest.get(key), kind)]
        if missing:
            raise StoreError(
                f"{path} lacks {', '.join(missing)}; give another --output, or --fresh to start over"
            )
        if manifest.get("schema") != SCHEMA_VERSION:
            raise StoreError(
                f"{path} has schema {manifest.get('schema')!r}, this version writes {SCHEMA_VERSION}; "
                "give another --output, or --fresh to start over"
            )
        return manifest

    def update_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Read, change and replace the manifest under its lock."""
        with writing(self.root / MANIFEST), FileLock(self.root / ".manifest.lock"):
            manifest = self._read_manifest()
            change(manifest)
            self._write_manifest(manifest)

    # -- outputs and scores -------------------------------------------------------------------

    def outputs_path(self, shard: tuple[int, int] = (0, 1)) -> Path:
        index, count = shard
        return self.root / (OUTPUTS if count == 1 else f"outputs.{index}-of-{count}.jsonl")

    def shard_files(self) -> list[Path]:
        return sorted(self.root.glob("outputs.*-of-*.jsonl"))

    def scan_outputs(self, plan: Plan) -> Scan:
        """All usable outputs, those of shards too. A missing or shortened picture is not usable."""
        while True:
            files = [p for p in (self.root / OUTPUTS, *self.shard_files()) if p.exists()]
            try:
                return scan(files, len(plan), plan.batches(), Locator(plan), self._is_usable)
            except FileNotFoundError:
                continue  # another shard merges just now: its lines are in outputs.jsonl

    def scan_scores(self, plan: Plan, batch_size: int) -> Scan:
        """All scores; ``is_error`` marks those that the judge failed on."""
        path = self.root / SCORES
        return scan(
            [path] if path.exists() else [],
            len(plan),
            cut(len(plan), batch_size),
            Locator(plan),
            is_score,
            _is_judge_failure,
        )

    def _is_usable(self, row: Mapping[str, Any]) -> bool:
        if not isinstance(row.get("group"), str):
            return False
        if row.get("status") == "error":
            return isinstance(row.get("error"), str)
        if row.get("status") != "ok":
            return False
        if "path" not in row:
            return isinstance(row.get("text"), str)
        path = row["path"]
        if not isinstance(path, str) or not path.startswith("images/") or ".." in path.split("/"):
            return False  # nothing of ours: pictures lie below the run folder
        if not isinstance(row.get("sha256"), str):
            return False
        try:
            if os.stat(self.root / path).st_size != row["bytes"]:
                return False
            if self.verify and _sha256((self.root / path).read_bytes()) != row["sha256"]:
                log.warning("%s differs from its recorded checksum", self.root / path)
                return False
        except (OSError, KeyError, ValueError):
            return False
        return True

    def drop_scores(self, plan: Plan, judge_batch_size: int, remade: Iterable[Batch]) -> None:
        """Forget what was derived from outputs that are about to be made again: their judge's batches,
        results and report. Scores of other batches stay."""
        with writing(self.root), FileLock(self.root / ".manifest.lock"):
            for name in (REPORT, RESULTS):
                (self.root / name).unlink(missing_ok=True)
            path = self.root / SCORES
            if not path.exists():
                return
            scores = self.scan_scores(plan, judge_batch_size)
            for batch in remade:
                first = batch.start - batch.start % judge_batch_size
                for start in range(first, batch.stop, judge_batch_size):
                    scores.forget(Batch(0, start, min(start + judge_batch_size, len(plan))))
            scores.rewrite(path)

    def clear_leavings(self) -> None:
        """Remove what killed processes left behind: notes of attempts, half-written files."""
        with writing(self.root), FileLock(self.root / ".manifest.lock"):
            for pattern in (".working-*", ".*.tmp"):
                for path in self.root.glob(pattern):
                    path.unlink(missing_ok=True)

    # -- pictures -----------------------------------------------------------------------------

    def write_image(self, sample: Sample, index: int, image: Any) -> dict[str, Any]:
        """Save a picture in GenEval's layout. Returns path, sha256 and bytes for its line."""
        folder = self.root / "images" / f"{sample.number:05d}"
        path = folder / "samples" / f"{index:05d}.png"
        if isinstance(image, EncodedPicture):
            data = image.png_bytes
        else:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="PNG")
            data = buffer.getvalue()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            record = folder / "metadata.jsonl"
            if not record.exists():
                _replace(record, metadata_line(sample))
            if not (isinstance(image, EncodedPicture) and _link(image.link, path)):
                _replace(path, data)
        return {
            "path": path.relative_to(self.root).as_posix(),
            "sha256": _sha256(data),
            "bytes": len(data),
        }

    def mend_records(self, samples: Iterable[Sample]) -> None:
        """Write every ``metadata.jsonl`` again that is not what its sample says."""
        for sample in samples:
            path = self.root / "images" / f"{sample.number:05d}" / "metadata.jsonl"
            line = metadata_line(sample)
            if path.parent.is_dir() and (not path.exists() or path.read_bytes() != line):
                log.warning("%s was damaged and is written again", path)
                with writing(path):
                    _replace(path, line)

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
        if _sha256(data) != row["sha256"]:
            raise StoreError(
                f"{path} differs from its recorded checksum: delete it and run the same command again, "
                "its batch is made again (--verify finds all such pictures)"
            )
        # Only what write_image writes: other formats start other programs, such as Ghostscript.
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.convert("RGB")


def _link(source: Path | None, path: Path) -> bool:
    """Put a hard link of ``source`` at ``path``; False where that is not possible."""
    if source is None:
        return False
    temporary = temporary_of(path)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        os.replace(temporary, path)
        temporary.unlink(missing_ok=True)  # rename does nothing between two names of one file
    except OSError:  # another file system, or links are not allowed
        return False
    return True


def _replace(path: Path, data: bytes) -> None:
    # No fsync per picture: after a power loss its size is checked on resume, its checksum on reading.
    temporary = temporary_of(path)
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def metadata_line(sample: Sample) -> bytes:
    """The content of a picture folder's ``metadata.jsonl``: the official record."""
    return (json.dumps(dict(sample.metadata)) + "\n").encode()


def is_score(row: Mapping[str, Any]) -> bool:
    """Whether a row can be read as a score: a finite value, or null with the reason why."""
    value, details = row.get("value"), row.get("details", {})
    if not isinstance(row.get("group"), str) or not isinstance(details, dict):
        return False
    if value is None:
        return isinstance(row.get("unscored"), str)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and row.get("unscored") is None


def _is_judge_failure(row: Mapping[str, Any]) -> bool:
    details = row.get("details")
    return isinstance(details, dict) and details.get("failed") == "judge"


def whole_batches(plan: Plan, done: Scan, shard: tuple[int, int]) -> list[Batch]:
    """The batches of a shard that still have to be computed."""
    return [b for b in plan.batches(shard) if not done.has_batch(b)]
