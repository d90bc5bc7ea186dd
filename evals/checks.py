"""What ``blip3o-eval doctor`` looks at: each check says what it found and, if bad, what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

DISTRIBUTION = "blip3o-eval"
PACKAGES = ("blip3o", "evals", "tasks", "reports")
# One file that only our package of that name has.
LANDMARKS = {
    "blip3o": "unified.py",
    "evals": "api.py",
    "tasks": "generation/geneval.py",
    "reports": "html.py",
}
ROOT = Path(__file__).resolve().parent.parent
_LITTLE_SPACE_BYTES = 500 * 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer."""

    name: str
    status: Literal["ok", "warning", "failed"]
    text: str


def python_version() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def requirements() -> Iterator[Finding]:
    """Versions of the core dependencies against the lower bounds of the distribution."""
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "requirements",
            "warning",
            f"{DISTRIBUTION} is not installed, only its source folder is on the path: pip install .",
        )
        return
    count, problems = 0, []
    for requirement in map(Requirement, texts):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement} is missing: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f"{requirement.name} {version} is here, needed is {requirement.specifier}"
            )
    for problem in problems:
        yield Finding("requirements", "failed", problem)
    if not problems:
        yield Finding("requirements", "ok", f"{count} core packages are here and new enough")


def packages() -> Iterator[Finding]:
    """The four import names must be ours and lie side by side: others publish the same names."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if place is None:
            problem = f"import {name} finds nothing: install blip3o-eval again"
        elif place.parent != ROOT:
            problem = (
                f"import {name} finds {place}, not {ROOT / name}: another distribution of that name is in "
                "the way; uninstall it, or use a fresh environment"
            )
        elif not (place / LANDMARKS[name]).is_file():
            problem = f"{place} lacks {LANDMARKS[name]}: install blip3o-eval again"
        else:
            continue
        yield Finding("packages", "failed", problem)
        return
    yield Finding("packages", "ok", f"{', '.join(PACKAGES)} side by side in {ROOT}")


def weights() -> Iterator[Finding]:
    """Bundled weights: every safetensors file whole, digests as recorded beside them."""
    root = ROOT / "blip3o" / "weights"
    for name in ("nano", "judge"):
        folder = root / name
        files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        if not files:
            yield Finding(
                "weights", "failed", f"{folder} holds no weights: install blip3o-eval again"
            )
            continue
        problems = [p for f in files if (p := safetensors_problem(f)) is not None]
        problems += recorded_digest_problems(folder)
        for problem in problems:
            yield Finding("weights", "failed", f"{problem}: install blip3o-eval again")
        if not problems:
            size = sum(f.stat().st_size for f in files) / 1e6
            yield Finding(
                "weights", "ok", f"{name}: {len(files)} files, {size:.1f} MB, digests agree"
            )


def safetensors_problem(path: Path) -> str | None:
    """Why a safetensors file is not whole, from its header and size alone; None if it is."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"{path} is cut short"
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{path} has a damaged header"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"{path} has {size} bytes instead of {expected}"


def recorded_digest_problems(folder: Path) -> Iterator[str]:
    """Compare files with the sha256 in ``digests.json`` ({file: sha256}) or ``judge.json``."""
    recorded: dict[str, str] = {}
    if (folder / "digests.json").is_file():
        recorded = json.loads((folder / "digests.json").read_text())
    elif (folder / "judge.json").is_file():
        recorded = {"judge.safetensors": json.loads((folder / "judge.json").read_text())["sha256"]}
    else:
        yield f"{folder} has no recorded digests"
    for name, digest in recorded.items():
        path = folder / name
        if not path.is_file():
            yield f"{path} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield f"{path} differs from its recorded sha256"


def licences() -> Iterator[Finding]:
    """A licence text beside every bundled data set, and ours."""
    data = ROOT / "tasks" / "data"
    # The leaderboard holds figures with their sources, no work of others.
    folders = [f for f in sorted(data.iterdir()) if f.is_dir() and f.name != "leaderboard"]
    missing = [f.name for f in folders if not list(f.glob("LICENSE*"))]
    if missing:
        yield Finding("licences", "failed", f"no licence beside the data of {', '.join(missing)}")
    else:
        yield Finding("licences", "ok", f"licence texts beside {len(folders)} bundled data sets")


def plugins() -> Iterator[Finding]:
    """Plug-ins that do not load."""
    from evals import discovery

    discovery.discover()
    count = 0
    for group, registry in discovery.GROUPS.items():
        discovery.check_plugins(registry)
        for name in registry.names(include_hidden=True):
            count += registry.origin(name) != discovery.BUILT_IN
            error = registry.error(name)
            if error is not None:
                yield Finding("plug-ins", "warning", f"{group[:-1]} {name!r} is broken: {error}")
    yield Finding("plug-ins", "ok", f"{count} found")


def disk() -> Iterator[Finding]:
    """Room and permission where runs go."""
    folder = Path("runs") if Path("runs").is_dir() else Path()
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free in {folder.resolve()}"
    if not os.access(folder, os.W_OK):
        yield Finding(
            "disk", "failed", f"{folder.resolve()} cannot be written: give --output elsewhere"
        )
    elif free < _LITTLE_SPACE_BYTES:
        yield Finding("disk", "warning", f"only {text}")
    else:
        yield Finding("disk", "ok", text)


def tracking() -> Iterator[Finding]:
    """The default MLflow database: absent is fine, half made is not."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        yield Finding("mlflow", "ok", f"MLFLOW_TRACKING_URI is set ({uri.rpartition('@')[2]})")
        return
    path = Path("runs/mlflow.db")
    if not path.exists():
        yield Finding("mlflow", "ok", f"{path} will be made by the first run")
        return
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2) as database:
            state = database.execute("PRAGMA quick_check").fetchone()[0]
            rows = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
    except sqlite3.Error as error:
        yield Finding(
            "mlflow", "warning", f"{path}: {error}; move it away and the next run makes a new one"
        )
        return
    tables = {name for (name,) in rows}
    half_made = not {"runs", "metrics", "alembic_version"} <= tables
    half_made = half_made or any(name.startswith("_alembic_tmp") for name in tables)
    if state != "ok" or half_made:
        yield Finding(
            "mlflow",
            "warning",
            f"{path} is damaged or half made; the next run sets it aside and makes a new one",
        )
    else:
        yield Finding("mlflow", "ok", str(path))


def device() -> Iterator[Finding]:
    """What "auto" will run on. Imports torch."""
    try:
        import torch
    except Exception as error:  # a broken build raises OSError, ImportError and others
        yield Finding("device", "failed", f"torch cannot be imported: {error}")
        return
    if torch.cuda.is_available():
        yield Finding("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}")
    else:
        yield Finding(
            "device", "ok", f"cpu, {torch.get_num_threads()} threads (torch {torch.__version__})"
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python_version,
    requirements,
    packages,
    weights,
    licences,
    plugins,
    disk,
    tracking,
    device,
)
