"""Finished runs against a baseline: the paired difference of every metric on the samples they share.

The first run is the baseline; a difference is run minus baseline. The unit that is resampled is the
metric's own (prompts, image pairs), p-values come from flipping the sign of whole units, and Holm's
correction covers all p-values of one comparison together. The terminal (``blip3o-eval compare``) and the
HTML page (``reports.compare``) both print what is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals import stats
from evals.api import Metric, PairedMetric, ScoreRow, Task, Terms
from evals.errors import EvalError, InputError, UsageError, unknown_name
from evals.results import RunData, score_from_json

Key = tuple[str, int]  # sample id, image index

_SHORT_DIGEST = 12
# They move no verdict worth a note, or are the very thing that is compared.
_NOT_SAID = (
    "batch_size", "judge.batch_size", "fingerprint", "model.name", "model.version",
    "model.weights_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One metric of one run against the baseline.

    ``baseline`` and ``value`` are the metric on the shared samples only, in the metric's unit; ``n`` counts
    shared values, ``n_clusters`` the independent units among them. ``p_holm`` is ``p_value`` corrected for
    everything in the comparison. Without a difference ``note`` says why, and the numbers are None.
    """

    metric: str
    unit: str
    higher_is_better: bool
    baseline: float | None = None
    value: float | None = None
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    n: int = 0
    n_clusters: int = 0
    method: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class RunDifferences:
    """One run against the baseline: what they share, and a Difference per metric in printing order.

    ``shared``: outputs with a score in both; ``scored``: outputs with a score in (baseline, run).
    """

    name: str
    shared: int
    shared_samples: int
    scored: tuple[int, int]
    rows: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def is_partial(self) -> bool:
        return self.shared < max(self.scored)


@dataclass(frozen=True)
class Comparison:
    """Two or more runs, the first of them the baseline."""

    runs: tuple[RunData, ...]
    names: tuple[str, ...]
    against: tuple[RunDifferences, ...]

    @property
    def n_tests(self) -> int:
        """How many p-values Holm's correction covers."""
        return sum(row.p_value is not None for one in self.against for row in one.rows)

    def to_json(self) -> dict[str, Any]:
        """JSON values: the runs, and per run a list of differences."""
        manifest = self.runs[0].manifest
        judge = manifest["judge"]
        return {
            "task": {key: manifest["task"][key] for key in ("name", "version", "prompts_sha256")},
            "judge": judge and {k: judge[k] for k in ("name", "version", "weights_sha256")},
            "baseline": self.names[0],
            "runs": [
                {
                    "name": name,
                    "run": str(run.root),
                    "model": run.manifest["model"]["name"],
                    "config_sha256": run.manifest["config_sha256"],
                    "partial": run.manifest["partial"],
                    "is_test_double": bool(run.results and run.results["is_test_double"]),
                }
                for name, run in zip(self.names, self.runs, strict=True)
            ],
            "correction": {"method": "holm", "tests": self.n_tests},
            "comparisons": [
                {
                    "run": one.name,
                    "shared_outputs": one.shared,
                    "shared_samples": one.shared_samples,
                    "scored_outputs": {"baseline": one.scored[0], "run": one.scored[1]},
                    "notes": list(one.notes),
                    "metrics": {row.metric: _row_json(row) for row in one.rows},
                }
                for one in self.against
            ],
        }


def compare(
    runs: Sequence[RunData], task: Task | None = None, only: Sequence[str] = ()
) -> Comparison:
    """Compare finished runs of one task with the first of them.

    Args: task: the task object of the runs; None finds it by its name. only: names of the metrics to compare,
    all without any; the correction covers no others.
    Raises: UsageError naming what differs when runs cannot be compared, or what is unfinished; InputError
    for a damaged file.
    """
    if len(runs) < 2:
        raise UsageError("give two or more run folders: the first is the baseline")
    _check_finished(runs)
    check_comparable(runs)
    against = paired_comparisons(runs, task, only)
    for run, one in zip(runs[1:], against, strict=True):
        if not one.shared:
            differing = "; ".join(_settings_that_differ(runs[0], run)) or "no settings differ"
            raise UsageError(f"{runs[0].root} and {run.root} share no scored output ({differing})")
    return Comparison(tuple(runs), tuple(run_names(runs)), tuple(against))


def paired_comparisons(
    runs: Sequence[RunData], task: Task | None = None, only: Sequence[str] = ()
) -> list[RunDifferences]:
    """Each further run against the first; without shared outputs its rows are empty.

    Where the task is not installed, or in another version than scored the runs, the groups are compared by
    the plain means of their scores, and a note says so.
    """
    names = run_names(runs)
    scores = [read_scores(run) for run in runs]
    metrics, remarks = metrics_of(runs[0], task)
    known = [metric.name for metric in metrics]
    for name in only:
        if name not in known:
            raise unknown_name("metric", name, known)
    metrics = [metric for metric in metrics if not only or metric.name in only]
    against = []
    for run, name, rows in zip(runs[1:], names[1:], scores[1:], strict=True):
        shared = [key for key in scores[0] if key in rows]
        first, other = [scores[0][k] for k in shared], [rows[k] for k in shared]
        counts = (len(scores[0]), len(rows))
        against.append(
            RunDifferences(
                name=name,
                shared=len(shared),
                shared_samples=len({sample for sample, _ in shared}),
                scored=counts,
                rows=tuple(difference(m, first, other) for m in metrics) if shared else (),
                notes=(*_notes(runs[0], run, len(shared), counts), *remarks),
            )
        )
    return _with_holm(against)


def check_comparable(runs: Sequence[RunData]) -> None:
    """Refuse runs of different tasks, prompts or judges. Raises UsageError naming all that differs."""
    first = runs[0]
    wanted = identity(first)
    for run in runs[1:]:
        found = identity(run)
        differing = [
            f"{key}: {_shown(wanted[key])} and {_shown(found[key])}"
            for key in wanted
            if wanted[key] != found[key]
        ]
        if differing:
            hint = "report them one by one"
            if all(line.startswith("judge") for line in differing):
                hint = "judge both by the same judge with `blip3o-eval rescore`"
            raise UsageError(
                f"{first.root} and {run.root} do not compare ({'; '.join(differing)}): {hint}"
            )


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


def difference(
    metric: Metric, baseline: Sequence[ScoreRow], rows: Sequence[ScoreRow]
) -> Difference:
    """The metric's paired difference, rows minus baseline, on rows of the same samples."""
    empty = Difference(metric.name, metric.unit, metric.higher_is_better)
    if not isinstance(metric, PairedMetric):
        return replace(empty, note="no paired difference: the metric does not say what it averages")
    try:
        first, other = metric.terms(baseline), metric.terms(rows)
        if first is None or other is None:
            return replace(empty, note=metric.compute(baseline).note or metric.compute(rows).note)
    except EvalError as error:  # a file that the metric reads, such as DPG's questions, is missing
        return replace(empty, note=str(error))
    first, other = aligned(first, other)
    if not first.keys:
        return replace(empty, note="no shared values")
    if first.clusters != other.clusters or first.strata != other.strata:
        raise InputError(f"metric {metric.name!r} groups the same samples differently in two runs")
    paired = stats.paired_difference(
        other.values, first.values, first.clusters, first.strata, bounded=first.is_bounded
    )
    scale = first.scale
    return replace(
        empty,
        baseline=scale * _mean(first),
        value=scale * _mean(other),
        difference=scale * paired.value,
        ci95=None if paired.ci is None else (scale * paired.ci[0], scale * paired.ci[1]),
        p_value=None if math.isnan(paired.p_value) else paired.p_value,
        n=paired.n,
        n_clusters=paired.n_clusters,
        method=paired.method,
    )


def aligned(first: Terms, other: Terms) -> tuple[Terms, Terms]:
    """Both cut to the keys they share, in the order of the first."""
    places: dict[Hashable, int] = {key: i for i, key in enumerate(other.keys)}
    pairs = [(i, places[key]) for i, key in enumerate(first.keys) if key in places]
    return _taken(first, [i for i, _ in pairs]), _taken(other, [j for _, j in pairs])


def _taken(terms: Terms, indices: Sequence[int]) -> Terms:
    def take(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[i] for i in indices)

    return replace(
        terms,
        keys=take(terms.keys),
        values=take(terms.values),
        clusters=take(terms.clusters),
        strata=None if terms.strata is None else take(terms.strata),
    )


def _mean(terms: Terms) -> float:
    groups: dict[Hashable, list[float]] = {}
    for stratum, value in zip(
        terms.strata or [None] * len(terms.values), terms.values, strict=True
    ):
        groups.setdefault(stratum, []).append(value)
    return math.fsum(math.fsum(v) / len(v) for v in groups.values()) / len(groups)


def _with_holm(against: Sequence[RunDifferences]) -> list[RunDifferences]:
    tested = [row.p_value for one in against for row in one.rows if row.p_value is not None]
    adjusted = iter(stats.holm(tested))
    return [
        replace(
            one,
            rows=tuple(
                row if row.p_value is None else replace(row, p_holm=next(adjusted))
                for row in one.rows
            ),
        )
        for one in against
    ]


def read_scores(run: RunData) -> dict[Key, ScoreRow]:
    """Rows that have a score, by place. Raises InputError for a damaged file."""
    path = run.root / "scores.jsonl"
    try:
        rows = [score_from_json(row) for row in run.scores()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): run the same command again, which scores it anew"
        ) from None
    return {(row.sample_id, row.index): row for row in rows if row.score.is_scored}


def _check_finished(runs: Sequence[RunData]) -> None:
    for run in runs:
        if not run.is_finished:
            raise UsageError(
                f"{run.root} is not finished: run its command again (or merge its shards) first"
            )
    seen: dict[Any, RunData] = {}
    for run in runs:
        place = run.root.resolve()
        if place in seen:
            raise UsageError(f"{run.root} was given twice: compare it with another run")
        seen[place] = run


def metrics_of(run: RunData, task: Task | None = None) -> tuple[Sequence[Metric], list[str]]:
    """The metrics of the run's task, or the means of its groups and a sentence that says why."""
    recorded = run.manifest["task"]
    try:
        if task is None:
            from evals.plugins.lookup import find_task

            # Tasks of lmms-eval have their figures from their data.
            task = find_task(recorded["name"], run.manifest["config"].get("data"))
        if task.version == recorded["version"]:
            return task.metrics(), []
        reason = f"installed is version {task.version} of the task, the runs were scored by {recorded['version']}"
    except EvalError as error:
        reason = str(error)
    from evals.metrics.accuracy import GroupMean

    groups = [GroupMean(group, group) for group in recorded["groups"]]
    return groups, [f"only groups are compared, by plain means of their scores: {reason}"]


def identity(run: RunData) -> dict[str, Any]:
    """What has to be equal for two figures to mean the same."""
    task, judge = run.manifest["task"], run.manifest["judge"] or {}
    return {
        "task": task["name"],
        "task version": task["version"],
        "prompts": task["prompts_sha256"],
        "judge": judge.get("name"),
        "judge version": judge.get("version"),
        "judge weights": judge.get("weights_sha256"),
        "judge settings": judge.get("settings"),
    }


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    is_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:_SHORT_DIGEST] if is_digest else text


def _settings_that_differ(first: RunData, run: RunData) -> list[str]:
    """``seed: 42 and 7``: settings that may move the comparison; which model it is stands in the names."""
    a, b = first.manifest["fingerprint"], run.manifest["fingerprint"]
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in _NOT_SAID]
    return [
        f"{key}: {_shown(a.get(key))} and {_shown(b.get(key))}"
        for key in keys
        if a.get(key) != b.get(key)
    ]


def _notes(first: RunData, run: RunData, shared: int, counts: tuple[int, int]) -> list[str]:
    notes = []
    if shared < max(counts):
        notes.append(
            f"partial overlap: {shared} outputs have a score in both runs, of {counts[0]} in "
            f"{first.root} and {counts[1]} in {run.root}; the rest is left out"
        )
    notes += [f"settings differ, {line}" for line in _settings_that_differ(first, run)]
    own = [d for d in run.manifest["deviations"] if d not in first.manifest["deviations"]]
    other = [d for d in first.manifest["deviations"] if d not in run.manifest["deviations"]]
    notes += [f"{run.root}: {text}" for text in own] + [f"{first.root}: {text}" for text in other]
    return notes


def _row_json(row: Difference) -> dict[str, Any]:
    names = (
        "baseline", "value", "difference", "ci95", "p_value", "p_holm", "n", "n_clusters", "unit",
        "higher_is_better", "method", "note",
    )  # fmt: skip
    data: Mapping[str, Any] = {name: getattr(row, name) for name in names}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}
