"""Figures of a sweep against training: by step and by second, pooled over seeds; and one metric against another.

A line is the mean over those seeds of a cell that are finished, so that it cannot jump where a seed is missing; of a
cell without a finished seed it is the mean over the started ones as far as all of them got.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.stats.seeds import of_values
from evals.sweeps.folder import CurveRow
from evals.sweeps.results import Cell
from reports import sweep_plots
from reports.downloads import File, csv_file
from reports.page import both_widths
from reports.sweep_data import SweepData

HALF_IN = 5.4  # two of them stand side by side
TIME_UNITS = ((7200.0, 3600.0, "hours"), (600.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


@dataclass(frozen=True)
class CurvePoint:
    """A cell at a step: mean over `seeds`, the lowest and highest of them; of one seed its bounds over prompts.

    `ci`: Student's t over seeds, n - 1 degrees of freedom; None with one seed.
    """

    step: int
    seconds: float
    images: float
    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    is_final: bool
    ci: tuple[float, float] | None = None


def pooled(data: SweepData, cell: Cell, metric: str) -> list[CurvePoint]:
    """The curve of a cell, final evaluation left out where checkpoints were scored on other prompts."""
    rows = _rows(data, cell, metric)
    if not rows:
        return []
    steps = [
        key for key in _keys(next(iter(rows.values())))
        if all(_value(by_key.get(key), metric) is not None for by_key in rows.values())
    ]  # fmt: skip
    found = []
    for key in steps:
        at = [by_key[key] for by_key in rows.values()]
        values = [float(row.metrics[metric].value or 0.0) for row in at]
        figure = at[0].metrics[metric]
        low, high = (min(values), max(values)) if len(at) > 1 else (figure.ci_low, figure.ci_high)
        value = sum(values) / len(values)
        found.append(
            CurvePoint(
                key[0], sum(r.total.seconds for r in at) / len(at), sum(r.total.images for r in at) / len(at), value,
                value if low is None else low, value if high is None else high, tuple(rows), key[1],
                of_values(values).ci,
            )
        )  # fmt: skip
    return found


def is_same_prompts(data: SweepData, metric: str) -> bool:
    """Whether the end was scored on as many outputs as the checkpoints, so that it belongs to the curve."""
    sizes = {row.is_final: row.metrics[metric].n for p in data.points for row in p.curve if metric in row.metrics}
    return len(set(sizes.values())) <= 1


def curve_figures(data: SweepData, stem: str) -> tuple[list[dict[str, Any]], File | None]:
    """For each metric: title, name, charts by steps and by seconds; and all of it as one CSV."""
    figures, records = [], []
    for metric in data.curved:
        has_end = is_same_prompts(data, metric)
        curves = {cell.id: pooled(data, cell, metric) for cell in data.cells}
        records += list(_records(data, metric, curves))
        kept = {c: [p for p in points if has_end or not p.is_final] for c, points in curves.items()}
        kept = {c: points for c, points in kept.items() if points}
        if not kept:
            continue
        name = data.metric_name(metric)
        slowest = max(points[-1].seconds for points in kept.values())
        divisor, unit = next((d, u) for least, d, u in TIME_UNITS if slowest >= least)
        part: dict[str, Any] = {"metric": metric, "title": name, "has_end": has_end, "axes": []}
        part["is_headline"] = metric in data.headlines
        part["one_seed"] = all(len(points[0].seeds) == 1 for points in kept.values())
        for key, x_label in (("steps", "training steps of the last stage"), ("seconds", f"training {unit}")):
            if key == "seconds" and (slowest <= 0 or not part["is_headline"]):
                continue
            lines = [_line(data, c, points, key, divisor) for c, points in kept.items()]
            text = "; ".join(f"{line.name}: " + ", ".join(f"{y:.3g}" for y in line.y) for line in lines)
            charts = both_widths(
                lambda width_in, lines=lines, x_label=x_label, name=name: sweep_plots.curves_chart(
                    lines, x_label, name, width_in=width_in
                ),
                f"{name} against {key}",
                text,
                HALF_IN,
            )
            part["axes"].append({"key": key, "charts": charts, "figure": f"{stem}-{metric.replace('/', '-')}-{key}"})
        figures.append(part)
    return figures, csv_file(f"{stem}-curves.csv", records, "Curves of all cells, CSV") if records else None


def _line(
    data: SweepData, cell: str, points: Sequence[CurvePoint], key: str, divisor: float
) -> sweep_plots.Line:
    x = [float(p.step) if key == "steps" else p.seconds / divisor for p in points]
    return sweep_plots.Line(
        data.names[cell], data.places[cell], x, [p.value for p in points], [p.low for p in points],
        [p.high for p in points],
    )  # fmt: skip


def _rows(data: SweepData, cell: Cell, metric: str) -> Mapping[int, Mapping[tuple[int, bool], CurveRow]]:
    """seed -> (step, is_final) -> row: of the finished seeds, else of those that have begun."""
    points = [data.by_id[i] for i in cell.points if i in data.by_id and not data.table.is_mixed(i, metric)]
    with_rows = [p for p in points if p.curve]
    done = [p for p in with_rows if p.state.status == "done"]
    return {p.point.seed: {(r.step, r.is_final): r for r in p.curve} for p in done or with_rows}


def _keys(by_key: Mapping[tuple[int, bool], CurveRow]) -> list[tuple[int, bool]]:
    return sorted(by_key)


def _value(row: CurveRow | None, metric: str) -> float | None:
    figure = row.metrics.get(metric) if row is not None else None
    return figure.value if figure is not None else None


def _records(
    data: SweepData, metric: str, curves: Mapping[str, Sequence[CurvePoint]]
) -> Iterator[dict[str, Any]]:
    values = {cell.id: cell.values for cell in data.cells}
    for cell, points in curves.items():
        for p in points:
            yield {
                **{axis: values[cell].get(axis) for axis in data.sweep["axes"]}, "metric": metric, "step": p.step,
                "train_seconds": round(p.seconds, 2), "train_images": round(p.images), "value": p.value,
                "low": p.low, "high": p.high, "seeds_low": p.ci and p.ci[0], "seeds_high": p.ci and p.ci[1],
                "seeds": " ".join(map(str, p.seeds)), "is_final": p.is_final,
            }  # fmt: skip


def plane_figure(data: SweepData, stem: str) -> dict[str, Any] | None:
    """Understanding against generation: the first headline of each kind; None unless both have been measured."""
    metrics = {data.kind(m): m for m in reversed(data.headlines)}
    if "understanding" not in metrics or "generation" not in metrics:
        return None
    x_name, y_name = metrics["understanding"], metrics["generation"]
    spots, ups = [], []
    for cell in data.cells:
        x, y = data.row(cell, x_name), data.row(cell, y_name)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        ups = [x.higher_is_better, y.higher_is_better]
        seeds = [
            (fx, fy) for i in cell.points
            if (fx := _final(data, i, x_name)) is not None and (fy := _final(data, i, y_name)) is not None
        ]  # fmt: skip
        spots.append(
            sweep_plots.Spot(
                data.names[cell.id], data.places[cell.id], x.value, y.value, _ci(x), _ci(y),
                seeds if len(seeds) > 1 else (),
            )
        )  # fmt: skip
    if not spots:
        return None
    front = pareto_front([(s.x if ups[0] else -s.x, s.y if ups[1] else -s.y) for s in spots])
    labels = data.metric_name(x_name), data.metric_name(y_name)
    text = "; ".join(f"{s.name}: {labels[0]} {s.x:.3g}, {labels[1]} {s.y:.3g}" for s in spots)
    rows = [
        {"cell": s.name, x_name: s.x, f"{x_name}_ci": s.x_ci, y_name: s.y, f"{y_name}_ci": s.y_ci,
         "on_front": i in front} for i, s in enumerate(spots)
    ]  # fmt: skip
    charts = both_widths(
        lambda width_in: sweep_plots.plane_chart(spots, front, *labels, width_in=width_in),
        f"{labels[1]} against {labels[0]}", text,
    )  # fmt: skip
    return {
        "charts": charts, "figure": f"{stem}-pareto", "csv": csv_file(f"{stem}-pareto.csv", rows), "x": labels[0],
        "y": labels[1], "front": [spots[i].name for i in front], "has_seeds": any(s.seeds for s in spots),
    }  # fmt: skip


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of points that no other equals or beats in both coordinates (larger is better), from left to right."""
    front = [
        i for i, (x, y) in enumerate(points)
        if not any((a >= x and b >= y) and (a, b) != (x, y) for a, b in points)
    ]  # fmt: skip
    return sorted(front, key=lambda i: points[i])


def axis_figures(data: SweepData, stem: str) -> list[dict[str, Any]]:
    """Each axis of three or more numbers: the headlines along it, a line for each combination of the other axes."""
    figures = []
    for axis, values in data.axes.items():
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) < 3:
            continue
        for metric in data.headlines:
            lines = _along(data, axis, metric)
            if not lines:
                continue
            name = data.metric_name(metric)
            ticks = [(float(v), f"{v:g}") for v in sorted(numbers)]
            text = "; ".join(f"{line.name}: " + ", ".join(f"{y:.3g}" for y in line.y) for line in lines)
            charts = both_widths(
                lambda width_in, lines=lines, ticks=ticks, axis=axis, name=name: sweep_plots.axis_chart(
                    lines, ticks, axis.replace("_", " "), name, width_in=width_in
                ),
                f"{name} along {axis}", text, HALF_IN,
            )  # fmt: skip
            figures.append({
                "charts": charts, "title": f"{name} along {axis.replace('_', ' ')}",
                "figure": f"{stem}-{axis}-{metric.replace('/', '-')}",
            })  # fmt: skip
    return figures


def _along(data: SweepData, axis: str, metric: str) -> list[sweep_plots.Line]:
    groups: dict[str, list[tuple[float, Any]]] = {}
    for cell in data.cells:
        row, value = data.row(cell, metric), cell.values.get(axis)
        if row is None or row.value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        rest = ", ".join(str(cell.values.get(a)) for a in data.axes if a != axis) or "all points"
        groups.setdefault(rest, []).append((float(value), row))
    lines = []
    for place, (name, found) in enumerate(groups.items()):
        found.sort(key=lambda pair: pair[0])
        rows = [row for _, row in found]
        lows = [r.value if r.ci_low is None else r.ci_low for r in rows]
        highs = [r.value if r.ci_high is None else r.ci_high for r in rows]
        lines.append(sweep_plots.Line(name, place, [x for x, _ in found], [r.value for r in rows], lows, highs))
    return lines


def _final(data: SweepData, point: str, metric: str) -> float | None:
    result = data.study.results.get(point)
    if data.table.is_mixed(point, metric):
        return None
    figure = result.metrics.get(metric) if result is not None else None
    return figure.value if figure is not None else None


def _ci(row: Any) -> tuple[float, float] | None:
    return None if row.ci_low is None or row.ci_high is None else (row.ci_low, row.ci_high)
