"""A metric for any task: the mean of the group in which a model does worst."""

from collections.abc import Sequence
from dataclasses import replace

from evals.api import MetricValue, ScoreRow
from evals.errors import UsageError
from evals.metrics.accuracy import GroupMean

BLIP3O_EVAL_API = 1


def create(spec: str) -> "WorstGroup":
    """`--metric worst_group`; takes no argument."""
    if spec:
        raise UsageError(f"metric 'worst_group' takes no argument, got {spec!r}")
    return WorstGroup()


class WorstGroup:
    """The lowest of the group means, with the interval of that group; its note names the group.

    The lowest of several noisy means lies below the true lowest: the more so, the smaller the groups.
    """

    name = "worst_group"
    unit = "fraction"
    higher_is_better = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        """One MetricValue from all scores of a run; pure, so it can be computed again at any time."""
        groups = dict.fromkeys(row.group for row in rows)
        means = [GroupMean(group, group).compute(rows) for group in groups]
        given = [(mean.value, mean) for mean in means if mean.value is not None]
        if not given:
            return MetricValue(self.name, None, 0, len(rows), note="nothing was scored")
        _, worst = min(given, key=lambda pair: pair[0])
        return replace(worst, name=self.name, note=f"group {worst.name}")
