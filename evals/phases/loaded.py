"""A model or judge that is loaded for one phase of a run, and its calls."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from evals.api import Judge, Model
from evals.phases.attempts import Attempts
from evals.phases.calls import Caller
from evals.phases.isolation import Worker
from evals.store import RunStore

log = logging.getLogger("evals")


class Notes(Protocol):
    """Keeps values for the run's manifest; `evals.phases.sessions.Session` does."""

    def note(self, **values: Any) -> None: ...


class Kept:
    """Notes for later, where the manifest is another thread's."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        self.values.update(values)


@contextlib.contextmanager
def loaded_calls(
    phase: str,
    owner: Model | Judge | None,
    call: Callable[[Sequence[Any]], Sequence[Any]],
    attempts: Attempts,
    store: RunStore,
    session: Notes,
    *,
    timeout_s: float | None,
    is_divisible: bool = True,
) -> Iterator[Caller]:
    """``call`` with its network loaded: in this process, or in a child when that is safer.

    Args: phase: "generate" or "score", for the session's entry. owner: what is loaded, if anything.
    timeout_s: seconds per output; with a limit, and after several processes died in one batch, the
    calls are made in a child.
    """

    def load_it() -> str:
        if owner is not None:
            owner.load()
        return str(getattr(owner, "device", "unknown"))

    worker = None
    if attempts.is_suspicious:
        log.warning(
            "%d processes ended in the batch at output %d: it is computed in a process of its own",
            attempts.deaths,
            attempts.key,
        )
    if attempts.is_suspicious or timeout_s is not None:
        worker = Worker(load_it, call, timeout_s=timeout_s, in_child=store.close)
    caller = Caller(worker or call, is_divisible)
    caller.is_here = worker is None
    try:
        device = worker.start() if worker else load_it()
        if phase == "generate":
            session.note(device=device)
        yield caller
    finally:
        attempts.close()
        if worker is not None:
            worker.close()
        if caller.num_splits:
            session.note(
                **{f"{phase}_splits": caller.splits, f"num_{phase}_splits": caller.num_splits}
            )
    if worker is None and owner is not None:
        owner.close()
