"""The entry that each start of a run leaves in its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from evals import provenance
from evals.store import RunStore

log = logging.getLogger("evals")


class Session:
    """This process's entry under ``sessions``; shards add theirs at the same time."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.data: dict[str, Any] = {}

    def start(self, shard: tuple[int, int]) -> None:
        """Add a session to the manifest. Warns if the run was begun with other versions."""
        self.data = {
            "number": len(self._store.manifest["sessions"]),
            "started": provenance.now(),
            "shard": "{}/{}".format(*shard),
            "versions": provenance.versions(),
        }
        first = self._store.manifest["versions"]
        changed = [
            f"{k} {first.get(k)} -> {v}"
            for k, v in self.data["versions"].items()
            if v != first.get(k)
        ]
        if changed:
            log.warning(
                "%s was begun with other versions: %s", self._store.root, ", ".join(changed)
            )

        def change(manifest: dict[str, Any]) -> None:
            self.data["number"] = len(manifest["sessions"])
            manifest["sessions"].append(self.data)
            manifest["status"] = "running"

        self._store.update_manifest(change)

    def note(self, **values: Any) -> None:
        """Keep values in this session's entry."""
        self.data.update(values)

        def change(manifest: dict[str, Any]) -> None:
            manifest["sessions"][self.data["number"]] = self.data

        self._store.update_manifest(change)


def timing(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``timing`` of ``results.json``: seconds per phase over all sessions."""
    generate_s = sum(s.get("generate_s", 0.0) for s in sessions)
    score_s = sum(s.get("score_s", 0.0) for s in sessions)
    generated = sum(s.get("generated", 0) for s in sessions)
    return {
        "sessions": len(sessions),
        "generate_s": round(generate_s, 2),
        "score_s": round(score_s, 2),
        "outputs_per_s": round(generated / generate_s, 3) if generate_s else None,
    }
