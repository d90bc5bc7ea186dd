"""What training took: by cell, by stage, and what is matched between the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evals.errors import EvalError
from evals.sweeps.folder import read_stage, read_stage_result
from reports.format import count, flops, seconds
from reports.sweep_data import SweepData
from reports.sweep_points import PointData

# Key of a row -> what it is called where cells are held against each other, and how it is written.
_MATCHED = (
    ("parameters_trained", "parameters trained", count),
    ("flops", "arithmetic of training", flops),
    ("images", "images seen in training", count),
    ("steps", "optimizer steps, all stages", count),
    ("total_seconds", "seconds of training, shared stages whole", seconds),
)


def compute_section(data: SweepData) -> dict[str, Any]:
    """Rows by cell (means over finished seeds), rows by stage, and sentences on what is matched between cells."""
    rows = _cells(data)
    phases = list(dict.fromkeys(phase for row in rows for phase in row["phases"]))
    return {
        "rows": rows,
        "records": [{**{k: v for k, v in row.items() if k != "phases"},
                     **{f"flops_{phase}": row["phases"].get(phase) for phase in phases}} for row in rows],
        "phases": phases,
        "stages": _stages(data),
        "matched": _matched(rows),
        "is_trained": _is_trained(rows),
    }  # fmt: skip


def _cells(data: SweepData) -> list[dict[str, Any]]:
    rows = []
    for cell in data.cells:
        if cell.own is None or cell.shared is None:
            continue
        total = cell.own + cell.shared
        phases = _mean([data.by_id[i].flops for i in cell.points if i in data.study.results])
        rows.append({
            "cell": data.names[cell.id], "parameters_trained": cell.parameters, "steps": total.steps,
            "images": total.images, "flops": sum(phases.values()) if phases else None, "phases": phases,
            "own_seconds": cell.own.seconds, "shared_seconds": cell.shared.seconds, "total_seconds": total.seconds,
            "evaluation_seconds": cell.evaluation_seconds, "seeds": len(cell.done),
        })  # fmt: skip
    return rows


def _mean(points: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Phase by phase; {} unless every point says what it took."""
    if not points or not all(points):
        return {}
    return {phase: fmean(p.get(phase, 0.0) for p in points) for phase in dict.fromkeys(k for p in points for k in p)}


def _is_trained(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["steps"] for row in rows)


def _matched(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not _is_trained(rows) or len(rows) < 2:
        return []
    found = []
    for key, name, show in _MATCHED:
        if any(row[key] is None for row in rows):
            continue
        values = [float(row[key]) for row in rows]
        low, high = min(values), max(values)
        spread = (high - low) / high if high else 0.0
        equal = spread < 1e-9
        less = f"up to {100 * spread:.1f} % less" if spread >= 0.001 else "less than 0.1 % apart"
        text = f"equal, {show(high)}" if equal else f"{show(low)} to {show(high)} ({less})"
        found.append({"name": name, "text": text, "is_equal": equal})
    return found


def _stages(data: SweepData) -> list[dict[str, Any]]:
    """Every stage in the order in which they can run, finished or not."""
    users = data.folder.stage_users()
    done = {p.id: p for p in data.points if p.id in data.study.results}
    rows = []
    for stage, points in users.items():
        folder = data.folder.stage_folder(stage)
        try:
            spec, result = read_stage(folder), read_stage_result(folder)
        except (EvalError, KeyError, TypeError):  # damaged: the sweep makes it again
            continue
        taken, state = (result.compute if result is not None else None), data.folder.stage_state(stage)
        rows.append({
            "stage": stage, "name": spec.name, "status": "done" if result is not None else state.status,
            "doing": state.doing if result is None and state.status == "running" else None,
            "seed": spec.seed, "parents": " ".join(spec.parents),
            "points": len(points), "parameters_trained": result.parameters if result is not None else None,
            "steps": taken and taken.steps, "images": taken and taken.images, "seconds": taken and taken.seconds,
            "flops": _flops_of(spec.name, [done[i] for i in points if i in done]),
        })  # fmt: skip
    return rows


def _flops_of(name: str, points: Sequence[PointData]) -> float | None:
    """Of a stage, which is the phase of that name of every point that needs it."""
    return next((p.flops[name] for p in points if name in p.flops), None)
