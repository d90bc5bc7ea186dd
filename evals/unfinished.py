"""Which shards of a run are not done, and the command that finishes each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.config import RunConfig
from evals.io.jsonl import Scan
from evals.phases.plan import Plan

_SHARD_FILE = re.compile(r"outputs\.(\d+)-of-(\d+)\.jsonl")
_NAMED = 8  # shards that are listed one by one
_FLAGS = (
    "model", "judge", "limit", "num_images", "seed", "seed_mode", "batch_size", "max_errors",
)  # fmt: skip


def explain(root: Path, plan: Plan, outputs: Scan, manifest: Mapping[str, Any]) -> str:
    """What is missing, which shards it belongs to, and their commands; one line per shard."""
    missing = len(plan) - outputs.num_done
    sample, index = plan.place(next(p for p in range(len(plan)) if not outputs.has(p)))
    text = f"{root}: {missing} of {len(plan)} outputs are missing, the first is {sample.id}, picture {index}; "
    count = _number_of_shards(outputs, manifest)
    if count == 1:
        return text + f"finish the run with: {command_of(manifest['config'], root)}"
    lines = []
    for shard in range(count):
        positions = [p for b in plan.batches((shard, count)) for p in b.positions]
        gone = sum(not outputs.has(p) for p in positions)
        if gone:
            command = command_of(manifest["config"], root, (shard, count))
            state = _state(root, outputs, (shard, count))
            lines.append(
                f"  shard {shard}/{count}, {state}, lacks {gone} of {len(positions)}: {command}"
            )
    more = f"\n  and {len(lines) - _NAMED} more shards" if len(lines) > _NAMED else ""
    return text + "finish these shards:\n" + "\n".join(lines[:_NAMED]) + more


def _number_of_shards(outputs: Scan, manifest: Mapping[str, Any]) -> int:
    """That of the last session; before any session, that of the files."""
    for session in reversed(manifest["sessions"]):
        return int(session["shard"].partition("/")[2])
    counts = [int(m[2]) for path in outputs.files if (m := _SHARD_FILE.fullmatch(path.name))]
    return max(counts, default=1)


def _state(root: Path, outputs: Scan, shard: tuple[int, int]) -> str:
    path = root / "outputs.{}-of-{}.jsonl".format(*shard)
    if path not in outputs.files:
        return f"without a file {path.name}"
    places = [d for d in outputs.damaged if d.startswith(f"{path.name}:")]
    if places:
        return f"damaged at {places[0]}"
    with open(path, "rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(size - 1, 0))
        is_torn = size > 0 and file.read() != b"\n"
    return "torn at its end" if is_torn else "unfinished"


def command_of(config: Mapping[str, Any], root: Path, shard: Sequence[int] = (0, 1)) -> str:
    """The ``blip3o-eval run`` command of a recorded configuration; settings at their default left out."""
    words = ["blip3o-eval", "run", "--task", config["task"]]
    default = RunConfig(task=config["task"]).model_dump(mode="json")
    for key, value in _changed(config, default):
        flag = key.removesuffix(".name")
        if flag in _FLAGS:
            words += ["--" + flag.replace("_", "-"), str(value)]
        else:
            words += ["--set", f"{key}={json.dumps(value)}"]
    words += ["--output", str(root)]
    if shard[1] > 1:
        words += ["--shard", "{}/{}".format(*shard)]
    return shlex.join(words)


def _changed(
    config: Mapping[str, Any], default: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted keys whose value is not the default's; empty mappings among the defaults are values."""
    for key, value in config.items():
        usual = default.get(key)
        if isinstance(value, Mapping) and isinstance(usual, Mapping) and usual:
            yield from _changed(value, usual, f"{prefix}{key}.")
        elif value != usual and value is not None:
            yield f"{prefix}{key}", value
