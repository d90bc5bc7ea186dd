"""Disks that are full, out of inodes or read-only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evals.errors import StoreError
from evals.results import comparable, load

NEEDED_KB = 330  # of the run in question, without report


def check_full_then_finished(
    evaluate, small_disk, whole: Path, options: str, **settings
) -> str | None:
    """The run on a disk of these options; where it stopped, if it did. Then with room enough."""
    disk = small_disk(options)
    root, stopped = disk / "run", None
    try:
        evaluate(root, **settings)
    except StoreError as error:
        assert "no space left on the device" in str(error)
        assert "run the same command again; everything written so far is kept" in str(error)
        names = {p.name for p in root.iterdir()} if root.exists() else set()
        stopped = next(
            (n for n in ("results.json", "scores.jsonl", "outputs.jsonl") if n in names), "start"
        )
    small_disk("size=64m,nr_inodes=10000", disk)
    assert evaluate(root, **settings).problem is None
    assert comparable(root) == comparable(whole)
    if settings.get("report"):
        assert (root / "report.html").stat().st_size > 1000
    return stopped


@pytest.mark.parametrize("options", ["size=12k", "size=120k", "size=200k", "size=64m,nr_inodes=40"])
def test_a_full_disk_keeps_everything_and_says_what_to_do(
    evaluate, small_disk, whole: Path, options: str
) -> None:
    assert check_full_then_finished(evaluate, small_disk, whole, options) is not None


@pytest.mark.slow
def test_a_disk_that_fills_in_every_phase_and_in_the_report(
    evaluate, small_disk, whole: Path
) -> None:
    import collections

    stopped: collections.Counter = collections.Counter()
    for size_kb in range(8, 560, 8):
        where = check_full_then_finished(
            evaluate, small_disk, whole, f"size={size_kb}k", report=True
        )
        stopped[where] += 1
    print(f"\nstopped while {dict(stopped)} existed; every run equal afterwards")
    assert {"start", "outputs.jsonl", "scores.jsonl", "results.json"} <= set(stopped)


@pytest.mark.slow
def test_a_disk_full_in_mlflow_does_not_fail_the_run(evaluate, small_disk, whole: Path) -> None:
    disk = small_disk("size=900k")
    tracked = {"tracking__enabled": True, "tracking__tracking_uri": f"sqlite:///{disk}/mlflow.db"}
    made = evaluate(disk / "run", **tracked)
    assert made.problem is None and comparable(disk / "run") == comparable(whole)
    assert "error" in made.manifest["mlflow"]
    small_disk("size=64m", disk)
    assert "error" not in evaluate(disk / "run", **tracked).manifest["mlflow"]


def test_a_disk_that_became_read_only(
    evaluate, small_disk, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk("size=64m")
    shutil.copytree(whole, disk / "finished")
    evaluate(disk / "begun", shard=(0, 2))
    small_disk("ro", disk)
    for name in ("begun", "new"):
        with pytest.raises(StoreError, match="cannot be written .*--output"):
            evaluate(disk / name)
    shown = evaluate(disk / "finished")
    assert shown.results == load(whole).results and "cannot be written" in caplog.text
    small_disk("rw,size=64m", disk)
    assert evaluate(disk / "begun").problem is None
    assert comparable(disk / "begun") == comparable(whole)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else(evaluate, in_child, tmp_path: Path, capfd) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)

    def run() -> None:
        os.setuid(65534)
        evaluate(tmp_path / "theirs" / "run")

    code = os.waitstatus_to_exitcode(os.waitpid(in_child(run), 0)[1])
    assert code == 1
    assert "theirs/run cannot be written (Permission denied)" in capfd.readouterr().err
