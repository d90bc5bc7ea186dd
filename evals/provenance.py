"""Where and with what a run was made: versions, git state, platform."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "blip3o-eval",
    "torch",
    "torchvision",
    "transformers",
    "diffusers",
    "open_clip_torch",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
)


@lru_cache  # once a process: reading the metadata of ten packages takes a while
def versions() -> dict[str, str | None]:
    """Python and the packages whose version can move a number; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@lru_cache
def git_state() -> dict[str, Any] | None:
    """Commit and whether tracked files were changed, when the package runs from its repository."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "is_dirty": bool(status)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def platform_info() -> dict[str, str]:
    """Operating system and processor; no host or user names."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": sys.implementation.name,
    }


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
