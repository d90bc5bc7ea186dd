"""A plan for people, as lines of text, and for programs, as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from evals.phases.progress import duration
from evals.sweeps.plan import SweepPlan
from evals.sweeps.runner import default_folder
from evals.sweeps.trainers import find_trainer

_GB, _MB = 1e9, 1e6


def as_json(made: SweepPlan) -> dict[str, Any]:
    return {
        "name": made.config.name,
        "digest": made.digest,
        "output": str(default_folder(made)),
        "axes": {label: list(values) for label, values in made.grid.axes.items()},
        "baseline": made.grid.baseline,
        "metrics": list(made.metrics),
        "points": [
            {
                "id": p.id, "cell": p.cell, "values": dict(p.values), "seed": p.seed, "stages": list(p.stages),
                "evaluations": [{"name": e.name, "task": e.task, "step": e.step} for e in p.evaluations],
                "images": made.workloads[p.id].images, "outputs": sum(made.workloads[p.id].outputs.values()),
                "train_seconds": made.train_seconds(p), "evaluate_seconds": made.workloads[p.id].seconds,
            }
            for p in made.points
        ],
        "left_out": dict(made.left_out),
        "notes": list(made.notes),
        "stages": [
            {**s.spec.to_json(), "users": list(s.users), "bytes": made.stage_bytes(s)} for s in made.stages.values()
        ],
        "total": {
            "points": len(made.points), "images": made.images, "train_seconds": made.train_seconds(),
            "evaluate_seconds": made.eval_seconds, "bytes": made.bytes,
        },
    }  # fmt: skip


def lines(made: SweepPlan) -> list[str]:
    seeds = len(made.config.seeds)
    lines = [
        f"{made.config.name}: {len(made.points)} points = {len(made.cells)} combination{'s' * (len(made.cells) > 1)}, "
        f"{seeds} seed{'s' * (seeds > 1)} each"
    ]
    lines += [f"  {label}: {', '.join(map(_value, values))}" for label, values in made.grid.axes.items()]
    width = max(len(cell) for cell in made.cells)
    for cell, ids in made.cells.items():
        first = next(p for p in made.points if p.id == ids[0])
        names = " -> ".join(made.stages[i].spec.name for i in first.stages) or "no training"
        load = made.workloads[first.id]
        mark = "  (baseline)" if cell == made.grid.baseline else ""
        lines.append(
            f"  {cell:<{width}}  {names}; {len(first.evaluations)} evaluation{'s' * (len(first.evaluations) > 1)}, "
            f"{load.images} pictures{mark}"
        )
    reasons: dict[str, list[str]] = {}
    for point, reason in made.left_out.items():
        reasons.setdefault(reason, []).append(point)
    for reason, points in reasons.items():
        lines += [f"left out, {reason}:", *(f"  {point}" for point in points)]
    shared = [s for s in made.stages.values() if s.is_shared]
    for name in dict.fromkeys(s.spec.name for s in shared):
        those = [s for s in shared if s.spec.name == name]
        users = sorted({len(s.users) for s in those})
        times = "once" if len(those) == 1 else f"{len(those)} times"
        lines.append(
            f"shared stage {name}: runs {times}, for {' to '.join(map(str, users[:1] + users[1:][-1:]))} points"
            f"{' each' if len(those) > 1 else ''}, and is counted in the compute of every one"
        )
    lines += [
        f"metrics: {', '.join(made.metrics)}; compared with {made.grid.baseline}",
        f"pictures: {made.images}; other answers: "
        f"{sum(w.outputs.get('understanding', 0) for w in made.workloads.values())}",
        f"time, one job after the other: {_times(made)}",
        f"disk: about {_size(made.bytes)}, {_size(_free(default_folder(made)))} are free",
        f"folder: {default_folder(made)}",
        *(f"note: {text}" for text in made.notes),
    ]
    return lines


def _times(made: SweepPlan) -> str:
    """Both estimates, each with the speed that it takes for granted."""
    train = next(point.train for point in made.grid.points if point.id == made.points[0].id)
    told = ""
    if train is not None:
        trainer, settings = find_trainer(train)
        told = f"about {duration(made.train_seconds())} of training (on {trainer.speed_of(settings)}) and "
    evaluation = f"about {duration(made.eval_seconds)} of evaluation"
    return f"{told}{evaluation} (at the speed of the bundled model on 2 cores)"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{max(count / _MB, 0.1):.1f} MB"


def _free(folder: Path) -> int:
    """Bytes that are free where a folder is or is going to be."""
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    return shutil.disk_usage(existing).free
