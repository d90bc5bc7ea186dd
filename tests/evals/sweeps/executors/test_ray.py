"""One-node Ray: the same jobs as everywhere, and nothing of it is left behind."""

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
from evals.sweeps.api import Resources
from evals.sweeps.executors import open_executor
from evals.sweeps.executors.base import ExecutorError
from evals.sweeps.executors.files import read_order

Maker = Callable[..., Path]
Wait = Callable[..., None]
Finish = Callable[..., str]

FOR_EVER = "say('started', os.getpid()); time.sleep(600)"


def test_without_ray_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingRequirementError, match=r'pip install "blip3o-eval\[ray\]"'):
        open_executor("ray", Path())


def processes_of_ray() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "raylet" in line or "gcs_server" in line or line.startswith("ray::"):
                found.append(f"{entry.name} {line[:80]}")
    return found


@pytest.mark.slow
def test_jobs_on_a_cluster_of_our_own(
    job_folder: Maker, finish: Finish, wait_until: Wait, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two starts of Ray: about half a minute on an idle machine of two cores, minutes on a busy one."""
    pytest.importorskip("ray")
    before = processes_of_ray()
    codes = {
        "done": "end('done'); print('hello', os.environ.get('CUDA_VISIBLE_DEVICES'), os.getcwd())",
        "failed": "end('failed', 'no weights'); sys.exit(1)",
        "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    }
    with pytest.raises(ConfigError, match="a job asks for 65 GPUs|a job asks for 64 GPUs"):
        open_executor("ray", Path(), {"gpus": 64, "total_cores": 1})
    with open_executor("ray", Path(), {"total_cores": 1, "grace_s": 0.5}) as cluster:
        assert cluster.per_job == Resources(1, 0)
        jobs = cluster.submit_all([job_folder(n, c) for n, c in codes.items()], cluster.per_job)
        assert [(finish(job, 300), job.reason) for job in jobs] == [
            ("done", None),
            ("failed", None),
            ("lost", "ended by SIGKILL (out of memory?)"),
        ]
        assert jobs[0].log is not None and f"hello  {os.getcwd()}" in jobs[0].log.read_text()
        running, queued = job_folder("running", FOR_EVER), job_folder("queued", FOR_EVER)
        first = cluster.submit(running, cluster.per_job)
        wait_until((running / "started").exists, 300)
        second = cluster.submit(queued, cluster.per_job)
        assert second.is_waiting and not first.is_waiting
        first.cancel()
        assert (first.poll(), first.reason) == ("lost", "cancelled")
        assert marked(read_order(running).token) == []
    assert second.poll() == "lost"
    assert marked(read_order(queued).token) == []
    assert processes_of_ray() == before
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_kill_9_of_the_parent_ends_ray_and_its_jobs(job_folder: Maker, wait_until: Wait) -> None:
    pytest.importorskip("ray")
    before = processes_of_ray()
    folder = job_folder("x", FOR_EVER)
    code = f"""
        import sys, time
        from pathlib import Path
        from evals.sweeps.executors import files, open_executor
        files.command_of = lambda folder: [sys.executable, str(folder / "code.py"), str(folder)]
        cluster = open_executor("ray", Path(), {{"total_cores": 1, "grace_s": 0.5}})
        cluster.submit(Path({str(folder)!r}), cluster.per_job)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    wait_until((folder / "started").exists, 300)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: marked(read_order(folder).token) == [], 120)
    wait_until(lambda: processes_of_ray() == before, 120)


@pytest.mark.slow
def test_an_address_without_a_cluster_is_one_line() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ExecutorError, match="executor 'ray': no cluster at auto: "):
        open_executor("ray", Path(), {"address": "auto"})
