"""Hands a finished run to ``reports``: the HTML page and MLflow. The only place that does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.config import TrackingConfig
from evals.generate import one_line

log = logging.getLogger("evals")


def write_report(root: Path) -> None:
    """Write ``report.html`` of a finished run."""
    from reports import html

    html.write_report(root)


def track(
    root: Path, tracking: TrackingConfig, previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Log a finished run to MLflow, continuing the run of an earlier attempt.

    An evaluation never fails because tracking failed: the error is logged and returned under
    "error", beside the run id if one was made.
    """
    try:
        from reports import tracking as tracker

        record = tracker.log_run(
            root,
            experiment=tracking.experiment,
            tracking_uri=tracking.tracking_uri,
            tags=tracking.tags,
            run_id=(previous or {}).get("run_id"),
        )
        return dict(record)
    except Exception as error:  # servers, databases and their drivers raise anything
        problem = one_line(error)
        log.warning("not tracked in MLflow (%s); the run itself is complete", problem)
        return {"run_id": (previous or {}).get("run_id"), "error": problem}
