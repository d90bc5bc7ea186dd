"""The table of a sweep: per combination and metric the mean over its seeds, and the difference from the baseline.

How seeds are pooled (``evals.stats.seeds``): the value is the plain mean of the seeds' values. Its interval knows two
sources of chance, the prompts (the same for every seed, so they are clusters across seeds) and the trainings, and adds
their margins. A difference from the baseline is taken output by output within each seed that both have, and pooled
the same way. With a single seed an interval covers the prompts alone, which the row says. Figures that are no means
over samples (FID, KID) have one number per seed and Student's t over them. Holm's correction covers the first metric
of every task together, and all further ones together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals import comparison, stats
from evals.api import Metric, PairedMetric, ScoreRow, Terms
from evals.errors import EvalError, unknown_name
from evals.results import RunData, load
from evals.stats.seeds import SeedScores, SeedsEstimate, of_values, over_seeds
from evals.sweeps.api import Compute
from evals.sweeps.folder import FINAL, SweepFolder
from evals.sweeps.mixed import mixed_points
from evals.sweeps.records import Figure, Point, PointResult, State
from evals.sweeps.table import Cell, Row, SweepTable, write_csv

ONE_SEED = "one seed: the interval covers the prompts, not what another seed would give"

__all__ = ["ONE_SEED", "Cell", "Row", "SweepTable", "build", "write_csv"]


def build(folder: SweepFolder, only: Sequence[str] = ()) -> SweepTable:
    """The table of what is finished. ``only``: these metrics instead of the sweep's own.

    Raises: UnknownNameError for a metric that no finished point has; InputError where the folder is damaged.
    """
    return _Builder(folder, only).table()


@dataclass
class _Scored:
    """A metric of one point: its figure, and what it averages where it says so."""

    figure: Figure
    metric: Metric | None
    rows: Sequence[ScoreRow]
    terms: Terms | None = field(default=None)


class _Builder:
    def __init__(self, folder: SweepFolder, only: Sequence[str]) -> None:
        self.folder, self.sweep = folder, folder.sweep()
        self.notes: list[str] = []
        self.points: dict[str, Point] = {}
        self.states: dict[str, State] = {}
        self.results: dict[str, PointResult] = {}
        for i in folder.point_ids():
            self._open(i)
        self.metrics = tuple(self._chosen(only))
        self.mixed = mixed_points(folder, list(self.results), list(self.sweep["tasks"]))
        self.notes += [
            f"{point}: {task} differs from that of most points in {what}; it is in no figure"
            for (point, task), what in self.mixed.items()
        ]
        self._runs: dict[tuple[str, str], tuple[RunData, Sequence[ScoreRow], Mapping[str, Metric]]] = {}
        self._scored: dict[tuple[str, str], _Scored] = {}

    def _open(self, point: str) -> None:
        """Read a point; one whose files are damaged or half written counts as missing, and a note says so."""
        self.states[point] = self.folder.state(point)
        try:
            self.points[point] = self.folder.point(point)
            result = self.folder.result(point)
        except (EvalError, KeyError, TypeError) as error:
            self.notes.append(f"{point}: {' '.join(str(error).split())}")
            return
        if self.states[point].status == "done" and result is not None:
            self.results[point] = result

    def _chosen(self, only: Sequence[str]) -> list[str]:
        known = list(dict.fromkeys(name for r in self.results.values() for name in r.metrics))
        first = {name.partition("/")[0]: name for name in reversed(known)}
        chosen = [first.get(name, _full_name(name, known)) for name in only]
        for name in chosen:
            if name not in known:
                raise unknown_name("metric", name, known)
        return chosen or list(dict.fromkeys(_full_name(name, known) for name in self.sweep["metrics"]))

    def table(self) -> SweepTable:
        cells = [self._cell(cell, ids) for cell, ids in self.sweep["cells"].items()]
        rows = [self._row(cell, metric) for metric in self.metrics for cell in cells]
        rows = self._corrected(rows)
        missing = [i for i in self.states if i not in self.results]
        if missing:
            failed = sum(self.states[i].status == "failed" for i in missing)
            text = f"{len(missing)} of {len(self.states)} points are missing here"
            self.notes.append(text + (f", {failed} of them failed" if failed else ""))
        if len(self.sweep["left_out"]):
            self.notes.append(f"{len(self.sweep['left_out'])} combinations cannot be and were left out")
        if any(len(row.seeds) == 1 for row in rows):
            self.notes.append(ONE_SEED)
        return SweepTable(
            self.folder, self.sweep["name"], self.sweep["baseline"], self.metrics, tuple(cells), tuple(rows),
            any(r.is_test_double for r in self.results.values()), tuple(dict.fromkeys(self.notes)),
            {key: scored.terms for key, scored in self._scored.items() if scored.terms is not None}, self.mixed,
        )  # fmt: skip

    def _cell(self, cell: str, ids: Sequence[str]) -> Cell:
        done = [i for i in ids if i in self.results]
        failed = {
            i: self.states[i].error or "no reason is known"
            for i in ids
            if self.states[i].status == "failed"
        }
        found = Cell(
            cell, self._values_of(ids), tuple(ids), tuple(self.points[i].seed for i in done), failed
        )
        if not done:
            return found
        results = [self.results[i] for i in done]
        return replace(
            found,
            own=_mean_compute([r.own for r in results]),
            shared=_mean_compute([r.shared for r in results]),
            parameters=round(sum(r.parameters for r in results) / len(results)),
            evaluation_seconds=round(sum(r.evaluation_seconds for r in results) / len(results), 2),
        )

    def _corrected(self, rows: Sequence[Row]) -> list[Row]:
        """Holm's correction in two families: the headlines, a task's first metric each, and all the rest.

        In one family a dozen groups of prompts would drown the question that was asked.
        """
        headlines = {m.partition("/")[0]: m for m in reversed(self.metrics)}.values()
        adjusted: dict[int, float] = {}
        for family in (True, False):
            places = [
                i for i, row in enumerate(rows)
                if row.p_value is not None and (row.metric in headlines) == family
            ]  # fmt: skip
            p_values = [p for i in places if (p := rows[i].p_value) is not None]
            adjusted |= dict(zip(places, stats.holm(p_values), strict=True))
        return [replace(row, p_holm=adjusted.get(i)) for i, row in enumerate(rows)]

    def _values_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return next((self.points[i].values for i in ids if i in self.points), {})

    # -- a row --------------------------------------------------------------------------------

    def _row(self, cell: Cell, metric: str) -> Row:
        scored = self._by_seed(cell.points, metric)
        known = [one for one in scored.values() if one.figure.value is not None]
        figures = [s.figure for s in self._any(metric)]
        empty = Row(
            cell.id, metric, figures[0].unit if figures else "", figures[0].higher_is_better if figures else True
        )
        if not known:
            reason = next((s.figure.note for s in scored.values() if s.figure.note), None)
            return replace(empty, note=reason or ("failed" if cell.failed else "not there yet"))
        try:
            row = replace(empty, **self._value({k: v for k, v in scored.items() if v.figure.value is not None}))
            if cell.id != self.sweep["baseline"]:
                row = replace(row, **self._difference(cell, metric, scored))
        except (EvalError, ValueError) as error:  # damaged, or terms that do not fit together
            return replace(empty, note=" ".join(str(error).split()))
        return row

    def _any(self, metric: str) -> list[_Scored]:
        return [
            _Scored(r.metrics[metric], None, ()) for r in self.results.values() if metric in r.metrics
        ]

    def _value(self, scored: Mapping[int, _Scored]) -> dict[str, Any]:
        seeds = tuple(scored)
        figures = [s.figure for s in scored.values()]
        if len(figures) == 1:
            (one,) = figures
            return {
                "value": one.value, "ci_low": one.ci_low, "ci_high": one.ci_high, "n": one.n, "seeds": seeds,
                "method": "one seed", "note": one.note,
            }  # fmt: skip
        terms = [s.terms for s in scored.values()]
        if all(t is not None for t in terms):
            known = [t for t in terms if t is not None]
            found = over_seeds([_seed_scores(t) for t in known], bounded=known[0].is_bounded)
            scale, n = known[0].scale, found.n
        else:
            found = of_values([f.value for f in figures if f.value is not None])
            scale, n = 1.0, sum(f.n for f in figures)
        low, high = _bounds(found, scale)
        return {
            "value": scale * found.value, "ci_low": low, "ci_high": high, "sd_seeds": _finite(scale * found.sd_seeds),
            "n": n, "seeds": seeds, "method": found.method, "note": figures[0].note,
        }  # fmt: skip

    def _difference(
        self, cell: Cell, metric: str, scored: Mapping[int, _Scored]
    ) -> dict[str, Any]:
        base = self._by_seed(self.sweep["cells"][self.sweep["baseline"]], metric)
        seeds = tuple(
            seed for seed, one in scored.items()
            if one.figure.value is not None and seed in base and base[seed].figure.value is not None
        )  # fmt: skip
        if not seeds:
            return {"difference_note": "the baseline has no finished seed in common"}
        found: dict[str, Any] = {"paired_seeds": seeds}
        pairs = [(scored[seed], base[seed]) for seed in seeds]
        is_paired = all(a.terms is not None and b.terms is not None for a, b in pairs)
        if len(pairs) == 1 and is_paired:
            (one, other), = pairs
            assert one.metric is not None
            single = comparison.difference(one.metric, other.rows, one.rows)
            low, high = single.ci95 or (None, None)
            return {
                **found, "difference": single.difference, "difference_low": low, "difference_high": high,
                "p_value": single.p_value, "difference_method": single.method, "difference_note": single.note,
            }  # fmt: skip
        if is_paired:
            pooled, scale = self._pooled(pairs)
        else:
            pooled = of_values(
                [a.figure.value - b.figure.value for a, b in pairs],  # type: ignore[operator]
                is_difference=True,
            )
            scale = 1.0
            if len(pairs) == 1:
                found["difference_note"] = "one seed, and no mean over samples: the difference has no interval"
        low, high = _bounds(pooled, scale)
        return {
            **found, "difference": scale * pooled.value, "difference_low": low, "difference_high": high,
            "p_value": _finite(pooled.p_value), "difference_method": pooled.method,
        }  # fmt: skip

    def _pooled(self, pairs: Sequence[tuple[_Scored, _Scored]]) -> tuple[SeedsEstimate, float]:
        scores = []
        scale, is_bounded = 1.0, True
        for one, other in pairs:
            assert one.terms is not None and other.terms is not None
            first, second = comparison.aligned(one.terms, other.terms)
            scores.append(_seed_scores(first, against=second.values))
            scale, is_bounded = first.scale, first.is_bounded
        return over_seeds(scores, bounded=is_bounded), scale

    # -- reading ------------------------------------------------------------------------------

    def _by_seed(self, ids: Sequence[str], metric: str) -> dict[int, _Scored]:
        found = {}
        for i in ids:
            is_mixed = (i, metric.partition("/")[0]) in self.mixed
            if i in self.results and metric in self.results[i].metrics and not is_mixed:
                found[self.points[i].seed] = self._read(i, metric)
        return found

    def _read(self, point: str, name: str) -> _Scored:
        key = (point, name)
        if key not in self._scored:
            figure = self.results[point].metrics[name]
            task, _, own = name.partition("/")
            try:
                rows, metrics = self._run(point, task)
                metric = metrics.get(own)
                terms = metric.terms(rows) if isinstance(metric, PairedMetric) else None
                self._scored[key] = _Scored(figure, metric, rows, terms)
            except EvalError as error:
                self.notes.append(f"{point}: {' '.join(str(error).split())}")
                self._scored[key] = _Scored(figure, None, ())
        return self._scored[key]

    def _run(self, point: str, task: str) -> tuple[Sequence[ScoreRow], Mapping[str, Metric]]:
        """Scores and metrics of a final evaluation. Raises: EvalError for a damaged folder or other prompts."""
        from evals.plugins.lookup import find_metrics

        if (point, task) not in self._runs:
            run = load(self.folder.eval_folder(point, FINAL, task))
            metrics, remarks = comparison.metrics_of(run)
            self.notes += remarks
            further = find_metrics(run.manifest["config"].get("metrics", []))
            scored = list(comparison.read_scores(run).values())
            self._runs[point, task] = (run, scored, {m.name: m for m in [*metrics, *further]})
            first = next(r for (_, t), (r, _, _) in self._runs.items() if t == task)
            comparison.check_comparable([first, run])
        _, rows, known = self._runs[point, task]
        return rows, known


def _full_name(name: str, known: Sequence[str]) -> str:
    """``fid_stickers/kid`` of the plan is ``fid_stickers/kid-stickers`` once it has been computed: the full name says
    on which features. Other names stay as they are."""
    longer = [k for k in known if k.startswith(f"{name}-") and ":" not in k]
    return longer[0] if name not in known and len(longer) == 1 else name


def _seed_scores(terms: Terms, against: Sequence[float] | None = None) -> SeedScores:
    return SeedScores(terms.values, terms.clusters, terms.strata, against)


def _bounds(found: SeedsEstimate, scale: float) -> tuple[float | None, float | None]:
    return (None, None) if found.ci is None else (scale * found.ci[0], scale * found.ci[1])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean_compute(parts: Sequence[Compute]) -> Compute:
    n = len(parts)
    return Compute(
        round(sum(p.steps for p in parts) / n),
        round(sum(p.seconds for p in parts) / n, 2),
        round(sum(p.images for p in parts) / n),
    )
