"""A disk that fills up in the middle of a sweep: everything is kept, the line says what to do, the command goes on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from evals.errors import LockedError, StoreError
from evals.io.locks import FileLock
from evals.sweeps.comparable import comparable
from evals.sweeps.folder import State, SweepFolder, read_state, write_state

_spec = importlib.util.spec_from_file_location("_faults", Path(__file__).parents[1] / "faults" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_faults)
small_disk = _faults.small_disk

TRAIN = {"bytes": 60_000}  # an export; the sweep needs some 500 kB


@pytest.fixture(scope="module")
def whole(swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "whole"
    swept(root, train=TRAIN)
    return root


@pytest.mark.parametrize("size", ["60k", "150k", "260k"])
def test_a_full_disk_stops_the_sweep_and_keeps_everything(run, pool, whole: Path, small_disk, size: str) -> None:
    disk = small_disk(f"size={size}")
    with pytest.raises(StoreError, match="no space left on the device.*same command again") as raised:
        run(disk / "s", train=TRAIN)
    assert "\n" not in str(raised.value)
    pool.jobs.clear()
    small_disk("size=64m", disk)
    assert run(disk / "s", train=TRAIN).problem is None
    assert comparable(disk / "s") == comparable(whole)


def test_a_state_is_written_even_on_a_full_disk(small_disk) -> None:
    disk = small_disk("size=16k")
    write_state(disk, State("running", 1))
    (disk / "filler").write_bytes(b"\0" * 4096)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(b"\0" * 16384)
    write_state(disk, State("failed", 1, "no space left on the device", is_fatal=True))
    assert read_state(disk).is_fatal and SweepFolder(disk).root == disk


def test_a_lock_is_held_on_a_full_disk_too(small_disk) -> None:
    disk = small_disk("size=16k")
    (disk / "lock").touch()
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(b"\0" * 32768)
    with FileLock(disk / "lock").acquire():
        assert (disk / "lock").read_bytes() == b""  # there was no room for the holder's name
        with pytest.raises(LockedError, match="another process .unknown. works on this sweep"):
            FileLock(disk / "lock").acquire(what="sweep")
