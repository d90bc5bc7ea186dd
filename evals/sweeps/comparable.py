"""Whether two sweep folders hold the same: what has to be equal when one definition is run twice."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.io.checksums import JSON_KEY
from evals.results import comparable as comparable_run
from evals.sweeps.folder import CURVE, LOCK, REPORT, RESULT, STATE, SWEEP, TABLE, read_curve

_LEFT_OUT = (STATE, LOCK, REPORT, "mlflow.json")  # times, process ids, and what is made of the rest
_VOLATILE = (JSON_KEY, "seconds", "evaluation_seconds", "created", "versions", "git")
_SECONDS = ("train_seconds", "shared_seconds", "evaluation_seconds")


def comparable(root: str | Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of a sweep but those of executors; times are taken out."""
    root = Path(root)
    found: dict[str, str] = {}
    runs = {path.parent for path in root.glob("points/*/eval/*/*/manifest.json")}
    for run in sorted(runs):
        inner = comparable_run(run)
        found |= {f"{run.relative_to(root).as_posix()}/{name}": digest for name, digest in inner.items()}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root)
        if name.name in _LEFT_OUT or name.name.startswith(".") or "job" in name.parts[:-1]:
            continue
        if not any(run in path.parents for run in runs):
            found[name.as_posix()] = hashlib.sha256(_stable_bytes(path)).hexdigest()
    return found


def _stable_bytes(path: Path) -> bytes:
    if path.name == CURVE:
        return "\n".join(f"{row.step} {row.metrics}" for row in read_curve(path.parent)).encode()
    if path.name == TABLE:
        with open(path, newline="") as file:
            rows = [{k: v for k, v in row.items() if k not in _SECONDS} for row in csv.DictReader(file)]
        return json.dumps(rows).encode()
    if path.name in (SWEEP, RESULT):
        return json.dumps(_without_times(json.loads(path.read_bytes())), sort_keys=True).encode()
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_times(v) for k, v in value.items() if k not in _VOLATILE}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
