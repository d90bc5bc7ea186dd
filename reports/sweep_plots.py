"""Figures of a sweep: curves with bands, the plane of two metrics, a metric along an axis. As `reports.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.plots import INK, LINE, MUTED, add_legend, new_figure, run_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """One cell's figure against what it cost. `place`: the cell's number, which decides colour and marker.

    `low`, `high`: the band around `y`, equal to it where there is none.
    """

    name: str
    place: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Spot:
    """One cell in the plane of two metrics: its values with intervals, and each of its seeds as (x, y)."""

    name: str
    place: int
    x: float
    y: float
    x_ci: Bounds
    y_ci: Bounds
    seeds: Sequence[tuple[float, float]] = ()


def curves_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, width_in: float = 7.2
) -> tuple[Figure, Axes]:
    """Lines with markers and bands, told apart by colour and shape."""
    fig, ax = _plane(width_in, len(lines), x_label, y_label)
    for line in lines:
        color, marker = run_style(line.place)
        if any(h > lo for lo, h in zip(line.low, line.high, strict=True)):
            ax.fill_between(line.x, line.low, line.high, color=color, alpha=0.16, linewidth=0)
        ax.plot(line.x, line.y, color=color, marker=marker, markersize=5, linewidth=1.8)
    ax.set_xlim(left=0)
    add_legend(fig, [line.name for line in lines], width_in, [line.place for line in lines])
    return fig, ax


def plane_chart(
    spots: Sequence[Spot], front: Sequence[int], x_label: str, y_label: str, *, width_in: float = 7.2
) -> tuple[Figure, Axes]:
    """Two metrics against each other; `front`: indices of spots that no other one beats in both, joined by a line."""
    fig, ax = _plane(width_in, len(spots), x_label, y_label)
    if len(front) > 1:
        xs, ys = [spots[i].x for i in front], [spots[i].y for i in front]
        ax.plot(xs, ys, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for spot in spots:
        color, marker = run_style(spot.place)
        for x, y in spot.seeds:
            ax.plot([x], [y], marker, color=color, markersize=4, alpha=0.4, markeredgewidth=0)
        if spot.x_ci:
            ax.plot(spot.x_ci, [spot.y, spot.y], color=color, linewidth=1.6, alpha=0.7, solid_capstyle="butt")
        if spot.y_ci:
            ax.plot([spot.x, spot.x], spot.y_ci, color=color, linewidth=1.6, alpha=0.7, solid_capstyle="butt")
        ax.plot([spot.x], [spot.y], marker, color=color, markersize=8)
    add_legend(fig, [spot.name for spot in spots], width_in, [spot.place for spot in spots])
    return fig, ax


def axis_chart(
    lines: Sequence[Line], ticks: Sequence[tuple[float, str]], x_label: str, y_label: str, *, width_in: float = 7.2
) -> tuple[Figure, Axes]:
    """A metric along the values of an axis, a line for each combination of the others, with intervals."""
    fig, ax = _plane(width_in, len(lines) if len(lines) > 1 else 0, x_label, y_label)
    for line in lines:
        color, marker = run_style(line.place)
        for x, low, high in zip(line.x, line.low, line.high, strict=True):
            ax.plot([x, x], [low, high], color=color, linewidth=2, alpha=0.6, solid_capstyle="butt")
        ax.plot(line.x, line.y, color=color, marker=marker, markersize=6, linewidth=1.4)
    ax.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    if len(lines) > 1:
        add_legend(fig, [line.name for line in lines], width_in, [line.place for line in lines])
    return fig, ax


def _plane(width_in: float, names: int, x_label: str, y_label: str) -> tuple[Figure, Any]:
    columns = 2 if width_in > 5 else 1
    fig, ax = new_figure(width_in, 0.46 * min(width_in, 7.4) + 0.9 + 0.21 * -(-names // columns))
    ax.spines["left"].set_visible(True)
    ax.spines["left"].set_color(LINE)
    ax.tick_params(axis="y", colors=MUTED, labelsize=9)
    ax.grid(color=LINE, linewidth=0.8)
    for set_label, text in ((ax.set_xlabel, x_label), (ax.set_ylabel, y_label)):
        set_label(text, color=INK, fontsize=10, parse_math=False)
    return fig, ax
