"""Runs set against each other: which ones may be, what differs between them, paired differences on shared outputs.

The one home of these questions: the terminal's ``compare`` and the reports both ask here. Reads finished or
unfinished run folders, never models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals import stats
from evals.errors import UsageError
from evals.results import RunData

Key = tuple[str, int]
"""(sample id, image index)"""

OVERALL_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Difference:
    """A paired difference in one figure: later run minus first run. `p_adjusted`: Holm's, over all of a comparison."""

    name: str
    paired: stats.PairedDifference
    p_adjusted: float


@dataclass(frozen=True)
class Comparison:
    """A run against the first one, figure by figure; `rows` is empty when no output is shared."""

    name: str
    rows: tuple[Difference, ...]


@dataclass(frozen=True)
class ScoreTable:
    """The scored outputs of a run: (sample id, image index) -> value and group, in plan order."""

    values: Mapping[Key, float]
    groups: Mapping[Key, str]


def check_comparable(runs: Sequence[RunData]) -> None:
    """Refuse runs of different tasks, prompts or judges.

    Raises: UsageError naming the two folders and each key that differs.
    """
    first = runs[0]
    for run in runs[1:]:
        differing = [
            f"{key}: {_shown(a)} and {_shown(b)}"
            for (key, a), b in zip(
                _identity(first.manifest).items(), _identity(run.manifest).values(), strict=True
            )
            if a != b
        ]
        if differing:
            raise UsageError(
                f"{first.root} and {run.root} do not compare ({'; '.join(differing)}): "
                "report them one by one, or judge both with the same judge"
            )


def _identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    task, judge = manifest["task"], manifest["judge"]
    return {
        "task": task["name"],
        "task version": task["version"],
        "prompts": task["prompts_sha256"],
        "judge": judge and (judge["name"], judge["version"], judge["weights_sha256"][:12]),
    }


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]} {value[1]} ({value[2]})"
    return str(value)


def run_names(runs: Sequence[RunData]) -> list[str]:
    """Model names; the configuration's first digits, then a number, tell equal ones apart."""
    names = [str(run.manifest["model"]["name"]) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{n} {r.manifest['config_sha256'][:8]}" for n, r in zip(names, runs, strict=True)]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names


def differing_settings(runs: Sequence[RunData]) -> list[tuple[str, list[Any]]]:
    """(fingerprint key, value in each run) for the keys that are not the same everywhere; absent is None."""
    prints = [run.manifest["fingerprint"] for run in runs]
    keys = dict.fromkeys(key for fingerprint in prints for key in fingerprint)
    rows = [(key, [fingerprint.get(key) for fingerprint in prints]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values[1:])]


def score_table(run: RunData) -> ScoreTable:
    """The run's scored outputs; those without a score are left out, never counted as wrong."""
    rows = [row for row in run.scores() if row["value"] is not None]
    keys = [(row["sample_id"], row["image_index"]) for row in rows]
    return ScoreTable(
        {key: float(row["value"]) for key, row in zip(keys, rows, strict=True)},
        {key: row["group"] for key, row in zip(keys, rows, strict=True)},
    )


def shared_keys(tables: Sequence[ScoreTable]) -> list[Key]:
    """Outputs that have a score in every run, in the order of the first."""
    return [key for key in tables[0].values if all(key in t.values for t in tables[1:])]


def paired_comparisons(
    runs: Sequence[RunData], *, tables: Sequence[ScoreTable] | None = None
) -> list[Comparison]:
    """Each further run minus the first, in the headline and in each group, on outputs scored in every run.

    The headline is compared where it is the plain mean of the scores, or of the group means with all groups
    present; other headlines (MME's points) have no paired difference here. p-values are Holm-adjusted over every
    row returned. `tables` spares reading the scores again.
    """
    tables = [score_table(run) for run in runs] if tables is None else tables
    names = run_names(runs)
    shared = shared_keys(tables)
    if not shared:
        return [Comparison(name, ()) for name in names[1:]]
    values = [[table.values[key] for key in shared] for table in tables]
    prompts = [sample_id for sample_id, _ in shared]
    group_of = [tables[0].groups[key] for key in shared]
    bounded = all(0 <= v <= 1 for run_values in values for v in run_values)
    wanted = list(runs[0].manifest["task"]["groups"])
    present = [group for group in wanted if group in set(group_of)]
    headline = _headline(runs[0], tables[0])
    found: list[list[tuple[str, stats.PairedDifference]]] = []
    for run_values in values[1:]:
        parts = []
        if headline is not None and (headline[1] == "pooled" or present == wanted):
            strata = group_of if headline[1] == "groups" else None
            difference = stats.paired_difference(
                run_values, values[0], prompts, strata, bounded=bounded
            )
            parts.append((headline[0], difference))
        for group in present if len(wanted) > 1 or headline is None else ():
            rows = [i for i, name in enumerate(group_of) if name == group]
            difference = stats.paired_difference(
                [run_values[i] for i in rows],
                [values[0][i] for i in rows],
                [prompts[i] for i in rows],
                bounded=bounded,
            )
            parts.append((group, difference))
        found.append(parts)
    adjusted = iter(stats.holm(d.p_value for parts in found for _, d in parts))
    return [
        Comparison(name, tuple(Difference(figure, d, next(adjusted)) for figure, d in parts))
        for name, parts in zip(names[1:], found, strict=True)
    ]


def _headline(run: RunData, table: ScoreTable) -> tuple[str, str] | None:
    """(name of the first metric, "groups" or "pooled"): which mean of the scores it is; None if neither."""
    metrics = run.metric_values()
    if not table.values or not metrics:
        return None
    by_group: dict[str, list[float]] = {}
    for key, value in table.values.items():
        by_group.setdefault(table.groups[key], []).append(value)
    means = [math.fsum(v) / len(v) for v in by_group.values()]
    candidates = {
        "groups": math.fsum(means) / len(means),
        "pooled": math.fsum(table.values.values()) / len(table.values),
    }
    headline = metrics[0]
    if headline.value is None:  # not given here, such as an overall without all groups
        return None
    scale = 100.0 if headline.unit == "percent" else 1.0
    for kind, value in candidates.items():
        if abs(headline.value - scale * value) <= OVERALL_TOLERANCE * scale:
            return headline.name, kind
    return None
