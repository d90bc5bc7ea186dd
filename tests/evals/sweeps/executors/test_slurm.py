"""SLURM through submitit: with submitit's own processes on this machine, and with stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.errors import ConfigError, MissingRequirementError
from evals.processes import marked
from evals.sweeps.executors import open_executor, slurm
from evals.sweeps.executors.base import ExecutorError
from evals.sweeps.executors.files import read_alive, read_order
from evals.sweeps.executors.settings import SlurmSettings

Maker = Callable[..., Path]
Wait = Callable[..., None]
Finish = Callable[..., str]

pytest.importorskip("submitit")
LOCAL = {"cluster": "local", "cores": 1, "grace_s": 0.5}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "ASK_EVERY_S", 0.1)
    monkeypatch.setattr(slurm, "SETTLE_S", 0.5)


WAITING = """
    say("started", os.getpid())
    while not (folder / "go").exists(): time.sleep(0.02)
    say("threads", os.environ["OMP_NUM_THREADS"])
    end("done")
"""


def test_submitits_own_processes_run_the_same_jobs(
    tmp_path: Path, job_folder: Maker, finish: Finish
) -> None:
    codes = {
        "done": "end('done'); print('hello')",
        "failed": "end('failed', 'no weights'); sys.exit(1)",
        "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    }
    folders = [job_folder(name, code) for name, code in codes.items()]
    with open_executor("slurm", tmp_path, LOCAL) as queue:
        jobs = queue.submit_all(folders, queue.per_job)
        found = [(finish(job), job.reason) for job in jobs]
    assert found == [
        ("done", None),
        ("failed", None),
        ("lost", "ended by SIGKILL (out of memory?)"),
    ]
    assert jobs[0].log is not None and "hello" in jobs[0].log.read_text()


def submitit_process(folder: Path) -> int:
    """Of a running job: the job's parent is the keeper, and whose child that is."""
    alive = read_alive(folder, read_order(folder).token)
    assert alive is not None
    pid = alive.pid
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_lost_and_goes_on_in_the_next_run(
    tmp_path: Path, job_folder: Maker, finish: Finish, wait_until: Wait
) -> None:
    folder = job_folder("x", WAITING)
    with open_executor("slurm", tmp_path, {**LOCAL, "time": 1}) as queue:
        job = queue.submit(folder, queue.per_job)
        wait_until(
            lambda: (folder / "started").exists() and read_alive(folder, read_order(folder).token)
        )
        os.kill(submitit_process(folder), signal.SIGUSR2)  # as SLURM does before the limit
        assert finish(job) == "lost"
        assert job.reason == "ended at its time limit; started again, it goes on from there"
        assert queue.attach(folder) is None
        (folder / "go").touch()
        assert finish(queue.submit(folder, queue.per_job)) == "done"


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on_by_itself(
    tmp_path: Path, job_folder: Maker, finish: Finish, wait_until: Wait
) -> None:
    folder = job_folder("x", WAITING)
    with open_executor("slurm", tmp_path, LOCAL) as queue:  # far from its limit of a day
        job = queue.submit(folder, queue.per_job)
        wait_until(
            lambda: (folder / "started").exists() and read_alive(folder, read_order(folder).token)
        )
        first = (folder / "started").read_text()
        os.kill(submitit_process(folder), signal.SIGUSR2)
        wait_until(lambda: (folder / "started").read_text() != first)
        assert job.poll() == "running"
        (folder / "go").touch()
        assert finish(job) == "done"


@pytest.mark.slow
def test_jobs_outlive_the_process_that_handed_them_over_and_are_found_again(
    tmp_path: Path, job_folder: Maker, finish: Finish, wait_until: Wait
) -> None:
    folder, other = job_folder("x", WAITING), job_folder("y", WAITING)
    code = f"""
        import os, sys
        from pathlib import Path
        from evals.sweeps.executors import files, open_executor
        files.command_of = lambda folder: [sys.executable, str(folder / "code.py"), str(folder)]
        queue = open_executor("slurm", Path({str(tmp_path)!r}), {LOCAL!r})
        queue.submit_all([Path({str(folder)!r}), Path({str(other)!r})], queue.per_job)
        os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    wait_until(lambda: (folder / "started").exists() and (other / "started").exists())
    with open_executor("slurm", tmp_path, LOCAL) as queue:
        job, second = queue.attach(folder), queue.attach(other)
        assert job is not None and second is not None
        assert queue.attach(tmp_path) is None
        (folder / "go").touch()
        assert finish(job) == "done"
        token = read_order(other).token
        os.kill(int((other / "started").read_text()), signal.SIGKILL)
        assert finish(second) == "lost"
    assert marked(token) == []


def test_the_end_of_the_queue_ends_its_jobs(
    tmp_path: Path, job_folder: Maker, wait_until: Wait
) -> None:
    folder = job_folder("x", WAITING)
    with open_executor("slurm", tmp_path, LOCAL) as queue:
        job = queue.submit(folder, queue.per_job)
        wait_until((folder / "started").exists)
    assert job.poll() == "lost"
    assert marked(read_order(folder).token) == []


# Stand-ins: a queue of background processes, states in files, `down` makes the accounting unreachable.
COMMANDS = {
    "sbatch": r"""
        cp "$1" "$SLURM_FAKE/script.sh"
        n=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
        for i in $(seq 0 ${n:-0}); do
          id=17; export SLURM_JOB_ID=17 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1
          if [ -n "$n" ]; then id=17_$i; export SLURM_ARRAY_JOB_ID=17 SLURM_ARRAY_TASK_ID=$i; fi
          echo RUNNING > "$SLURM_FAKE/$id"
          (setsid bash "$SLURM_FAKE/script.sh" & echo $! > "$SLURM_FAKE/$id.pid"
           wait; echo COMPLETED > "$SLURM_FAKE/$id") < /dev/null > "$SLURM_FAKE/$id.log" 2>&1 &
        done
        echo "Submitted batch job 17"
    """,
    "srun": r"""
        while [ "${1#--}" != "$1" ]; do case $1 in --unbuffered) shift;; *) shift 2;; esac; done
        exec "$@"
    """,
    "sacct": r"""
        [ -e "$SLURM_FAKE/down" ] && { echo "cannot reach slurmdbd" >&2; exit 1; }
        echo "JobID|State|NodeList"
        for f in $(ls "$SLURM_FAKE" | grep -E '^17(_[0-9])?$'); do echo "$f|$(cat $SLURM_FAKE/$f)|node1"; done
    """,
    "squeue": 'echo "cannot reach slurmctld" >&2; exit 1',
    "scancel": r"""
        echo "$@" >> "$SLURM_FAKE/cancelled"
        kill -- -$(cat "$SLURM_FAKE/$1.pid"); echo "CANCELLED by 0" > "$SLURM_FAKE/$1"
    """,
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, programs = tmp_path / "fake", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name, text in COMMANDS.items():
        (programs / name).write_text("#!/bin/bash\n" + textwrap.dedent(text))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FAKE", str(folder))
    return folder


def test_jobs_handed_over_together_are_one_array_with_the_settings(
    tmp_path: Path, cluster: Path, job_folder: Maker, finish: Finish
) -> None:
    settings = {
        "partition": "gpu", "time": "1-02:30:00", "gpus": 2, "cores": 8, "memory_gb": 64,
        "account": "lab", "extra": {"mail-type": "END"}, "setup": ["export FROM_SETUP=yes"],
    }  # fmt: skip
    code = "end('done' if os.environ.get('FROM_SETUP') == 'yes' else 'failed')"
    folders = [job_folder(name, code) for name in "ab"]
    with open_executor("slurm", tmp_path, settings, max_parallel=1) as queue:
        jobs = queue.submit_all(folders, queue.per_job)
        assert [job.job_id for job in jobs] == ["17_0", "17_1"]
        assert [finish(job) for job in jobs] == ["done", "done"]
    script = (cluster / "script.sh").read_text()
    for flag in (
        "array=0-1%1", "partition=gpu", "time=1590", "gpus-per-node=2", "cpus-per-task=8",
        "mem=64GB", "account=lab", "mail-type=END",
    ):  # fmt: skip
        assert f"#SBATCH --{flag}\n" in script
    assert not (cluster / "cancelled").exists()


def test_a_queue_that_does_not_answer_changes_nothing(
    tmp_path: Path, cluster: Path, job_folder: Maker, finish: Finish, wait_until: Wait
) -> None:
    (cluster / "down").touch()
    folders = [job_folder("a", WAITING), job_folder("b", WAITING)]
    with open_executor("slurm", tmp_path, {"grace_s": 0.5}) as queue:
        first = queue.submit(folders[0], queue.per_job)
        wait_until((folders[0] / "started").exists)
        assert first.poll() == "running"
        (folders[0] / "go").touch()
        assert finish(first) == "done"


def test_what_the_queue_calls_ended_is_lost_with_its_state(
    tmp_path: Path, cluster: Path, job_folder: Maker, finish: Finish
) -> None:
    (tmp_path / "programs" / "sbatch").write_text(
        '#!/bin/bash\necho "NODE_FAIL" > "$SLURM_FAKE/17"; echo "Submitted batch job 17"\n'
    )
    with open_executor("slurm", tmp_path) as queue:
        job = queue.submit(job_folder("a", ""), queue.per_job)
        assert (finish(job), job.reason) == ("lost", "SLURM: NODE_FAIL")


def test_a_queued_job_is_taken_back(tmp_path: Path, cluster: Path, job_folder: Maker) -> None:
    (tmp_path / "programs" / "sbatch").write_text(
        '#!/bin/bash\necho PENDING > "$SLURM_FAKE/17"; sleep 600 & echo $! > "$SLURM_FAKE/17.pid"\n'
        'echo "Submitted batch job 17"\n'.replace(
            "sleep 600 &", "setsid sleep 600 > /dev/null 2>&1 &"
        )
    )
    with open_executor("slurm", tmp_path) as queue:
        job = queue.submit(job_folder("a", ""), queue.per_job)
        assert (job.poll(), job.is_waiting) == ("running", True)
        job.cancel()
        assert job.poll() == "lost"
    assert (cluster / "cancelled").read_text() == "17\n"


def test_a_refusal_of_the_queue_is_one_line(
    tmp_path: Path, cluster: Path, job_folder: Maker
) -> None:
    (tmp_path / "programs" / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1\n"
    )
    with open_executor("slurm", tmp_path, {"partition": "gpuu"}) as queue:
        with pytest.raises(
            ExecutorError, match="the queue takes no job: .*partition specified: gpuu"
        ):
            queue.submit(job_folder("a", ""), queue.per_job)


def test_without_sbatch_the_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorError, match="finds no sbatch and srun here"):
        open_executor("slurm", tmp_path)


def test_without_submitit_the_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingRequirementError, match=r'pip install "blip3o-eval\[slurm\]"'):
        open_executor("slurm", tmp_path)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [(90, 90), ("90", 90), ("12:00:00", 720), ("2-00:00:30", 2881), ("1:30", 90)],
)
def test_times_are_read_as_slurm_writes_them(time: object, minutes: int) -> None:
    assert SlurmSettings.model_validate({"time": time}).time == minutes


def test_a_wrong_time_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="executor.time = 'soon' is not allowed: .*must be minutes"
    ):
        open_executor("slurm", tmp_path, {"time": "soon"})
