"""Pictures that were paid for, kept so that no request is paid twice.

An entry belongs to the whole request: endpoint, body, sample, image index and seed. So a killed run, another
batch size, a larger ``--limit`` and ``--retry-errors`` ask for what is new only, and another ``--seed`` asks for
everything anew. A picture counts once its record is written beside it; a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.errors import StoreError
from evals.io.digests import cache_file
from evals.io.files import json_problem, write_atomically, write_json

log = logging.getLogger("evals")


def default_folder() -> Path:
    """``pictures`` in the user's cache folder."""
    return cache_file().parent / "pictures"


class Memory:
    """Pictures by request. ``folder`` None remembers nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._has_warned = False

    def check(self) -> None:
        """Raises StoreError when nothing can be written there."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".probe"
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be written ({error.strerror}), and pictures that are paid for are kept there: "
                "give another folder with model.args.cache, or model.args.cache=none to keep none"
            ) from None

    def has(self, key: str) -> bool:
        return self.folder is not None and self._place(key).with_suffix(".json").is_file()

    def find(self, key: str) -> tuple[bytes, Path, Mapping[str, Any]] | None:
        """The picture's bytes, its file and its record, or None."""
        if self.folder is None:
            return None
        path = self._place(key)
        record = path.with_suffix(".json")
        if not record.is_file() or json_problem(record) is not None:
            return None
        try:
            data = path.read_bytes()
            about = json.loads(record.read_bytes())
        except (OSError, ValueError):
            return None
        is_sound = hashlib.sha256(data).hexdigest() == about.get("sha256")
        return (data, path, about) if is_sound else None

    def keep(self, key: str, data: bytes, about: Mapping[str, Any]) -> Path | None:
        """Store a picture, then its record. A full disk costs the memory, not the picture."""
        if self.folder is None:
            return None
        path = self._place(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, is_durable=False)
            digest = hashlib.sha256(data).hexdigest()
            write_json(path.with_suffix(".json"), {**about, "sha256": digest}, is_durable=False)
        except (OSError, StoreError) as error:
            if not self._has_warned:
                log.warning("pictures that are paid for cannot be kept in %s: %s", self.folder, error)
                self._has_warned = True
            return None
        return path

    def _place(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.picture"
