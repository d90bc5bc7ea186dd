"""Sweeps: a grid of points that train and evaluate, or only evaluate, and one table over all of them.

A sweep file (``evals.sweeps.sweepfile``) becomes a list of points (``evals.sweeps.grid``), the plan says what they
cost (``evals.sweeps.plan``), the scheduler starts them on an executor (``evals.sweeps.runner``), each point is a
process of its own (``evals.sweeps.point``), and everything lies in one folder (``evals.sweeps.folder``), from
which the table (``evals.sweeps.results``), the report and the tracking read. Training itself is behind
``evals.sweeps.api.Trainer``: nothing here knows what a stage learns.

    from evals.sweeps import sweep
    done = sweep("guidance", overrides=["base.run.limit=24"])
    done.table.to_pandas()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.sweeps.door import Sweep, sweep

__all__ = ["Sweep", "sweep"]


def __getattr__(name: str) -> Any:
    # Lazy: reading a folder needs neither the harness nor statistics.
    if name in __all__:
        from evals.sweeps import door

        return getattr(door, name)
    raise AttributeError(f"module 'evals.sweeps' has no attribute {name!r}")
