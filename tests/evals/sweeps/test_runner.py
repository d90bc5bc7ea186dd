"""Sweeps from plan to folder: what runs, how often, and what is left when something goes wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from evals.errors import ConfigMismatchError, EvalError, LockedError, UsageError
from evals.io.locks import FileLock
from evals.results import load
from evals.sweeps.comparable import comparable
from evals.sweeps.finish import finish
from evals.sweeps.folder import LOCK, SweepFolder


def test_a_shared_stage_runs_once_and_is_counted_in_every_point(run, pool, tmp_path: Path) -> None:
    done = run(tmp_path / "s", evaluate={"at": [1, 0.67]})
    assert done.problem is None and len(done.done) == 2
    assert len(pool.started) == 3 and pool.started[0].startswith("understanding-")
    folder = SweepFolder(tmp_path / "s")
    for point in folder.point_ids():
        result = folder.result(point)
        assert (result.own.steps, result.shared.steps, result.total.images) == (3, 3, 48)
        assert result.is_test_double and result.parameters == 2006
        rows = folder.curve(point)
        assert [(r.step, r.total.steps, r.is_final) for r in rows] == [(1, 4, False), (2, 5, False), (3, 6, True)]
        final = load(folder.eval_folder(point, "final", "geneval"))
        assert final.results["metrics"]["overall"]["value"] == result.metrics["geneval/overall"].value
        assert rows[-1].metrics == result.metrics


def test_models_at_checkpoints_go_when_they_are_not_kept(run, tmp_path: Path) -> None:
    done = run(tmp_path / "s", evaluate={"at": [1], "keep_checkpoints": False})
    assert done.problem is None
    assert len(list(tmp_path.glob("s/stages/generation-*/export"))) == 2
    assert not list(tmp_path.glob("s/stages/*/export-step-1"))
    assert all(len(done.folder.curve(point)) == 2 for point in done.done)


def test_a_finished_sweep_is_only_read(run, pool, tmp_path: Path) -> None:
    run(tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file() and p.name != LOCK}
    pool.started.clear()
    assert len(run(tmp_path / "s").done) == 2
    assert pool.started == []
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_only_runs_what_it_names_and_the_rest_later(run, pool, tmp_path: Path) -> None:
    done = run(tmp_path / "s", {"only": ["objective=mse"]}, seeds=[0, 1])
    assert done.done == ("objective=mse,seed=0", "objective=mse,seed=1") and len(done.pending) == 2
    assert sum(name.startswith("understanding") for name in pool.started) == 2
    pool.started.clear()
    assert len(run(tmp_path / "s", seeds=[0, 1]).done) == 4
    assert sorted(pool.started) == ["objective=flow,seed=0", "objective=flow,seed=1"]


def test_a_pattern_that_fits_nothing_is_refused_with_a_suggestion(run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--only 'objective=msse' fits no point. Did you mean: objective=mse"):
        run(tmp_path / "s", {"only": ["objective=msse"]})
    assert not (tmp_path / "s").exists()


def test_a_failed_point_is_recorded_and_the_others_go_on(run, tmp_path: Path) -> None:
    settings = {"axes": {"train.fail_at": [0, 2, 3]}, "train": {"schedule": "joint"}}
    done = run(tmp_path / "s", **settings)
    assert done.done == ("fail_at=0,seed=0",)
    assert list(done.failed) == ["fail_at=2,seed=0", "fail_at=3,seed=0"]
    assert "2 of 3 points failed" in done.problem and "told to fail at step 2" in done.problem
    state = SweepFolder(tmp_path / "s").state("fail_at=2,seed=0")
    assert state.error == "RuntimeError: dummy training was told to fail at step 2" and state.attempts == 1
    run(tmp_path / "s", **settings)
    assert SweepFolder(tmp_path / "s").state("fail_at=2,seed=0").attempts == 2


def test_on_error_stop_starts_nothing_more(run, pool, tmp_path: Path) -> None:
    pool.capacity = type(pool.capacity)(cores=1)
    axes = {"train.fail_at": [0, 2, 3]}
    done = run(tmp_path / "s", axes=axes, train={"schedule": "joint"}, on_error="stop")
    assert (len(done.done), len(done.failed), len(done.pending)) == (1, 1, 1)


def test_points_of_a_failed_stage_fail_with_its_reason(run, pool, tmp_path: Path) -> None:
    settings = {"train": {"fail_at": 2, "schedule": "joint"}, "axes": {"run.limit": [6, 7]}}
    done = run(tmp_path / "s", **settings)
    assert len(pool.started) == 1 and len(done.failed) == 2
    for error in done.failed.values():
        assert error.startswith("its stage joint-") and error.endswith("told to fail at step 2")
    assert SweepFolder(tmp_path / "s").state("limit=6,seed=0").attempts == 0


def test_a_job_that_dies_without_a_word_is_started_again(run, pool, tmp_path: Path) -> None:
    train = {"exit_at": 2, "only_once": True, "schedule": "joint"}
    done = run(tmp_path / "s", train=train)
    assert done.problem is None and len(pool.started) == 4
    points = SweepFolder(tmp_path / "s").point_ids()
    assert all(SweepFolder(tmp_path / "s").state(p).attempts == 2 for p in points)


def test_a_job_that_always_dies_fails_after_three_times(run, pool, tmp_path: Path) -> None:
    done = run(tmp_path / "s", axes={"train.exit_at": [0, 2]}, train={"schedule": "joint"})
    (error,) = done.failed.values()
    assert error.startswith("lost 3 times, the last: ended with 3; see ") and len(pool.started) == 4


def test_too_many_failed_samples_fail_the_point(run, tmp_path: Path) -> None:
    done = run(
        tmp_path / "s", train=None, seeds=[0],
        axes={"run.model": ["dummy:size=16", "dummy:size=16,fail_every=2"]},
    )  # fmt: skip
    (error,) = done.failed.values()
    assert len(done.done) == 1 and "outputs failed" in error and "allowed are 1.0%" in error


def test_another_definition_in_the_folder_is_refused_with_its_keys(run, tmp_path: Path) -> None:
    run(tmp_path / "s")
    before = comparable(tmp_path / "s")
    with pytest.raises(ConfigMismatchError) as raised:
        run(tmp_path / "s", seeds=[0, 1], train={"steps": 4})
    assert "base.train.steps: recorded 3, wanted 4; seeds: recorded [0], wanted [0, 1]" in str(raised.value)
    assert comparable(tmp_path / "s") == before
    run(tmp_path / "s", on_error="stop", max_parallel=1, description="moves no number")


def test_a_folder_of_other_things_is_left_alone(run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no sweep folder .it holds 'notes.txt'"):
        run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_two_processes_never_run_one_sweep(run, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with FileLock(tmp_path / "s" / LOCK), pytest.raises(LockedError, match="works on this sweep"):
        run(tmp_path / "s")


def test_an_interrupt_leaves_the_rest_pending_and_the_command_goes_on(run, pool, tmp_path: Path) -> None:
    train = {"schedule": "joint", "seconds": 0.3}

    def interrupt() -> None:
        while not pool.jobs:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    # a process that a shell began in the background ignores this signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(EvalError, match="interrupted; the same command goes on from here"):
            run(tmp_path / "s", train=train)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    folder = SweepFolder(tmp_path / "s")
    assert {folder.state(p).status for p in folder.point_ids()} == {"pending"}
    assert all(job.poll() == "lost" for job in pool.jobs)
    pool.jobs.clear()
    assert run(tmp_path / "s", train=train).problem is None


def test_points_without_training_change_run_settings_only(run, tmp_path: Path) -> None:
    done = run(
        tmp_path / "s", train=None, run={"model": "dummy:size=16"},
        axes={"run.generation.guidance_scale": [1, 2.5]}, seeds=[1],
        evaluate={"tasks": ["geneval", {"task": "vqa_stickers", "limit": 4}]},
    )  # fmt: skip
    assert done.problem is None and not (tmp_path / "s" / "stages").exists()
    folder = SweepFolder(tmp_path / "s")
    run_1 = load(folder.eval_folder("guidance_scale=2.5,seed=1", "final", "geneval"))
    assert run_1.manifest["config"]["generation"]["guidance_scale"] == 2.5
    assert run_1.manifest["config"]["seed"] == 1 and run_1.manifest["config"]["tracking"]["enabled"] is False
    result = folder.result("guidance_scale=1,seed=1")
    assert result.total.steps == 0 and {"geneval/overall", "vqa_stickers/accuracy"} <= set(result.metrics)


def test_a_page_that_fails_costs_a_line(run, tmp_path: Path, monkeypatch, caplog) -> None:
    def broken(root: Path) -> Path:
        raise IndexError("tuple index out of range")

    logged = []
    folder = run(tmp_path / "s").folder
    monkeypatch.setattr("reports.sweep.build", broken)
    table, page = finish(folder, track=SimpleNamespace(finish=lambda: logged.append(True)))  # type: ignore[arg-type]
    assert page is None and len(table.cells) == 2 and logged == [True]
    assert (tmp_path / "s" / "table.csv").is_file() and "IndexError: tuple index out of range" in caplog.text
