"""Where files lie that only the user can bring: said once, found again by later runs.

One small JSON file in the user's cache folder, name -> absolute path. A path is noted when its file has proved to be
the right one; a file that has gone is as good as never named.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from evals.io.digests import cache_file


def remembered_path(name: str) -> Path | None:
    """The file that was last right for ``name``, if it still exists."""
    path = _read().get(name)
    return Path(path) if isinstance(path, str) and os.path.isfile(path) else None


def remember_path(name: str, path: Path) -> None:
    """Note a file. Where that cannot be written, nothing is lost but the convenience."""
    known, wanted = _read(), str(path.resolve())
    if known.get(name) == wanted:
        return
    try:
        target = _file()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**known, name: wanted}, indent=1), encoding="utf-8")
        os.replace(temporary, target)
    except (OSError, RuntimeError, UnicodeError):  # RuntimeError: there is no home folder
        return


def _file() -> Path:
    return cache_file().with_name("data-paths.json")


def _read() -> dict[str, object]:
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
