"""Figures, returned as (fig, ax), and their SVG in the colours of the page's theme.

matplotlib's Agg figures are made directly, so no window system and no global state is involved. The colours used
here are stand-ins: `to_svg` replaces each by a CSS variable, so one drawing serves the light and the dark page.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, SOFT = "#16191d", "#5a6370", "#dfe2e6", "#2457c5", "#c9d6f3"
MAX_LABEL = 36  # characters of a name beside a chart; the table below it has the whole name
KIND_COLORS = (
    "#3f8f63",
    "#5b7cb8",
    "#c08a2e",
    "#b3566f",
    "#7b68a8",
    "#4d9aa5",
    "#8a6a4f",
    "#94a04a",
    "#a77bb5",
)
UNSCORED_COLOR = "#a9b0b9"
RUN_COLORS = ("#2457c5", "#c08a2e", "#3f8f63", "#b3566f", "#7b68a8", "#4d9aa5", "#8a6a4f", "#94a04a")
RUN_MARKERS = ("o", "D", "s", "^", "v", "P", "X", "*")
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    ACCENT: "--accent",
    SOFT: "--accent-soft",
    UNSCORED_COLOR: "--kind-none",
    **{color: f"--kind-{i}" for i, color in enumerate(KIND_COLORS)},
}


def interval_chart(
    labels: Sequence[str],
    values: Sequence[float | None],
    bounds: Sequence[tuple[float, float] | None],
    *,
    width_in: float = 7.2,
    top: float = 1.0,
    emphasised: int = 1,
    notes: Sequence[str] = (),
) -> tuple[Figure, Axes]:
    """Points with their intervals, one line per label, on an axis from 0 to `top`.

    `emphasised`: how many of the first lines are headline figures, set off by a rule. `notes`: what stands at the
    right of each line, such as value and n.
    """
    fig, ax = new_figure(width_in, 0.34 * len(labels) + 0.42)
    for y, (value, bound) in enumerate(zip(values, bounds, strict=True)):
        if bound is not None:
            ax.plot(
                bound,
                [y, y],
                color=ACCENT,
                linewidth=3.2,
                alpha=0.35,
                solid_capstyle="butt",
                clip_on=False,
            )
            for x in bound:
                ax.plot([x, x], [y - 0.16, y + 0.16], color=ACCENT, linewidth=1.2, clip_on=False)
        if value is None:
            ax.text(
                0.012 * top, y, "not given", color=MUTED, fontsize=9, va="center", style="italic"
            )
        else:
            is_headline = y < emphasised
            ax.plot(
                [value], [y], "D" if is_headline else "o",
                color=ACCENT, markersize=7 if is_headline else 6, clip_on=False,
            )  # fmt: skip
    if 0 < emphasised < len(labels):
        ax.axhline(emphasised - 0.5, color=LINE, linewidth=1)
    for y, note in enumerate(notes):
        ax.text(
            1.03, y, note, transform=ax.get_yaxis_transform(), color=MUTED, fontsize=9, va="center",
            parse_math=False,
        )  # fmt: skip
    _name_rows(ax, labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlim(0, top)
    ax.grid(axis="x", color=LINE, linewidth=0.8)
    return fig, ax


def runs_chart(
    labels: Sequence[str],
    runs: Sequence[str],
    values: Sequence[Sequence[float | None]],
    bounds: Sequence[Sequence[tuple[float, float] | None]],
    *,
    width_in: float = 7.2,
    top: float = 1.0,
) -> tuple[Figure, Axes]:
    """Points with intervals of several runs: one line per label and run, runs told apart by colour and shape.

    `values[r][i]`: run r, label i. The legend stands above the axes, so that a saved figure has it.
    """
    step = 0.22
    band = step * len(runs) + 0.24
    fig, ax = new_figure(width_in, 0.98 * band * len(labels) * 0.62 + 0.42 + 0.24 * math.ceil(len(runs) / 2))
    for r in range(len(runs)):
        color, marker = run_style(r)
        for i, (value, bound) in enumerate(zip(values[r], bounds[r], strict=True)):
            y = i * band + (r - (len(runs) - 1) / 2) * step
            if bound is not None:
                ax.plot(bound, [y, y], color=color, linewidth=2, solid_capstyle="butt", clip_on=False)
            if value is not None:
                ax.plot([value], [y], marker, color=color, markersize=6, clip_on=False)
    ax.set_yticks([i * band for i in range(len(labels))], [_label(text) for text in labels])
    _plain_labels(ax)
    ax.set_ylim((len(labels) - 0.5) * band, -0.5 * band)
    ax.set_xlim(0, top)
    ax.grid(axis="x", color=LINE, linewidth=0.8)
    add_legend(fig, runs, width_in)
    return fig, ax


def difference_chart(
    labels: Sequence[str],
    values: Sequence[float],
    bounds: Sequence[tuple[float, float] | None],
    is_shown: Sequence[bool],
    *,
    width_in: float = 7.2,
    notes: Sequence[str] = (),
) -> tuple[Figure, Axes]:
    """Differences with intervals around a line at zero; those that are not shown (`is_shown`) are hollow."""
    fig, ax = new_figure(width_in, 0.34 * len(labels) + 0.42)
    ax.axvline(0, color=MUTED, linewidth=1)
    for y, (value, bound, shown) in enumerate(zip(values, bounds, is_shown, strict=True)):
        color = ACCENT if shown else MUTED
        if bound is not None:
            ax.plot(bound, [y, y], color=color, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        ax.plot([value], [y], "o", color=color, markersize=6, markerfacecolor=color if shown else "none")
    for y, note in enumerate(notes):
        ax.text(
            1.03, y, note, transform=ax.get_yaxis_transform(), color=MUTED, fontsize=9, va="center",
            parse_math=False,
        )  # fmt: skip
    _name_rows(ax, labels)
    ends = [abs(x) for bound in bounds if bound is not None for x in bound]
    reach = 1.08 * max([*ends, *map(abs, values), 0.01])
    ax.set_xlim(-reach, reach)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(axis="x", color=LINE, linewidth=0.8)
    return fig, ax


def kinds_chart(counts: pandas.DataFrame, *, width_in: float = 7.2) -> tuple[Figure, Axes]:
    """Shares of right, of each kind of failure, and of not scored, as one bar per group.

    Args: counts: `reports.tables.kinds_frame`. The legend belongs to the page, which has room for it.
    """
    fig, ax = new_figure(width_in, 0.36 * len(counts) + 0.42)
    total = counts.sum(axis=1)
    left = counts.iloc[:, 0] * 0.0
    for column, color in zip(counts.columns, kind_colors(list(counts.columns)), strict=True):
        share = counts[column] / total
        ax.barh(range(len(counts)), share, left=left, color=color, height=0.62, linewidth=0)
        left = left + share
    _name_rows(ax, [str(group) for group in counts.index])
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
    ax.grid(axis="x", color=LINE, linewidth=0.8)
    return fig, ax


def kind_colors(kinds: Sequence[str]) -> list[str]:
    """A colour for each kind of failure: green for right, grey for not scored."""
    from reports.failures import RIGHT, UNSCORED

    others = iter(KIND_COLORS[1:] * (len(kinds) // len(KIND_COLORS) + 1))
    return [
        KIND_COLORS[0] if kind == RIGHT else UNSCORED_COLOR if kind == UNSCORED else next(others)
        for kind in kinds
    ]


def run_style(number: int) -> tuple[str, str]:
    """Colour and marker of the run (or cell) at that place; 64 pairs before one comes twice."""
    colors = len(RUN_COLORS)
    return RUN_COLORS[number % colors], RUN_MARKERS[(number + number // colors) % len(RUN_MARKERS)]


def add_legend(fig: Figure, names: Sequence[str], width_in: float, places: Sequence[int] | None = None) -> None:
    """Names of runs above the axes, so that a saved figure has them. `places`: their numbers, default 0, 1, ..."""
    from matplotlib.lines import Line2D

    styles = [run_style(place) for place in (places if places is not None else range(len(names)))]
    handles = [Line2D([], [], color=color, marker=marker, linewidth=2) for color, marker in styles]
    columns = 2 if width_in > 5 else 1
    legend = fig.legend(
        handles, [_label(str(name)) for name in names], loc="outside upper left", ncols=columns, frameon=False,
        fontsize=9, labelcolor=INK,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def run_color(number: int) -> str:
    """The CSS value of the colour of the run at that place."""
    return css_color(RUN_COLORS[number % len(RUN_COLORS)])


def css_color(color: str) -> str:
    """The CSS value of one of this module's colours."""
    return f"var({CSS_VARIABLES[color]})"


def to_svg(fig: Figure, title: str, description: str) -> str:
    """The figure as inline SVG with the page's fonts and theme colours, and a text for screen readers."""
    from html import escape

    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}), warnings.catch_warnings():
        # The browser draws the letters; it has more of them than matplotlib's font.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        fig.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Its style sheet would reach the whole page; what it says is already said on the elements or by the page.
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ?[^;\"]*?(\d+(?:\.\d+)?)px[^;\"]*", r"font-size: \1px", svg)
    for color, variable in CSS_VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    head = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    svg = re.sub(
        r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>",
        lambda m: f'<svg viewBox="{m[1]}" role="img">{head}',  # a name may hold a backslash
        svg,
        count=1,
    )
    svg = svg.replace("xlink:href", "href")
    # matplotlib names every group the same in every figure; a page must not hold a name twice.
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    return re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)


def to_png(fig: Figure) -> bytes:
    """The figure as PNG on white, for trackers."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=150, facecolor="white")
    return file.getvalue()


def _name_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), [_label(text) for text in labels])
    _plain_labels(ax)


def _label(text: str) -> str:
    """The name as far as there is room for it, without characters that have no shape."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _plain_labels(ax: Axes) -> None:
    for label in ax.get_yticklabels():
        label.set_parse_math(False)  # a name with two dollar signs is not a formula


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Empty axes in the page's style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.add_subplot()
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(LINE)
    ax.tick_params(axis="x", colors=MUTED, labelsize=9, length=0)
    ax.tick_params(axis="y", colors=INK, labelsize=10, length=0)
    ax.set_axisbelow(True)
    return fig, ax
