"""What follows the points: the table, the page, and MLflow. All of it reads the folder only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.sweeps.folder import SweepFolder
from evals.sweeps.results import SweepTable, build, write_csv
from evals.sweeps.schema import SweepConfig, run_layer

if TYPE_CHECKING:
    from reports.tracking_sweep import Tracker

log = logging.getLogger(__name__)


def tracker(config: SweepConfig, flags: Mapping[str, Any], root: Path) -> Tracker | None:
    """Logs a sweep's folder to MLflow with the file's settings under ``base.run.tracking``, flags winning.

    Returns: None where tracking is switched off.
    """
    from evals.config import TrackingConfig

    given = {**run_layer(config.base.run).get("tracking", {}), **flags}
    tags = {**run_layer(config.base.run).get("tracking", {}).get("tags", {}), **flags.get("tags", {})}
    settings = TrackingConfig(**{**given, "tags": tags})
    if not settings.enabled:
        return None
    from reports.tracking_sweep import Tracker

    return Tracker(
        root,
        experiment=settings.experiment if "experiment" in given else None,  # None: where it went the last time
        tracking_uri=settings.tracking_uri,
        tags=settings.tags,
    )


def finish(
    folder: SweepFolder, *, has_report: bool = True, track: Tracker | None = None
) -> tuple[SweepTable, Path | None]:
    """The table of what is there, and the page; writes ``table.csv`` and ``report.html``, and logs both.

    A page that cannot be written costs a warning, and no more: table and MLflow hold every figure without it.
    """
    table = build(folder)
    write_csv(table)
    page = None
    if has_report:
        from reports.sweep import build as write_page

        try:
            page = write_page(folder.root)
        except Exception as error:  # drawing reads a whole folder of others' files, and hours of work stand behind it
            log.warning("no new report.html: %s: %s", type(error).__name__, error)
            log.debug("report.html", exc_info=True)
    if track is not None:
        track.finish()
    return table, page
