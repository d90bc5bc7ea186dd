"""A keeper that stays for many jobs: it imports once what they need, and forks each job from itself.

``python -m evals.sweeps.executors.warm PARENT MODULE...`` imports the modules, then reads the folders of its jobs from
stdin, a line of JSON each, one after the other, and answers each with its exit code on stdout. A job is a process of
its own as everywhere else: it can crash alone, it carries its token, and it ends with its keeper, and the keeper with
whoever started it. What is saved is the start of an interpreter and the imports, which take longer than a short
evaluation: torch, transformers and diffusers about five seconds of a core.

Nothing that a fork could break is done before it: no model is loaded, no network of torch has run, so none of its
threads is there, and no GPU is touched. The pool forks jobs without GPUs alone. Where a job cannot be forked (another
command, no Linux), it is started as by any other keeper.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from evals.processes import MARK, die_with, mark_myself, outlive_parent
from evals.sweeps.executors import keeper
from evals.sweeps.executors.files import Order, command_of, log_path

IS_POSSIBLE = sys.platform.startswith("linux")
_NO_TOKEN = "-" * 16  # as long as a token, so that a fork can put its own in its place
_LOOK_EVERY_S = 0.02
_END_S = 5.0


class WarmKeeper:
    """The end of the pool: a keeper of this process, given one job at a time.

    Args: modules: what it imports before its first job. env: added to this process's environment, also for the jobs.
    log: takes what is said before the first job. Raises: OSError where no process can be started.
    """

    def __init__(self, modules: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        outer = {k: v for k, v in os.environ.items() if k not in keeper.LAUNCHER}
        self.env = dict(env)
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(os.getpid()), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**outer, **env, MARK: _NO_TOKEN},
                start_new_session=True,
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._code: int | None = None

    def give(self, folder: Path) -> None:
        """Hand over the next job. Raises: BrokenPipeError if the keeper is gone."""
        assert self._process.stdin is not None
        self._code = None
        self._process.stdin.write(json.dumps(str(folder.absolute())).encode() + b"\n")
        self._process.stdin.flush()

    def poll(self) -> int | None:
        """Exit code of the job that it was given, or of itself if it is gone (negative for a signal)."""
        if self._code is None:
            assert self._process.stdout is not None
            try:
                answer = os.read(self._process.stdout.fileno(), 64)
            except BlockingIOError:
                return None
            self._code = int(answer) if answer else self._process.wait()
        return self._code

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.wait()

    def release(self) -> None:
        """The job has ended; the keeper stays."""

    def close(self) -> None:
        """End an idle keeper."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- the keeper itself ------------------------------------------------------------------------------


def serve(parent: int, modules: Sequence[str]) -> None:
    """Import, then keep one job after the other until stdin closes or SIGTERM comes."""
    die_with(parent)  # an import cannot look whether somebody is still there
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # the job that needs it says it better
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # memory that a fork never writes to stays shared
    wakeups = keeper.listen()
    outlive_parent()  # from here on its jobs are ended with their grace
    while (folder := _next(wakeups)) is not None:
        with open(log_path(folder), "ab") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        code = keeper.keep(folder, wakeups, fork)
        os.write(sys.stdout.fileno(), b"%d\n" % code)
    # Nothing is left to write, and the memory that was set aside above would be reported as leaked.
    os._exit(0)


def _next(wakeups: int) -> Path | None:
    """The folder of the next job; None if there will be none."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([wakeups, sys.stdin.fileno()], [], [])
        if wakeups in ready and signal.SIGTERM in os.read(wakeups, 64):
            return None
        if sys.stdin.fileno() in ready:
            more = os.read(sys.stdin.fileno(), 4096)
            if not more:
                return None
            line += more
    return Path(json.loads(line))


class Forked:
    """A child of this process, with the part of ``subprocess.Popen`` that a keeper uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(_LOOK_EVERY_S)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:  # a number may be another process's once it was waited for
            os.kill(self.pid, number)


def fork(order: Order, log: IO[bytes]) -> keeper.Child:
    """Do a job in a fork of this process, if it is a point's or a stage's; start its command otherwise."""
    folder = order.command[-1]
    torch = sys.modules.get("torch")
    uses_gpu = torch is not None and torch.cuda.is_initialized()
    if not IS_POSSIBLE or uses_gpu or order.command != tuple(command_of(Path(folder))):
        return keeper.launch(order, log)
    parent = os.getpid()
    # A signal that comes before the child has its own answers waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            _child(order, folder, log, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return Forked(pid)


def _child(order: Order, folder: str, log: IO[bytes], parent: int) -> None:
    """Never returns: nothing of the keeper is to go on in a second process."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        die_with(parent)
        os.setsid()  # as a command gets it
        for file in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), file.fileno())
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, sys.stdin.fileno())
        os.chdir(order.cwd)
        os.environ.update({**order.env, MARK: order.token})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if not mark_myself(order.token):
            os.execve(order.command[0], order.command, os.environ)
        code = _job(folder)
    except BaseException:  # the end of the process, whatever it was
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as an interpreter does at its end
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _job(folder: str) -> int:
    from evals.sweeps.point import main

    return main([folder])


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])
