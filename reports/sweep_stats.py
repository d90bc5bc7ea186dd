"""What the table of a sweep does not say yet: the effect of each axis over all others, and what a difference needs.

An effect is a contrast of trained models, paired by prompt and by seed like the differences of the table: all pairs of
cells that are equal but for the axis, each with the same weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals import comparison, stats
from evals.stats.replication import paired_seeds_needed, sd_interval
from evals.stats.seeds import (
    SeedScores,
    SeedsEstimate,
    detectable_difference,
    of_values,
    over_seeds,
    seeds_needed,
    welch,
)
from evals.sweeps.folder import PointResult
from evals.sweeps.results import Cell, SweepTable

N_RESAMPLES = 2_000  # for what is only planned with
Pair = tuple[Cell, Cell]


@dataclass(frozen=True)
class Effect:
    """One axis from one value to another, on one metric, averaged over the pairs of cells that differ in it alone.

    `pairs`: those with a finished seed in common, of `asked_pairs`; an effect rests on seeds that all of them have.

    `p_holm`: corrected for its family (headlines, others). None where there is no number; `note` says why. `ci` and
    `p_value` cover seeds and prompts, the seeds' part from the spread of every cell over its seeds (Welch). Alone:
    `ci_seeds`, other seeds on these prompts, Student's t over `by_seed` (the effect with each of `seeds`, n - 1 degrees
    of freedom); `ci_prompts`, other prompts and these trainings.
    """

    axis: str
    before: Any
    after: Any
    metric: str
    unit: str
    higher_is_better: bool
    pairs: int
    asked_pairs: int
    seeds: tuple[int, ...] = ()
    value: float | None = None
    ci: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    method: str | None = None
    note: str | None = None
    ci_seeds: tuple[float, float] | None = None
    ci_prompts: tuple[float, float] | None = None
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Need:
    """What it takes to see a difference in a metric. `seeds_for`: (difference in shares of 1, seeds a side;
    None: none are enough), empty for other units; `paired_for`: the same for a paired t-test over seeds on these very
    prompts (`evals.stats.replication`).

    `sd_seeds`: of the difference between two cells from one seed to the next, pooled over the cells, with the interval
    that `dof` degrees of freedom give it; `detectable`: by as many seeds as there are, in 8 of 10 studies.
    """

    metric: str
    unit: str
    sd_seeds: float
    sd_interval: tuple[float, float]
    dof: int
    n_seeds: int
    prompts: int
    detectable: float
    seeds_for: tuple[tuple[float, int | None], ...]
    paired_for: tuple[tuple[float, int | None], ...]


class Study:
    """A table with its points' results, for contrasts of cells."""

    def __init__(self, table: SweepTable, results: Mapping[str, PointResult], seeds: Mapping[str, int]) -> None:
        """`results` and `seeds` by point id."""
        self.table, self.results, self.seeds = table, results, seeds

    def point(self, cell: Cell, seed: int, metric: str) -> str | None:
        """The finished point of a cell and seed that has the metric."""
        for point in cell.points:
            result = self.results.get(point)
            if self.table.is_mixed(point, metric):
                continue
            if self.seeds.get(point) == seed and result is not None and metric in result.metrics:
                return point if result.metrics[metric].value is not None else None
        return None

    def effects(self, metrics: Sequence[str], axes: Mapping[str, Sequence[Any]]) -> list[Effect]:
        """Every axis of two or more values, from the baseline's value to each other one, on each metric."""
        found = []
        for axis, values in axes.items():
            if len(values) < 2:
                continue
            before = self._baseline_value(axis, values)
            for after in values:
                if after != before:
                    pairs = self.pairs(axis, before, after)
                    found += [self._effect(axis, before, after, metric, pairs) for metric in metrics]
        return found

    def corrected(self, effects: Sequence[Effect], headlines: Sequence[str]) -> list[Effect]:
        """With Holm's correction, headlines and all other metrics each for themselves, as in the table."""
        adjusted: dict[int, float] = {}
        for family in (True, False):
            places = [i for i, e in enumerate(effects) if (e.metric in headlines) == family and e.p_value is not None]
            p_values = [p for i in places if (p := effects[i].p_value) is not None]
            adjusted |= dict(zip(places, stats.holm(p_values), strict=True))
        return [replace(e, p_holm=adjusted.get(i)) for i, e in enumerate(effects)]

    def _baseline_value(self, axis: str, values: Sequence[Any]) -> Any:
        baseline = next((c for c in self.table.cells if c.id == self.table.baseline), None)
        value = baseline.values.get(axis) if baseline is not None else None
        return value if value in values else values[0]

    def pairs(self, axis: str, before: Any, after: Any) -> list[Pair]:
        """Cells that are equal but for the axis: (with `before`, with `after`)."""

        def others(cell: Cell) -> str:
            return repr(sorted((k, v) for k, v in cell.values.items() if k != axis))

        first = {others(c): c for c in self.table.cells if c.values.get(axis) == before}
        return [
            (first[others(c)], c) for c in self.table.cells if c.values.get(axis) == after and others(c) in first
        ]

    def _effect(self, axis: str, before: Any, after: Any, metric: str, pairs: Sequence[Pair]) -> Effect:
        rows = self.table.of(metric)
        unit, up = (rows[0].unit, rows[0].higher_is_better) if rows else ("", True)
        empty = Effect(axis, before, after, metric, unit, up, 0, len(pairs))
        if not pairs:
            return replace(empty, note="no two cells differ in this alone")
        pairs = [pair for pair in pairs if self.shared_seeds([pair], metric)]
        if not pairs:
            return replace(empty, note="no pair of cells has a finished seed in common")
        empty = replace(empty, pairs=len(pairs))
        seeds = self.shared_seeds(pairs, metric)
        if not seeds:
            return replace(empty, note="no seed is finished in every pair of cells")
        try:
            found, scale = self.contrast(pairs, seeds, metric, has_cells=True)
            by_seed = self.by_seed(pairs, seeds, metric)
        except (ValueError, TypeError) as error:  # terms that do not fit together
            return replace(empty, note=" ".join(str(error).split()))
        return replace(
            empty,
            seeds=seeds,
            value=scale * found.value,
            ci=_scaled(found.ci, scale),
            p_value=None if math.isnan(found.p_value) else found.p_value,
            method=found.method,
            ci_seeds=of_values(by_seed).ci,
            ci_prompts=_scaled(found.ci_prompts, scale),
            by_seed=by_seed,
        )

    def by_seed(self, pairs: Sequence[Pair], seeds: Sequence[int], metric: str) -> tuple[float, ...]:
        """Second minus first cell with each seed, mean over the pairs, in the metric's unit."""
        found = []
        for seed in seeds:
            values = [[self._value(cell, seed, metric) for cell in pair] for pair in pairs]
            found.append(math.fsum(second - first for first, second in values) / len(values))
        return tuple(found)

    def _value(self, cell: Cell, seed: int, metric: str) -> float:
        point = self.point(cell, seed, metric)
        assert point is not None
        return float(self.results[point].metrics[metric].value or 0.0)

    def shared_seeds(self, pairs: Sequence[Pair], metric: str) -> tuple[int, ...]:
        """Seeds that are finished in both cells of every pair."""
        known = dict.fromkeys(self.seeds.values())
        return tuple(s for s in known if all(self.point(cell, s, metric) for pair in pairs for cell in pair))

    def _cells_error(
        self, pairs: Sequence[Pair], seeds: Sequence[int], metric: str, scale: float
    ) -> tuple[float, float] | None:
        """Error over seeds from each cell's own spread, in units of the terms; None with one seed."""
        if len(seeds) < 2:
            return None
        weights: dict[str, float] = {}
        cells = {}
        for first, second in pairs:
            for cell, sign in ((first, -1), (second, 1)):
                weights[cell.id] = weights.get(cell.id, 0.0) + sign / len(pairs)
                cells[cell.id] = cell
        values = [[self._value(cells[c], seed, metric) / scale for seed in seeds] for c in weights]
        return welch(list(weights.values()), values)

    def contrast(
        self,
        pairs: Sequence[Pair],
        seeds: Sequence[int],
        metric: str,
        n_resamples: int = stats.clusters.N_RESAMPLES,
        *,
        has_cells: bool = False,
    ) -> tuple[SeedsEstimate, float]:
        """Second minus first cell, over pairs and seeds, and the metric's scale. `has_cells`: the error over seeds is
        from every cell's spread instead of the differences alone. Raises: ValueError for odd terms."""
        per_seed, scale, is_bounded = [], 1.0, True
        for seed in seeds:
            parts = []
            for first, second in pairs:
                one, other = self.point(second, seed, metric), self.point(first, seed, metric)
                assert one is not None and other is not None
                terms = self.table.terms.get((one, metric)), self.table.terms.get((other, metric))
                if terms[0] is not None and terms[1] is not None:
                    parts.append(comparison.aligned(terms[0], terms[1]))
            if len(parts) == len(pairs):
                scale, is_bounded = parts[0][0].scale, parts[0][0].is_bounded
                per_seed.append(_joined(parts))
        if len(per_seed) == len(seeds):
            error = self._cells_error(pairs, seeds, metric, scale) if has_cells else None
            found = over_seeds(per_seed, bounded=is_bounded, n_resamples=n_resamples, seeds_error=error)
            return found, scale
        error = self._cells_error(pairs, seeds, metric, 1.0) if has_cells else None
        return of_values(self.by_seed(pairs, seeds, metric), is_difference=True, seeds_error=error), 1.0

    def needs(self, metric: str, differences: Sequence[float]) -> Need | None:
        """What a difference of two cells takes; None without two seeds anywhere."""
        baseline = next((c for c in self.table.cells if c.id == self.table.baseline), None)
        if baseline is None:
            return None
        found, scale, n_seeds, dof = [], 1.0, 0, 0
        for cell in self.table.cells:
            pairs = [(baseline, cell)]
            seeds = self.shared_seeds(pairs, metric) if cell is not baseline else ()
            if len(seeds) < 2:
                continue
            try:
                estimate, scale = self.contrast(pairs, seeds, metric, N_RESAMPLES)
            except (ValueError, TypeError):
                continue
            if not any(self.by_seed(pairs, seeds, metric)):
                continue  # one model under two names: sequential cells share the backbone that answers
            found.append(estimate)
            n_seeds, dof = max(n_seeds, len(seeds)), dof + len(seeds) - 1
        if not found:
            return None
        sd = math.sqrt(sum(e.sd_seeds**2 for e in found) / len(found))
        var_prompts = sum(e.var_prompts for e in found) / len(found)
        unit = self.table.of(metric)[0].unit
        wanted = differences if unit in ("fraction", "percent") else ()
        low, high = sd_interval(sd, dof)
        return Need(
            metric, unit, scale * sd, (scale * low, scale * high), dof, n_seeds, max(e.n_clusters for e in found),
            scale * detectable_difference(n_seeds, sd_seeds=sd, var_prompts=var_prompts),
            tuple((d, seeds_needed(d, sd_seeds=sd, var_prompts=var_prompts, limit=200)) for d in wanted),
            tuple((d, paired_seeds_needed(d, sd, limit=200)) for d in wanted),
        )  # fmt: skip


def _scaled(bounds: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
    return None if bounds is None else (scale * bounds[0], scale * bounds[1])


def _joined(parts: Sequence[tuple[Any, Any]]) -> SeedScores:
    """The terms of several pairs as one seed's values: each pair is as large as its samples are many."""
    values = [v for one, _ in parts for v in one.values]
    against = [v for _, other in parts for v in other.values]
    clusters = [c for one, _ in parts for c in one.clusters]
    has_strata = all(one.strata is not None for one, _ in parts)
    strata = [s for one, _ in parts for s in one.strata or ()] if has_strata else None
    return SeedScores(values, clusters, strata, against)
