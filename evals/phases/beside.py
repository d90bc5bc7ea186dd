"""Judging beside generation: a thread scores batches of outputs while the model makes the next ones.

It scores the batches that the phase after generation would score, in the same order, with the same calls, and writes
the same lines; what it has not done when it ends, for whatever reason, that phase does. So a run that judges beside
generation ends in the same files, and a kill at any moment leaves what any kill leaves.

It pays where model and judge do not wait for the same processor: an endpoint on either side, or a GPU, whose work and
the processor's then overlap (the judge gets a stream of its own). Both are in memory at once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from evals.api import Judge, ScoreItem
from evals.io.jsonl import Scan
from evals.phases.calls import one_line
from evals.phases.loaded import Notes, loaded_calls
from evals.phases.plan import Batch, Plan
from evals.phases.progress import Progress
from evals.phases.scoring import score_outputs
from evals.store import RunStore

log = logging.getLogger("evals")

When = Literal["auto", "beside", "after"]
WHEN: tuple[When, ...] = ("auto", "beside", "after")
"""When outputs are judged: ``auto`` is ``beside`` unless model and judge would share the CPU."""

_LOOK_EVERY_S = 0.2

Score = Callable[[Scan, Iterator[Batch], "Beside"], None]
"""Scores batches whose outputs the scan knows, as they come; calls `advance` of its last argument."""


def pays(model: Any, judge: Any, device: str) -> bool:
    """Whether model and judge do not wait for the same processor. ``device``: "auto", or as the user gave it."""
    if any(str(getattr(part, "device", "")).startswith("endpoint") for part in (model, judge)):
        return True
    if device == "cpu" or sys.modules.get("torch") is None:
        return False
    return bool(sys.modules["torch"].cuda.is_available())


def judging(
    store: RunStore,
    plan: Plan,
    outputs: Scan,
    remade: Sequence[Batch],
    scores: Scan,
    judge: Judge,
    call: Callable[[Sequence[ScoreItem]], Sequence[Any]],
    batches: Iterable[Batch],
    notes: Notes,
    *,
    is_worthwhile: Callable[[], bool],
    is_quiet: bool,
) -> Beside | NotBeside:
    """The judge at work beside generation: on ``batches`` of the plan that lack scores.

    Not after several processes died while judging: those calls are made in a process of their own, one at a time.
    """
    attempts = store.attempts("score")
    if attempts.is_suspicious:
        return NOT_BESIDE

    def score(live: Scan, ready: Iterator[Batch], progress: Beside) -> None:
        with loaded_calls("score", judge, call, attempts, store, notes, timeout_s=None) as caller:
            score_outputs(store, plan, live, ready, caller, attempts, progress)

    pending = [batch for batch in batches if not scores.has_batch(batch)]
    return Beside(
        store.outputs_path(), outputs, remade, pending, score, is_worthwhile=is_worthwhile, is_quiet=is_quiet
    )


class Beside:
    """Scores ``pending`` batches in a thread, each as soon as all its outputs are on disk.

    Args: path: the file that outputs are appended to. outputs: what was on disk before. pending: batches without
    scores, in order. As a context manager: at the end of its block it waits until everything is judged, with a line of
    progress; when the block raises it ends after the batch under way.
    """

    def __init__(
        self,
        path: Path,
        outputs: Scan,
        remade: Sequence[Batch],
        pending: Sequence[Batch],
        score: Score,
        *,
        is_worthwhile: Callable[[], bool] = lambda: True,
        is_quiet: bool = False,
    ) -> None:
        self._path, self._pending, self._score = path, pending, score
        self._is_worthwhile, self._is_quiet = is_worthwhile, is_quiet
        self._live = Scan([path], outputs.total)
        self._live.file_of[:] = outputs.file_of
        self._live.offset_of[:] = outputs.offset_of
        for batch in remade:
            self._live.forget(batch)
        self._tail: BinaryIO | None = None
        self._news = threading.Condition()
        self._is_complete = self._is_stopped = False
        self._thread: threading.Thread | None = None
        self.scored = self.failed = 0
        self.seconds = 0.0
        self.is_broken = False

    def starting(self) -> None:
        """The model is loaded and nothing is appended yet."""
        if self._is_worthwhile():
            self._tail = open(self._path, "ab+")
            self._tail.seek(0, 2)

    def made(self, batch: Batch) -> None:
        """The outputs of a batch have been appended to the file."""
        if self._tail is None:
            return
        with self._news:
            for position in batch.positions:
                self._live.offset_of[position] = self._tail.tell()
                self._tail.readline()
                self._live.file_of[position] = 0
            self._news.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
            self._thread.start()

    def advance(self, done: int, failed: int = 0) -> None:
        """Outputs were scored (what `Progress` does elsewhere)."""
        self.scored += done
        self.failed += failed

    def _work(self) -> None:
        try:
            with _stream():
                self._score(self._live, self._ready(), self)
        except BaseException as error:
            self.is_broken = True
            log.warning(
                "judging beside generation has ended (%s): it goes on when all outputs are made", one_line(error)
            )

    def _ready(self) -> Iterator[Batch]:
        for batch in self._pending:
            with self._news:
                self._news.wait_for(
                    lambda: self._is_stopped or self._is_complete or self._live.has_batch(batch)  # noqa: B023
                )
                if self._is_stopped or not self._live.has_batch(batch):
                    return
            began = time.monotonic()
            yield batch
            self.seconds += time.monotonic() - began

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tail is not None:
            self._tail.close()
        if self._thread is None:
            return
        try:
            if kind is None:
                self._finish()
        finally:
            with self._news:
                self._is_stopped = True
                self._news.notify()
            self._thread.join()

    def _finish(self) -> None:
        assert self._thread is not None
        with self._news:
            self._is_complete = True
            self._news.notify()
        total, shown = sum(map(len, self._pending)), self.scored
        with Progress("score", total, shown, is_quiet=self._is_quiet or not self._thread.is_alive()) as progress:
            while self._thread.is_alive():
                self._thread.join(_LOOK_EVERY_S)
                progress.advance(self.scored - shown)
                shown = self.scored


class NotBeside:
    """In the place of `Beside` where everything is judged afterwards."""

    scored, seconds = 0, 0.0

    def starting(self) -> None:
        """Nothing to prepare."""

    def made(self, batch: Batch) -> None:
        """Nobody waits for it."""

    def __enter__(self) -> NotBeside:
        return self

    def __exit__(self, *exc: object) -> None: ...


NOT_BESIDE = NotBeside()


@contextlib.contextmanager
def _stream() -> Iterator[None]:
    """A CUDA stream of the thread's own, where there is CUDA: on the common one its work would wait for the model's."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
