"""The pool on this machine: what it hands out, how jobs end, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.errors import ConfigError, UnknownNameError
from evals.processes import marked
from evals.sweeps.api import Resources
from evals.sweeps.executors import machine, open_executor
from evals.sweeps.executors.base import ExecutorError
from evals.sweeps.executors.files import read_ended, read_order

Maker = Callable[..., Path]
Wait = Callable[..., None]
Finish = Callable[..., str]

ONE = Resources(1)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_status_is_the_jobs_own_word_else_lost_with_the_reason(
    job_folder: Maker, finish: Finish
) -> None:
    codes = {
        "done": "end('done'); print('hello from the job')",
        "failed": "end('failed', 'no weights'); sys.exit(1)",
        "crashed": "sys.exit(3)",
        "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    }
    with open_executor("local", Path(), {"total_cores": 4}) as pool:
        jobs = {n: pool.submit(job_folder(n, code), ONE) for n, code in codes.items()}
        found = {n: (finish(job), job.reason) for n, job in jobs.items()}
    assert found == {
        "done": ("done", None),
        "failed": ("failed", None),
        "crashed": ("lost", "ended with exit code 3"),
        "killed": ("lost", "ended by SIGKILL (out of memory?)"),
    }
    log = jobs["done"].log
    assert log is not None and "hello from the job" in log.read_text()


def test_jobs_share_cores_and_gpus_and_see_only_their_own(
    job_folder: Maker, monkeypatch: pytest.MonkeyPatch, finish: Finish
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = """
        say("env", os.environ["CUDA_VISIBLE_DEVICES"] + " " + os.environ["OMP_NUM_THREADS"])
        while not (folder / "go").exists(): time.sleep(0.01)
        end("done")
    """
    folders = [job_folder(n, code) for n in "abc"]
    with open_executor("local", Path(), {"total_cores": 4, "gpus": 1, "cores": 2}) as pool:
        assert pool.per_job == Resources(2, 1)
        first = pool.submit(folders[0], pool.per_job)
        second = pool.submit(folders[1], pool.per_job)
        assert not pool.has_room(pool.per_job)  # a GPU is left, no core
        with pytest.raises(ExecutorError, match="no room for c"):
            pool.submit(folders[2], pool.per_job)
        (folders[0] / "go").touch()
        assert finish(first) == "done"
        third = pool.submit(folders[2], pool.per_job)
        for folder in folders[1:]:
            (folder / "go").touch()
        assert (finish(second), finish(third)) == ("done", "done")
    assert [(f / "env").read_text() for f in folders] == ["3 2", "5 2", "3 2"]


def test_defaults_divide_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "gpus", lambda: ())
    assert open_executor("local", Path(), max_parallel=4).per_job == Resources(4, 0)
    assert open_executor("local", Path()).per_job == Resources(16, 0)
    monkeypatch.setattr(machine, "gpus", lambda: tuple("01234567"))
    assert open_executor("local", Path()).per_job == Resources(2, 1)
    assert open_executor("local", Path(), {"gpus": 2}).per_job == Resources(4, 2)


def test_own_thread_limit_stays_when_it_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "64")
    found = machine.thread_variables(4)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("1", "4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"core": 2}, "unknown setting 'core' of executor 'local'. Did you mean: cores"),
        ({"cores": 0}, "executor.cores = 0 is not allowed: .* greater than or equal to 1"),
        ({"cores": True}, "executor.cores = True is not allowed"),
        ({"partition": "gpu"}, "unknown setting 'partition' of executor 'local'"),
        ({"total_cores": 2, "cores": 3}, "a job asks for 3 cores, the pool has 2"),
        ({"total_gpus": 64}, "executor.total_gpus = 64, this machine shows"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_executor("local", Path(), settings)


def test_unknown_executor_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="Unknown executor 'slrum'. Did you mean: slurm"):
        open_executor("slrum", Path())


# A job with a child, and one that left its session, as a daemon does. It ignores SIGTERM.
FAMILY = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    child = subprocess.Popen(sleep)
    daemon = subprocess.Popen(sleep, start_new_session=True)
    say("pids", f"{os.getpid()} {child.pid} {daemon.pid}")
    time.sleep(600)
"""


def pids_of(folder: Path, wait_until: Wait) -> list[int]:
    wait_until((folder / "pids").exists)
    return [int(p) for p in (folder / "pids").read_text().split()]


def test_cancel_ends_a_job_with_all_that_it_started(job_folder: Maker, wait_until: Wait) -> None:
    folder = job_folder("family", FAMILY)
    with open_executor("local", Path(), {"grace_s": 0.2}) as pool:
        job = pool.submit(folder, ONE)
        pids = pids_of(folder, wait_until)
        job.cancel()
        assert (job.poll(), job.reason) == ("lost", "cancelled")
        assert not any(map(is_alive, pids))
        assert pool.has_room(ONE)


def test_sigterm_lets_a_job_clear_up(job_folder: Maker, wait_until: Wait) -> None:
    code = """
        def stop(*_): end("failed", "stopped in time"); sys.exit(1)
        signal.signal(signal.SIGTERM, stop); say("ready"); time.sleep(600)
    """
    folder = job_folder("polite", code)
    with open_executor("local", Path()) as pool:
        job = pool.submit(folder, ONE)
        wait_until((folder / "ready").exists)
    assert job.poll() == "failed"  # the end of the pool was its end


def test_a_job_that_leaves_children_behind_is_cleared_up(
    job_folder: Maker, finish: Finish, wait_until: Wait
) -> None:
    code = FAMILY.replace("time.sleep(600)\n", "end('done')\n")
    folder = job_folder("careless", code)
    with open_executor("local", Path()) as pool:
        assert finish(pool.submit(folder, ONE)) == "done"
    assert not any(map(is_alive, pids_of(folder, wait_until)))


@pytest.mark.parametrize("victim", ["parent", "keeper", "both"])
def test_kill_9_of_parent_or_keeper_leaves_nothing(
    job_folder: Maker, victim: str, wait_until: Wait
) -> None:
    folder = job_folder("family", FAMILY)
    code = f"""
        import sys, time
        from pathlib import Path
        from evals.sweeps.api import Resources
        from evals.sweeps.executors import files, open_executor
        files.command_of = lambda folder: [sys.executable, str(folder / "code.py"), str(folder)]
        with open_executor("local", Path(), {{"grace_s": 0.2}}) as pool:
            job = pool.submit(Path({str(folder)!r}), Resources(1))
            print(job.pid, flush=True)
            while job.poll() == "running": time.sleep(0.02)
            print(job.poll(), job.reason, flush=True)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    keeper = int(parent.stdout.readline())
    pids = pids_of(folder, wait_until)
    token = read_order(folder).token
    if victim in ("parent", "both"):
        parent.kill()
    if victim in ("keeper", "both"):
        os.kill(keeper, signal.SIGKILL)
    if victim == "keeper":
        assert parent.stdout.readline() == "lost ended by SIGKILL (out of memory?)\n"
    parent.wait(60)
    parent.stdout.close()
    if (
        victim == "both"
    ):  # nobody is left who could have cleared up; the next run does before it starts the job
        wait_until(lambda: not is_alive(pids[0]))
        with open_executor("local", Path()) as pool:
            pool.attach(folder)
    wait_until(lambda: not any(map(is_alive, [*pids, keeper])))
    assert marked(token) == []
    if victim == "parent":
        ended = read_ended(folder, token)
        assert ended is not None and ended.stopped == "ended with the process that had started it"


def test_a_command_that_cannot_start_is_lost_with_the_reason(
    job_folder: Maker, monkeypatch: pytest.MonkeyPatch, finish: Finish
) -> None:
    from evals.sweeps.executors import files

    folder = job_folder("x", "")
    monkeypatch.setattr(files, "command_of", lambda folder: ["/nowhere/python"])
    with open_executor("local", Path()) as pool:
        job = pool.submit(folder, ONE)
        assert finish(job) == "lost"
    assert job.reason is not None and job.reason.startswith("cannot be started: ")


def test_a_job_is_no_shard_of_its_parents_launcher(
    job_folder: Maker, monkeypatch: pytest.MonkeyPatch, finish: Finish
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    folder = job_folder("x", "end('failed' if 'RANK' in os.environ else 'done')")
    with open_executor("local", Path()) as pool:
        assert finish(pool.submit(folder, ONE)) == "done"
