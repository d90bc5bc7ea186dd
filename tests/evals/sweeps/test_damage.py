"""Files of a finished sweep that a bad disk changed: the same command finds and makes them again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evals.errors import ConfigMismatchError
from evals.sweeps.comparable import comparable

FILES = (
    "sweep.json", "points/*seed=0/point.json", "points/*seed=0/state.json", "points/*seed=0/result.json",
    "points/*seed=0/curve.jsonl", "stages/*/stage.json", "stages/*/result.json",
)  # fmt: skip
SWEEP = {"evaluate": {"at": [1]}, "axes": {"train.objective": ["flow"]}, "seeds": [0, 1]}


@pytest.fixture(scope="module")
def whole(swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "whole"
    swept(root, **SWEEP)
    return root


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_file_is_made_again(run, whole: Path, tmp_path: Path, pattern: str, is_cut: bool) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "s"))
    damaged = sorted(root.glob(pattern))
    assert damaged
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if is_cut else data)
    assert run(root, **SWEEP).problem is None
    assert comparable(root) == comparable(whole)


def test_a_damaged_definition_does_not_let_another_sweep_in(run, whole: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "s"))
    (root / "sweep.json").write_text("{")
    with pytest.raises(ConfigMismatchError, match="sweep.json is damaged, and point objective=flow,seed=0 is not"):
        run(root, **SWEEP, train={"steps": 5})
