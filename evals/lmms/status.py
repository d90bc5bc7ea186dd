"""Which of lmms-eval's tasks load in this environment, remembered until a package changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from evals.io.files import write_json
from evals.lmms import catalog, loading, package

_SUPPORTED = (
    "generate_until",
    "multiple_choice",
    "loglikelihood",
    "generate_until_multi_round",
    "generate_until_agentic",
)


def check(names: Iterable[str]) -> dict[str, str | None]:
    """Name -> why it does not load, or None; what is remembered is not tried again.

    A group or tag is what its YAML says; its members are listed by themselves.
    """
    known = remembered()
    for name in names:
        if name not in known:
            entry = catalog.find(name)
            known[name] = (
                f"{entry.output_type} is not supported" if entry.output_type not in _SUPPORTED else loading.check(name)
            )
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"tasks": known})
    return known


def remembered() -> dict[str, str | None]:
    """What was found out before, in this environment with these packages and keys."""
    try:
        return dict(json.loads(_path().read_text(encoding="utf-8"))["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def by_folder(known: Mapping[str, str | None]) -> dict[str, str | None]:
    """Folder of YAML files -> None if all its tasks load, else the first reason."""
    found: dict[str, str | None] = {}
    for name, entry in catalog.entries().items():
        if entry.path and name in known:
            found[entry.folder] = found.get(entry.folder) or known[name]
    return found


def _path() -> Path:
    """A file named after everything that decides: packages, and which keys of judges are set."""
    installed = sorted(f"{d.name} {d.version}" for d in metadata.distributions())
    keys = sorted(k for k in os.environ if k.endswith(("_API_KEY", "_API", "_ENDPOINT")))
    digest = hashlib.sha256(json.dumps([installed, keys]).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blip3o-eval"
    return root / f"lmms-{package.version()}-{digest}.json"
