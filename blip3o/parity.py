"""Replays recorded tensors of the upstream modules and prints the differences.

A recorded file is a safetensors file whose metadata names its ``kind`` and ``config``; ``in.`` and ``rng.``
tensors are inputs, ``w.`` weights, every other tensor is compared. What cannot be replayed is a failure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip3o.errors import Blip3oError, DataError

TOLERANCE = 1e-5
INPUT_PREFIXES = ("in.", "rng.", "w.", "w_rows.", "trunc.in.")


@dataclass(frozen=True)
class Recording:
    """One recorded file: its tensors and what its metadata says."""

    path: Path
    kind: str
    config: dict[str, Any]
    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Raises: DataError naming the file."""
        if not path.is_file():
            raise DataError(f"{path} does not exist")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is not a safetensors file ({error})") from None
        if "kind" not in metadata:
            raise DataError(f"{path} has no 'kind' in its metadata")
        try:
            config = json.loads(metadata.get("config", "{}"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: metadata 'config' is not JSON ({error})") from None
        return cls(path, metadata["kind"], config, metadata, tensors)

    def beside(self, name: str) -> Recording | None:
        """The file that the metadata names under ``name`` (weights, batch, target), in the same folder."""
        if name not in self.metadata:
            return None
        return Recording.read(self.path.parent / Path(self.metadata[name]).name)

    def weights(self) -> dict[str, Tensor]:
        """Parameters under their upstream names: those of the weights file, then the file's own."""
        other = self.beside("weights")
        sources = [*([other.tensors] if other else []), self.tensors]
        return {
            key: value
            for tensors in sources
            for key, value in tensors.items()
            if key.startswith(("w.", "w_rows."))
        }

    def recorded(self) -> dict[str, Tensor]:
        """The tensors that have to be reproduced."""
        return {k: v for k, v in self.tensors.items() if not k.startswith(INPUT_PREFIXES)}


@dataclass
class FileReport:
    """Outcome of one file: ``differences`` by key, ``failures`` with their reason."""

    path: Path
    kind: str
    differences: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float]:
        """Key and value of the largest difference; ("-", 0.0) where nothing was compared."""
        if not self.differences:
            return "-", 0.0
        key = max(self.differences, key=lambda k: self.differences[k])
        return key, self.differences[key]

    def line(self) -> str:
        if self.kind == "weights":
            return f"{self.path.name}: weights, read by the files that name it"
        key, value = self.worst
        text = f"{self.path.name}: {self.kind}, {len(self.differences)} tensors, max {value:.3g} at {key}"
        if self.failures:
            first = next(iter(self.failures))
            text += f", {len(self.failures)} FAILED: {first} ({self.failures[first]})"
        return text


# A replay gets the recording and returns what it computed, by recorded key.
Replay = Callable[[Recording], Mapping[str, Tensor]]


def replay_file(path: Path) -> FileReport:
    """Replay one file and compare every recorded tensor. Faults of the file become failures of the report."""
    from blip3o import replay

    try:
        recording = Recording.read(path)
    except DataError as error:
        return FileReport(path, "unreadable", failures={"file": str(error)})
    report = FileReport(path, recording.kind)
    if recording.kind == "weights":
        return report
    function = replay.REPLAYS.get(recording.kind)
    if function is None:
        known = ", ".join([*replay.REPLAYS, "weights"])
        report.failures["kind"] = f"{recording.kind!r} is unknown; known: {known}"
        return report
    try:
        computed: Mapping[str, Tensor] = function(recording)
    except (Blip3oError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (
            f"no tensor {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        )
        report.failures["replay"] = f"{type(error).__name__}: {reason}"
        return report
    for key, expected in sorted(recording.recorded().items()):
        compare(report, key, expected, computed.get(key))
    if not report.differences and not report.failures:
        report.failures["file"] = "holds nothing to compare"
    return report


def compare(report: FileReport, key: str, expected: Tensor, found: Tensor | None) -> None:
    """Enter one comparison: integers must be equal, floats within the tolerance."""
    if found is None:
        report.failures[key] = "cannot be replayed"
        return
    found = found.detach()
    if found.numel() == expected.numel() == 1:
        found = found.reshape(expected.shape)
    if found.shape != expected.shape:
        report.failures[key] = f"shape {tuple(found.shape)}, recorded {tuple(expected.shape)}"
        return
    if expected.dtype.is_floating_point != found.dtype.is_floating_point:
        report.failures[key] = f"dtype {found.dtype}, recorded {expected.dtype}"
        return
    difference = (found.double() - expected.double()).abs()
    # Equal infinities differ by nan; only what is not finite on one side alone is a difference.
    difference = torch.where(found.double() == expected.double(), 0.0, difference)
    worst = float(difference.max()) if difference.numel() else 0.0
    report.differences[key] = worst if worst == worst else float("inf")
    limit = TOLERANCE if expected.dtype.is_floating_point else 0
    if not worst <= limit:
        report.failures[key] = f"differs by {worst:.3g}, allowed {limit:g}"


def summary(reports: list[FileReport]) -> str:
    """``N tensors compared, max D, at FILE:KEY``."""
    compared = sum(len(report.differences) for report in reports)
    if not compared:
        return "0 tensors compared, max 0, at -"
    worst = max((r for r in reports if r.differences), key=lambda report: report.worst[1])
    key, value = worst.worst
    return f"{compared} tensors compared, max {value:.3g}, at {worst.path.name}:{key}"
