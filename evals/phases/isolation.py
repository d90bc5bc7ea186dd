"""Calls of a model or judge in a process of their own, with a time limit.

Nothing inside a process can end a call that hangs in native code or survive a segmentation fault, so
the call is made in a child: a hang is ended with SIGKILL, a death is seen as such, and either
becomes an ordinary exception that ``evals.phases.generate.call_split`` pins on the sample. The network is
built in the child alone. The child is forked, so any model object works, and it dies with its parent.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

from evals.errors import EvalError, UsageError
from evals.processes import die_with, signal_name

_LOOK_EVERY_S = 0.5


class HangError(RuntimeError):
    """A call gave no answer in time; its process was ended."""


class WorkerDiedError(RuntimeError):
    """The process of a call ended by itself."""


class Worker:
    """``call`` in a child process that is started when needed and again after each death.

    Args: load: builds the network, in the child; not under the time limit. call: items -> results.
    timeout_s: seconds per item of a call, None for no limit. in_child: run first in the child, to let
    go of what only the parent should hold.
    Raises: UsageError if this process already uses CUDA, which no child can take over.
    """

    def __init__(
        self,
        load: Callable[[], object],
        call: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        timeout_s: float | None = None,
        in_child: Callable[[], None] = lambda: None,
    ) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise UsageError(
                "this process already uses CUDA, so a model cannot run in a process of its own: start a new "
                "process, or leave out the time limit per sample"
            )
        self._load, self._call, self._in_child = load, call, in_child
        self._timeout_s = timeout_s
        self._pid: int | None = None
        self._connection: Connection | None = None

    def start(self) -> Any:
        """Fork and build the network. Returns what ``load`` returns, and raises what it raises."""
        ours, theirs = Pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                die_with(parent)  # elsewhere than on Linux the pipe tells
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
                self._in_child()
                _serve(theirs, self._load, self._call)
            finally:
                os._exit(0)
        theirs.close()
        self._pid, self._connection = pid, ours
        return self._answer(None, "while the model was loaded")

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        """The results. Raises HangError, WorkerDiedError, or what the call raised."""
        if self._connection is None:
            self.start()
        assert self._connection is not None
        limit = None if self._timeout_s is None else self._timeout_s * len(items)
        try:
            self._connection.send(list(items))
        except (BrokenPipeError, ConnectionResetError):
            raise WorkerDiedError(self._last_words()) from None
        return self._answer(limit, "during the call")

    def _answer(self, limit_s: float | None, when: str) -> Any:
        assert self._connection is not None
        until = None if limit_s is None else time.monotonic() + limit_s
        while not self._connection.poll(_wait(until)):
            if until is not None and time.monotonic() >= until:
                self.close()
                raise HangError(f"no answer within {limit_s:g} s, its process was ended")
            if self._is_dead() and not self._connection.poll(0):
                raise WorkerDiedError(f"{self._last_words()} {when}")
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerDiedError(f"{self._last_words()} {when}") from None
        if kind == "raised":
            raise value
        return value

    def _is_dead(self) -> bool:
        assert self._pid is not None
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _last_words(self) -> str:
        """How the child ended; it is reaped."""
        assert self._pid is not None and self._connection is not None
        self._connection.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = self._connection = None
        if code >= 0:
            return f"its process ended with exit code {code}"
        name = signal_name(-code)
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"

    def close(self) -> None:
        if self._pid is not None and self._connection is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._connection.close()
            self._pid = self._connection = None


def _wait(until: float | None) -> float:
    return (
        _LOOK_EVERY_S
        if until is None
        else max(0.0, min(_LOOK_EVERY_S, until - time.monotonic()))
    )


def _serve(connection: Connection, load: Callable[[], object], call: Callable[..., Any]) -> None:
    try:
        connection.send(("done", load()))
        while True:
            try:
                items = connection.recv()
            except EOFError:
                return
            try:
                answer = ("done", [_portable(r) for r in call(items)])
            except Exception as error:
                answer = ("raised", _portable(error))
            connection.send(answer)
    except Exception as error:
        connection.send(("raised", _portable(error)))


def _portable(value: Any) -> Any:
    """Exceptions that do not survive pickling become one that carries their text."""
    if not isinstance(value, Exception):
        return value
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # any third-party constructor may refuse
        base = EvalError if isinstance(value, EvalError) else RuntimeError
        return base(f"{type(value).__name__}: {value}")
    return value
