"""Keepers that stay and fork their jobs: as isolated as any other job, and nothing outlives the pool."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.processes import marked
from evals.sweeps import imports
from evals.sweeps.api import Resources
from evals.sweeps.comparable import comparable
from evals.sweeps.executors import open_executor
from evals.sweeps.executors.files import log_path, read_ended, read_handle, read_order
from evals.sweeps.executors.local import LocalPool
from evals.sweeps.runner import SweepRun, open_folder, run_sweep

Wait = Callable[..., None]
# Cheap to import, and all that a job on fakes needs.
IMPORTS = ("evals.sweeps.point", "evals.runner")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def swept(plan: Any, root: Path, modules: tuple[str, ...] = IMPORTS) -> SweepRun:
    return run_sweep(
        plan, root, lambda folder: open_executor("local", folder, {"cores": 1}, 1, modules),
        max_parallel=1, is_quiet=True,
    )  # fmt: skip


def keepers_of(done: SweepRun) -> set[str]:
    handles = [read_handle(done.folder.point_folder(i)) for i in done.folder.point_ids()]
    return {handle.job_id for handle in handles if handle is not None}


def test_forked_jobs_leave_the_same_files_as_started_ones(
    planned: Callable[..., Any], tmp_path: Path
) -> None:
    plan = planned(seeds=[0, 1])
    warm, cold = swept(plan, tmp_path / "warm"), swept(plan, tmp_path / "cold", ())
    assert warm.problem is None and cold.problem is None
    assert comparable(tmp_path / "warm") == comparable(tmp_path / "cold")
    assert len(keepers_of(warm)) == 1 and len(keepers_of(cold)) == 4
    assert not any(is_alive(int(pid)) for pid in keepers_of(warm))


def test_a_point_that_crashes_takes_no_other_with_it(
    planned: Callable[..., Any], tmp_path: Path
) -> None:
    plan = planned(train={"schedule": "joint"}, axes={"train.exit_at": [2, 0]})
    done = swept(plan, tmp_path / "s")
    assert done.done == ("exit_at=0,seed=0",)
    assert "lost 3 times, the last: ended with exit code 3" in done.failed["exit_at=2,seed=0"]
    assert len(keepers_of(done)) == 1


def test_a_module_that_cannot_be_imported_is_left_to_the_job(
    planned: Callable[..., Any], tmp_path: Path
) -> None:
    done = swept(planned(seeds=[0]), tmp_path / "s", ("nowhere.at_all",))
    assert done.problem is None
    log = log_path(done.folder.point_folder(done.done[0])).read_text()
    stages = [log_path(done.folder.stage_folder(i)) for i in done.folder.stage_users()]
    assert "No module named 'nowhere'" in log + "".join(p.read_text() for p in stages if p.exists())


@pytest.fixture
def slow_point(planned: Callable[..., Any], tmp_path: Path) -> Path:
    """The folder of a point that trains for ten minutes."""
    plan = planned(train={"schedule": "joint", "seconds": 60, "steps": 10}, axes={"train.objective": ["flow"]})
    (tmp_path / "s").mkdir()
    return open_folder(plan, tmp_path / "s").point_folder(plan.points[0].id)


def begun(folder: Path, wait_until: Wait) -> tuple[str, list[int]]:
    """The token of a point's job, and its processes."""
    token = read_order(folder).token
    wait_until(lambda: marked(token))
    return token, marked(token)


def test_a_forked_job_carries_its_token_and_is_cancelled(slow_point: Path, wait_until: Wait) -> None:
    with open_executor("local", Path(), {"grace_s": 0.2}, None, IMPORTS) as pool:
        job = pool.submit(slow_point, Resources(1))
        keeper = int(read_handle(slow_point).job_id)  # type: ignore[union-attr]
        token, pids = begun(slow_point, wait_until)
        assert len(pids) == 1 and pids != [keeper]
        job.cancel()
        assert (job.poll(), job.reason) == ("lost", "cancelled")
        assert marked(token) == [] and is_alive(keeper)
    assert not is_alive(keeper)


def test_a_killed_keeper_takes_its_job_along_and_gets_a_successor(
    slow_point: Path, wait_until: Wait
) -> None:
    with LocalPool(open_settings(), None, IMPORTS) as pool:
        job = pool.submit(slow_point, pool.per_job)
        _, pids = begun(slow_point, wait_until)
        os.kill(job.pid, signal.SIGKILL)
        wait_until(lambda: job.poll() != "running")
        assert (job.poll(), job.reason) == ("lost", "ended by SIGKILL (out of memory?)")
        wait_until(lambda: not any(map(is_alive, pids)))
        assert pool.submit(slow_point, pool.per_job).pid != job.pid


def open_settings() -> Any:
    from evals.sweeps.executors.settings import LocalSettings

    return LocalSettings(grace_s=0.2)


@pytest.mark.parametrize("moment", ["import", "job"])
def test_kill_9_of_the_scheduler_leaves_nothing(
    slow_point: Path, moment: str, wait_until: Wait, tmp_path: Path
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(600)")
    modules = ("slow_to_import",) if moment == "import" else IMPORTS
    code = f"""
        import time
        from pathlib import Path
        from evals.sweeps.api import Resources
        from evals.sweeps.executors import open_executor
        with open_executor("local", Path(), {{"grace_s": 0.2}}, None, {modules!r}) as pool:
            print(pool.submit(Path({str(slow_point)!r}), Resources(1)).pid, flush=True)
            time.sleep(600)
    """
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        token, pids = read_order(slow_point).token, []
        if moment == "job":
            token, pids = begun(slow_point, wait_until)
        parent.kill()
    wait_until(lambda: not any(map(is_alive, [*pids, keeper])))
    assert marked(token) == []
    if moment == "job":
        ended = read_ended(slow_point, token)
        assert ended is not None and ended.stopped == "ended with the process that had started it"


def test_what_is_imported_ahead_is_there_and_follows_from_the_models(planned: Callable[..., Any]) -> None:
    for name in {*imports.HARNESS, *imports.BLIP3O, *imports.TRAINING, *imports.DIFFUSERS}:
        top, *rest = name.split(".")
        found = importlib.util.find_spec(top)  # which imports nothing
        assert found is not None and found.submodule_search_locations is not None, name
        path = Path(found.submodule_search_locations[0], *rest)
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
    assert imports.imports_of(planned()) == ()  # fakes need no torch
    nano = planned(train=None, run={"model": "nano"}, axes={"run.generation.guidance_scale": [1, 2]})
    assert imports.imports_of(nano) == (*imports.BLIP3O, *imports.HARNESS)
