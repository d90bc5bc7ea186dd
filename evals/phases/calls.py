"""Calling a model or judge on a batch so that one bad sample, or too little memory, costs no more.

A call that raises is made again on both halves of the batch, until the samples that fail stand alone
and carry their exception. The same halving serves a batch that does not fit into memory; the size
that did fit is remembered, so that the next batch is not too large again. Neither changes which
samples belong to which batch on disk.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from blip3o.memory import free_device_memory, is_out_of_memory
from evals.errors import EvalError, ModelError
from evals.io.redact import redact

_KEPT_NOTES = 10


def one_line(error: BaseException, limit: int = 300) -> str:
    """``RuntimeError: first line of its message``, without secrets."""
    lines = str(error).strip().splitlines() or [""]
    return redact(f"{type(error).__name__}: {lines[0]}".rstrip(": "))[:limit]


class Caller:
    """``call`` over batches, in halves where it raises.

    ``splits`` describes the first ten calls that had to be made again in parts, ``num_splits`` counts
    them all. ``is_divisible=False`` (pictures that continue one noise stream) fails a batch whole.
    ``is_here``: whether the calls are made in this process.
    """

    is_here = True

    def __init__(
        self, call: Callable[[Sequence[Any]], Sequence[Any]], is_divisible: bool = True
    ) -> None:
        self._call, self._is_divisible = call, is_divisible
        self._fitting: int | None = None
        self.splits: list[dict[str, Any]] = []
        self.num_splits = 0

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """One result per item; an exception object for items that fail alone.

        Raises: EvalError of the call, ModelError if it returns another number of results.
        """
        if self._fitting is None or len(items) <= self._fitting:
            return self._part(items)
        step = self._fitting
        parts = (items[start : start + step] for start in range(0, len(items), step))
        return [result for part in parts for result in self._part(part)]

    def _part(self, items: Sequence[Any]) -> list[Any]:
        try:
            results = list(self._call(items))
        except EvalError:
            raise
        # Whatever a model raises is recorded, not interpreted; some libraries even call sys.exit.
        except (Exception, SystemExit) as error:
            problem = error if isinstance(error, Exception) else RuntimeError(f"SystemExit: {error}")
            # The frames of the traceback hold the very tensors that did not fit.
            traceback.clear_frames(error.__traceback__)
            problem.__traceback__ = problem.__context__ = problem.__cause__ = None
        else:
            if len(results) != len(items):
                raise ModelError(f"{len(items)} requests were answered with {len(results)} results")
            return results
        free_device_memory()
        if len(items) == 1 or not self._is_divisible:
            return [problem] * len(items)
        self._note(items, problem)
        middle = len(items) // 2
        if is_out_of_memory(problem):
            self._fitting = max(1, min(middle, self._fitting or middle))
        return self._part(items[:middle]) + self._part(items[middle:])

    def _note(self, items: Sequence[Any], problem: Exception) -> None:
        self.num_splits += 1
        if len(self.splits) < _KEPT_NOTES:
            first = items[0]
            name = getattr(first, "sample_id", None) or getattr(
                getattr(first, "sample", None), "id", ""
            )
            self.splits.append({"first": name, "size": len(items), "error": one_line(problem)})
