"""The figures of lmms-eval's groups, from those of their tasks, by its own rule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.api import MetricValue, ScoreRow
from evals.lmms import package
from evals.lmms.documents import Documents
from evals.lmms.figures import Figure


@dataclass(frozen=True)
class GroupFigure:
    """One figure of a group. The interval takes the tasks for independent and their intervals for what they are."""

    name: str
    documents: Documents = field(repr=False)
    group: str
    key: str  # "metric,filter"
    parts: Sequence[Figure] = field(repr=False)
    higher_is_better: bool = True
    unit: str = "score"

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        members = {
            part.task: part.compute(rows) for part in self.parts if f"{part.metric},{part.filter}" == self.key
        }
        n, unscored = (sum(getattr(m, k) for m in members.values()) for k in ("n", "unscored"))
        made = MetricValue(self.name, None, n, unscored, None, self.unit, self.higher_is_better)
        values = {task: m.value for task, m in members.items() if m.value is not None}
        if len(values) < len(members):
            missing = ", ".join(task for task in members if task not in values)
            return replace(made, note=f"no value for {missing}")
        sizes = {task: m.n for task, m in members.items()}
        value = combined(self.documents, self.group, self.key, values, sizes)
        if value is None or not all(m.ci95 for m in members.values()):
            return replace(made, value=value, method="lmms-eval's group rule")
        # Linear in its members: each one's share of the half-widths by how far it moves the figure.
        low = high = 0.0
        for task, member in members.items():
            moved = combined(self.documents, self.group, self.key, {**values, task: values[task] + 1}, sizes)
            assert member.ci95 is not None and moved is not None
            weight = moved - value
            low += (weight * (member.ci95[0] - values[task])) ** 2
            high += (weight * (member.ci95[1] - values[task])) ** 2
        ci = (value - math.sqrt(low), value + math.sqrt(high))
        return replace(made, value=value, ci95=ci, clusters=len(members), method="intervals of the tasks combined")


def combined(
    documents: Documents, group: str, key: str, values: Mapping[str, float], sizes: Mapping[str, int]
) -> float | None:
    """What lmms-eval's ``consolidate_group_results`` makes of the tasks' figures; None if it makes none."""
    utils = package.load("lmms_eval.evaluator_utils")
    results: Any = defaultdict(dict)
    for task in documents.loaded.tasks:
        results[task] = {"alias": task, "samples": sizes.get(task, 0)}
        if task in values:
            results[task][key] = values[task]
            results[task]["_stderr,".join(key.split(","))] = "N/A"  # its pooling is not asked for
    with package.quietly():
        found = utils.consolidate_group_results(results, defaultdict(dict), documents.loaded.tree)[0]
    value = found[group].get(key)
    return float(value) if isinstance(value, (int, float)) else None


def group_figures(documents: Documents, figures: Sequence[Figure]) -> list[GroupFigure]:
    """The groups that define figures of their own, the outermost first."""
    made = []
    for group in _groups(documents.loaded.tree):
        if not group.config.get("aggregate_metric_list"):
            continue
        name = str(group.group_name)
        for key in dict.fromkeys(f"{f.metric},{f.filter}" for f in figures):
            parts = [f for f in figures if f"{f.metric},{f.filter}" == key]
            tasks = {f.task: 1.0 for f in parts}
            if combined(documents, name, key, tasks, dict.fromkeys(tasks, 1)) is not None:
                shown = key.removesuffix(",none")
                made.append(GroupFigure(f"{name}/{shown}", documents, name, key, parts, parts[0].higher_is_better))
    return made


def _groups(tree: Mapping[Any, Any]) -> list[Any]:
    found = []
    for key, inner in tree.items():
        if hasattr(key, "group_name"):
            found.append(key)
        if isinstance(inner, Mapping) and not hasattr(inner, "process_results"):
            found += _groups(inner)
    return found
