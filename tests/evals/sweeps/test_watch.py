"""Progress of a sweep: a line per job that ended, and a time left that follows from the work that is done."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from evals.sweeps.folder import SweepFolder
from evals.sweeps.watch import Watch


def test_the_time_left_follows_the_work_and_runs_down_between_two_ends(
    planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [100.0]
    monkeypatch.setattr("evals.sweeps.watch.time.monotonic", lambda: clock[0])
    made, stream = planned(train={"schedule": "joint"}, seeds=[0, 1]), io.StringIO()
    ids = [point.id for point in made.points]
    with Watch(made, SweepFolder(tmp_path), ids, stream=stream) as watch:
        clock[0] += 60
        watch.ended(ids[0], True, None)  # a quarter of the work in a minute: three more to come
        clock[0] += 40
        watch.tick({ids[1]: None})
        watch.ended(ids[1], True, "it broke")
        clock[0] += 300
        watch.tick({ids[2]: None})
    assert stream.getvalue().splitlines() == [
        "sweep trial: 4 points",
        f"[1/4] {ids[0]}: done in 0s, about 3m00s left",
        f"sweep trial: 1/4, about 2m20s left; {ids[1]} (starts)",
        f"[2/4] {ids[1]}: failed: it broke",
        f"sweep trial: 2/4, 1 failed, longer than it seemed; {ids[2]} (starts)",
    ]


def test_a_quiet_watch_says_nothing(planned, tmp_path: Path) -> None:
    made, stream = planned(), io.StringIO()
    with Watch(made, SweepFolder(tmp_path), [made.points[0].id], is_quiet=True, stream=stream) as watch:
        watch.ended(made.points[0].id, True, None)
    assert stream.getvalue() == ""


def test_a_log_says_nothing_twice_while_nothing_moves(planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [100.0]
    monkeypatch.setattr("evals.sweeps.watch.time.monotonic", lambda: clock[0])
    made, stream = planned(), io.StringIO()
    first = made.points[0].id
    with Watch(replace(made, notes=("mind the step",)), SweepFolder(tmp_path), [first], stream=stream) as watch:
        for _ in range(3):
            clock[0] += 60
            watch.tick({first: None})
    assert stream.getvalue().splitlines() == [
        "sweep trial: 1 points", "note: mind the step", f"sweep trial: 0/1; {first} (starts)",
    ]  # fmt: skip
