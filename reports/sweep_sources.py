"""Where the interval of a figure comes from: other seeds, other prompts; and which seeds are trainings at all.

Seeds are what a study of trainings replicates. An interval over prompts says what other prompts would give the very
models that were trained, and gets narrow with many prompts however few trainings there were; the two are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.stats.seeds import SeedScores, SeedsEstimate, of_values, over_seeds
from evals.sweeps.results import Cell
from reports.sweep_data import SweepData
from reports.sweep_stats import Effect

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Sources:
    """A cell's figure: `by_seed` (seed -> value), and its interval over seeds, over prompts, and over both.

    `is_one_training`: the seeds give the same scores on every output, because what makes the figure was trained once;
    there is no interval over seeds then.
    """

    value: float
    by_seed: dict[int, float]
    over_seeds: Bounds
    over_prompts: Bounds
    over_both: Bounds
    is_one_training: bool


def sources(data: SweepData, cell: Cell, metric: str) -> Sources | None:
    """The cell's figure taken apart; None where no seed has it."""
    points = {
        data.by_id[i].point.seed: i for i in cell.points
        if i in data.study.results and data.study.point(cell, data.by_id[i].point.seed, metric) == i
    }  # fmt: skip
    values = {seed: float(data.study.results[i].metrics[metric].value or 0.0) for seed, i in points.items()}
    if not values:
        return None
    terms = [data.table.terms.get((i, metric)) for i in points.values()]
    known = [t for t in terms if t is not None]
    scale = 1.0
    if len(known) == len(terms) and all(t.values for t in known):
        scale = known[0].scale
        found: SeedsEstimate = over_seeds(
            [SeedScores(t.values, t.clusters, t.strata) for t in known], bounded=known[0].is_bounded
        )
    else:
        found = of_values(list(values.values()))
    is_one = is_one_training(data, cell, metric)
    return Sources(
        sum(values.values()) / len(values), values, None if is_one else _scaled(found.ci_seeds, scale),
        _scaled(found.ci_prompts, scale), _scaled(found.ci, scale), is_one,
    )  # fmt: skip


def is_one_training(data: SweepData, cell: Cell, metric: str) -> bool:
    """Whether the finished seeds of a cell are one model as far as this figure goes.

    So it is with the understanding of sequential designs whose seeds share the backbone. Scores that are all alike,
    such as nothing right, do not count as a sign of it.
    """
    points = [i for i in cell.points if i in data.study.results and (i, metric) in data.table.terms]
    if len(points) < 2 or not shared_stages(data, points):
        return False
    scores = [(data.table.terms[i, metric].keys, data.table.terms[i, metric].values) for i in points]
    return len(set(scores[0][1])) > 1 and all(one == scores[0] for one in scores[1:])


def shared_stages(data: SweepData, points: Sequence[str]) -> list[str]:
    """Names of trained stages (steps above 0) that all these points share, in order."""
    ids = [dict.fromkeys(data.by_id[i].point.stages) for i in points]
    common = [stage for stage in ids[0] if all(stage in other for other in ids[1:])] if ids else []
    return [stage.rpartition("-")[0] for stage in common if data.stage_steps.get(stage, 0) > 0]


def shared_over_seeds(data: SweepData) -> dict[str, int]:
    """Trained stage -> number of seeds that it serves, of those that serve more than one: they are no replication."""
    users: dict[str, set[int]] = {}
    for point in data.points:
        for stage in point.point.stages:
            if data.stage_steps.get(stage, 0) > 0:
                users.setdefault(stage, set()).add(point.point.seed)
    found: dict[str, int] = {}
    for stage, seeds in users.items():
        name = stage.rpartition("-")[0]
        if len(seeds) > 1:
            found[name] = max(found.get(name, 0), len(seeds))
    return found


def unreplicated(data: SweepData, effect: Effect) -> list[str]:
    """Names of the cells behind an effect whose seeds are one training in its metric."""
    if len(effect.seeds) < 2:
        return []
    pairs = data.study.pairs(effect.axis, effect.before, effect.after)
    cells = dict.fromkeys(cell for pair in pairs for cell in (pair[0].id, pair[1].id))
    by_id = {cell.id: cell for cell in data.cells}
    return [data.names[c] for c in cells if is_one_training(data, by_id[c], effect.metric)]


def source_tables(data: SweepData) -> list[dict[str, Any]]:
    """Each headline of each cell with seeds and prompts apart; empty where no cell has two seeds."""
    found = []
    for metric in data.headlines:
        rows: list[dict[str, Any]] = []
        for cell in data.cells:
            row = data.row(cell, metric)
            if row is not None and row.value is not None and (one := sources(data, cell, metric)) is not None:
                rows.append({"name": data.names[cell.id], "row": row, "apart": one})
        if any(len(r["apart"].by_seed) > 1 for r in rows):
            found.append({"title": data.metric_name(metric), "metric": metric, "rows": rows})
    return found


def source_records(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same as plain rows for CSV."""
    return [
        {
            "cell": item["name"], "metric": part["metric"], "value": item["row"].value,
            "by_seed": " ".join(f"{seed}:{value:.6g}" for seed, value in item["apart"].by_seed.items()),
            "sd_seeds": item["row"].sd_seeds,
            **{
                f"{key}_{end}": bounds and bounds[i]
                for key in ("over_seeds", "over_prompts", "over_both")
                for i, end in enumerate(("low", "high"))
                for bounds in [getattr(item["apart"], key)]
            },
            "is_one_training": item["apart"].is_one_training,
        }
        for part in parts for item in part["rows"]
    ]  # fmt: skip


def _scaled(bounds: Bounds, scale: float) -> Bounds:
    return None if bounds is None else (scale * bounds[0], scale * bounds[1])
