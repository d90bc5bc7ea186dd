"""The built-in metrics under names that ``--metric`` takes: ``group_mean:colors``, ``mean_of_groups:a,b``."""

from __future__ import annotations

from evals.errors import UsageError
from evals.metrics.accuracy import GroupMean, MeanOfGroups


def create_group_mean(spec: str) -> GroupMean:
    """Mean score of the group ``spec``, or of all samples without one."""
    return GroupMean(spec or None, f"group_mean:{spec}" if spec else "group_mean")


def create_mean_of_groups(spec: str) -> MeanOfGroups:
    """Plain mean of the means of the groups in ``spec``, commas between. Raises UsageError for none."""
    groups = tuple(name.strip() for name in spec.split(",") if name.strip())
    if not groups:
        raise UsageError("metric 'mean_of_groups' needs groups: mean_of_groups:A,B")
    return MeanOfGroups(groups, f"mean_of_groups:{','.join(groups)}")
