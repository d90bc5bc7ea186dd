"""Hands a finished run to ``reports``: the HTML page and MLflow. The only place that does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.config import TrackingConfig

log = logging.getLogger("evals")


def write_report(root: Path) -> list[str]:
    """Write ``report.html``. Returns notes for the user."""
    from reports import html

    html.write_report(root)
    return []
