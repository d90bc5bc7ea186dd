"""What follows the points: the table, the page, and MLflow. All of it reads the folder only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from evals.sweeps.folder import SweepFolder
from evals.sweeps.results import SweepTable, build, write_csv
from evals.sweeps.schema import SweepConfig, run_layer

Track = Callable[[SweepFolder, bool], object]


def _no_tracking(folder: SweepFolder, is_final: bool) -> None:
    return None


def tracker(config: SweepConfig, flags: Mapping[str, Any]) -> Track:
    """Logs a sweep's folder to MLflow with the file's settings under ``base.run.tracking``, flags winning."""
    from evals.config import TrackingConfig

    given = run_layer(config.base.run).get("tracking", {})
    tags = {**given.get("tags", {}), **flags.get("tags", {})}
    settings = TrackingConfig(**{**given, **flags, "tags": tags})
    if not settings.enabled:
        return _no_tracking

    def log(folder: SweepFolder, is_final: bool) -> None:
        from reports.tracking_sweep import log_sweep

        log_sweep(
            folder.root,
            # None: where it went the last time.
            experiment=settings.experiment if "experiment" in {**given, **flags} else None,
            tracking_uri=settings.tracking_uri,
            tags=settings.tags,
            final=is_final,
        )

    return log


def finish(
    folder: SweepFolder, *, has_report: bool = True, track: Track = _no_tracking
) -> SweepTable:
    """The table of what is there; writes ``table.csv``, the page, and logs both."""
    table = build(folder)
    write_csv(table)
    if has_report and find_spec("reports.sweep") is not None:
        from reports.sweep import build as write_page

        write_page(folder.root)
    track(folder, True)
    return table
