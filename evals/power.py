"""How large a run has to be: the design of a finished run, and what it can show.

Shares and correlations are estimated as cautiously as the intervals are (`evals.stats.shares`): a tag at 0 or 1 is
not taken to be without spread. How strongly two models agree on which prompts are hard cannot be seen in one run;
a second one measures it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.api import Metric, PairedMetric, Terms
from evals.comparison import check_comparable, metrics_of, read_scores
from evals.errors import UsageError
from evals.results import RunData
from evals.stats import (
    Design,
    cluster_size_needed,
    clusters_factor,
    minimum_detectable_difference,
    power_of_difference,
)
from evals.stats.clusters import checked, integer_codes, reduce_clusters, standard_error, stratify
from evals.stats.shares import cautious_correlation

DEFAULT_CORRELATION = 0.5
DEFAULT_ICC = 0.5
SIZES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Measured:
    """The design of a metric in a run. `scale`: metric units per fraction (100 for percent).

    `has_icc` is False where one picture per prompt leaves the correlation of pictures to a guess.
    """

    metric: str
    unit: str
    scale: float
    value: float
    design: Design
    has_icc: bool = True


def design_of_run(
    run: RunData, metric_name: str | None = None, correlation: float | None = None
) -> Measured:
    """The design behind a metric of a run; None takes the headline.

    Raises: UsageError for a metric that is not there, has no value, or does not lie in [0, 1].
    """
    metric = _metric(run, metric_name)
    terms = _terms(run, metric)
    groups = _groups(terms)
    sizes = [group.n / len(group.sums) for group in groups]
    design = Design(
        n_clusters=tuple(len(group.sums) for group in groups),
        shares=tuple(
            (group.mean * len(group.sums) + 1) / (len(group.sums) + 2) for group in groups
        ),
        iccs=tuple(
            cautious_correlation(group) if size > 1 else DEFAULT_ICC
            for group, size in zip(groups, sizes, strict=True)
        ),
        cluster_size=math.fsum(sizes) / len(sizes),
        correlation=DEFAULT_CORRELATION if correlation is None else correlation,
    )
    value = math.fsum(group.mean for group in groups) / len(groups)
    return Measured(
        metric.name, metric.unit, terms.scale, terms.scale * value, design, has_icc=max(sizes) > 1
    )


def correlation_of_runs(first: RunData, second: RunData, metric_name: str | None = None) -> float:
    """How strongly the chances of two runs go together over prompts, in [0, 1].

    From the variance of their paired difference: what is more than chance within prompts is put down to prompts
    on which the two differ.
    """
    check_comparable([first, second])
    metric = _metric(first, metric_name)
    one, other = _terms(first, metric), _terms(second, metric)
    places = {key: i for i, key in enumerate(other.keys)}
    shared = [(i, places[key]) for i, key in enumerate(one.keys) if key in places]
    if not shared:
        raise UsageError(f"{first.root} and {second.root} share no scored output")
    differences = checked([one.values[i] - other.values[j] for i, j in shared])
    clusters = [one.clusters[i] for i, _ in shared]
    strata = None if one.strata is None else [one.strata[i] for i, _ in shared]
    groups = (
        list(stratify(differences, strata, clusters).values())
        if strata is not None
        else [reduce_clusters(differences, integer_codes(clusters, differences.size))]
    )
    observed = standard_error(groups) ** 2
    designs = [design_of_run(run, metric_name, 0.0).design for run in (first, second)]
    within = sum(d.within / d.cluster_size for d in designs) / 2
    between = sum(d.between for d in designs) / 2
    if between == 0:
        return DEFAULT_CORRELATION
    return min(max(1 - (observed - within) / between, 0.0), 1.0)


@dataclass(frozen=True)
class Plan:
    """What a design can show. Differences in the metric's unit.

    `by_size`: (pictures per prompt, detectable difference). `limit`: what endless pictures would detect. Of the
    asked difference: its power, the prompts it needs, and the pictures per prompt (None: no number is enough).
    """

    measured: Measured
    power: float
    alpha: float
    comparisons: int
    detectable: float
    by_size: tuple[tuple[int, float], ...]
    limit: float
    difference: float | None = None
    power_of_difference: float | None = None
    prompts_needed: int | None = None
    num_images_needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; names as the options of the command."""
        design = self.measured.design
        asked = None
        if self.difference is not None:
            asked = {
                "value": self.difference,
                "power": self.power_of_difference,
                "prompts_needed": self.prompts_needed,
                "num_images_needed": self.num_images_needed,
            }
        return {
            "metric": self.measured.metric,
            "unit": self.measured.unit,
            "value": self.measured.value,
            "prompts": sum(design.n_clusters),
            "num_images": design.cluster_size,
            "strata": [
                {"prompts": n, "share": share, "icc": icc}
                for n, share, icc in zip(design.n_clusters, design.shares, design.iccs, strict=True)
            ],
            "icc_is_assumed": not self.measured.has_icc,
            "correlation": design.correlation,
            "power": self.power,
            "alpha": self.alpha,
            "comparisons": self.comparisons,
            "standard_error": self.measured.scale * design.standard_error(),
            "detectable_difference": self.detectable,
            "by_num_images": [
                {"num_images": m, "detectable_difference": d} for m, d in self.by_size
            ],
            "detectable_with_endless_images": self.limit,
            "difference": asked,
        }


def plan(
    measured: Measured,
    *,
    difference: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
) -> Plan:
    """What a design can show, with `alpha` shared by `comparisons` tests (Holm's worst case, alpha / comparisons).

    Raises: UsageError for numbers outside their range.
    """
    if comparisons < 1:
        raise UsageError(f"--comparisons {comparisons}: give 1 or more")
    design, scale, each = measured.design, measured.scale, alpha / comparisons
    try:
        found = Plan(
            measured=measured,
            power=power,
            alpha=alpha,
            comparisons=comparisons,
            detectable=scale * _detectable(design.standard_error(), power, each),
            by_size=tuple(
                (size, scale * _detectable(design.standard_error(size), power, each))
                for size in SIZES
            ),
            limit=scale * _detectable(design.standard_error(math.inf), power, each),
        )
        if difference is None:
            return found
        fraction = difference / scale
        factor = clusters_factor(design, fraction, power=power, alpha=each)
        return replace(
            found,
            difference=difference,
            power_of_difference=power_of_difference(fraction, design.standard_error(), alpha=each),
            prompts_needed=sum(design.with_clusters(factor).n_clusters),
            num_images_needed=cluster_size_needed(design, fraction, power=power, alpha=each),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _detectable(error: float, power: float, alpha: float) -> float:
    return minimum_detectable_difference(error, power=power, alpha=alpha)


def _metric(run: RunData, name: str | None) -> Metric:
    metrics = {metric.name: metric for metric in metrics_of(run)[0]}
    if name is None:
        return next(iter(metrics.values()))
    if name not in metrics:
        raise UsageError(f"{run.root} has no metric {name!r}; it has {', '.join(metrics)}")
    return metrics[name]


def _terms(run: RunData, metric: Metric) -> Terms:
    if not run.is_finished:
        raise UsageError(f"{run.root} is not finished: run its command again first")
    rows = list(read_scores(run).values())
    terms = metric.terms(rows) if isinstance(metric, PairedMetric) else None
    if terms is None or not terms.values:
        note = metric.compute(rows).note or "the metric does not say what it averages"
        raise UsageError(f"{run.root} says nothing about {metric.name!r}: {note}")
    if not terms.is_bounded:
        raise UsageError(
            f"metric {metric.name!r} has no bounds, so its spread cannot be planned with"
        )
    return terms


def _groups(terms: Terms) -> Sequence[Any]:
    values = checked(terms.values)
    strata: Sequence[Hashable] = terms.strata if terms.strata is not None else [""] * values.size
    return list(stratify(values, strata, terms.clusters).values())
