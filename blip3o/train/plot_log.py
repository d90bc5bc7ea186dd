"""Loss curves of a training log as a picture: ``python -m blip3o.train.plot_log LOG... OUT.webp``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_SCORES = 4  # lines in a panel of scores
HIDDEN = ("step", "seconds", "lr", "grad_norm", "samples_per_s", "tflops_per_s", "share_of_peak")


def read_stages(paths: Sequence[Path]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(stage, rows) in the order of the logs; a stage that was trained twice stands twice. What evaluations found on
    the way is a panel of its own, ``STAGE: scores``."""
    stages: list[tuple[str, list[dict[str, Any]]]] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "config" in row:
                stages += [(row["stage"], []), (f"{row['stage']}: scores", [])]
            elif "loss" in row and stages:
                stages[-2][1].append(row)
            elif row.get("evaluation") and stages and scores_of([row]):
                stages[-1][1].append(row)
    return [(name, rows) for name, rows in stages if rows]


def scores_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the first few figures of evaluations that have an interval."""
    names = dict.fromkeys(key for row in rows for key in row if f"{key}_low" in row)
    return list(names)[:MAX_SCORES]


def plot_scores(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Figures by step; the first with its 95 % interval."""
    for number, key in enumerate(scores_of(rows)):
        own = [row for row in rows if key in row]
        steps = [row["step"] for row in own]
        (line,) = axis.plot(steps, [row[key] for row in own], lw=1.3, marker=".", label=key)
        if not number:
            bounds = [[row[f"{key}_{end}"] for row in own] for end in ("low", "high")]
            axis.fill_between(steps, *bounds, color=line.get_color(), alpha=0.15, lw=0)


def plot_losses(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Each logged loss by step, on a logarithmic scale where it falls far."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    keys = [k for k in rows[-1] if k not in HIDDEN and not k.startswith("seconds_")]
    keys = [k for k in keys if "accuracy" not in k and k != "retrieval"]
    for key in keys if len(keys) == 1 else [k for k in keys if k != "loss"]:
        axis.plot([r["step"] for r in rows if key in r], [r[key] for r in rows if key in r], lw=1.3, label=key)
    values = [r[k] for r in rows for k in keys if k in r and r[k] > 0]
    if values and max(values) > 8 * min(values):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def plot(stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], out: Path) -> None:
    """One panel for every stage, and one for its scores."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    columns = min(3, len(stages))
    lines = -(-len(stages) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 2.7 * lines), squeeze=False, layout="constrained"
    )
    for axis, (name, rows) in zip(axes.flat, stages, strict=False):
        if name.endswith(": scores"):
            plot_scores(axis, rows)
        else:
            plot_losses(axis, rows)
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat[len(stages) :]:
        axis.set_visible(False)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    Image.fromarray(pixels).convert("RGB").save(out, quality=85)
    plt.close(figure)


if __name__ == "__main__":
    *logs, target = map(Path, sys.argv[1:])
    plot(read_stages(logs), target)
