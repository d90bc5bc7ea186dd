"""Pictures of a sweep at equal prompt and training seed: contact sheets, and a gallery of all.

A sheet has a row for each cell and a column for each prompt (or checkpoint); its pictures are those of the gallery. The
gallery shows for each prompt the first picture of every cell and seed. Both are bounded in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.errors import EvalError
from evals.io.jsonl import read_rows
from evals.sweeps.results import Cell
from reports import tables
from reports.gallery import BUDGET_BYTES, MAX_PICTURES, Gallery, build_gallery, side_by_side
from reports.sweep_data import SweepData
from reports.thumbnails import choose_setting, thumbnails

SHEET_PROMPTS = 8
SHEET_STEPS = 6
_END = "100"
LATER_BYTES = 1_000  # for each picture beyond the first 2,500


def sweep_gallery(data: SweepData, task: str) -> Gallery | None:
    """The first picture (or answer) of every prompt, cell and finished seed; None where no run folder can be read."""
    found = [
        (cell, point, run)
        for cell in data.cells
        for point in cell.points
        if (run := data.run(point, task)) is not None
    ]
    if not found:
        return None
    seeds = sorted({data.by_id[point].point.seed for _, point, _ in found if point in data.by_id})
    kept_ids: set[str] | None = None
    galleries, n_outputs = [], 0
    for _, point, run in found:
        try:
            frame = tables.samples_frame(run)
        except (EvalError, KeyError, ValueError):  # a damaged file: its pictures are not shown
            continue
        n_outputs += len(frame)
        frame = frame[frame.groupby("sample_id").cumcount() == 0]
        if kept_ids is None:
            ids = list(dict.fromkeys(frame["sample_id"]))
            kept_ids = set(ids[:: max(1, math.ceil(len(ids) * len(found) / MAX_PICTURES))])
        frame = frame[frame["sample_id"].isin(kept_ids)]
        share = (BUDGET_BYTES + LATER_BYTES * max(0, len(frame) * len(found) - 2_500)) // len(found)
        gallery = build_gallery(run.root, frame, share)
        seed = data.by_id[point].point.seed if point in data.by_id else seeds[0]
        for entry in gallery.data["samples"]:
            for output in entry["o"]:
                output["i"] = seeds.index(seed)
        galleries.append((gallery, next(data.places[c.id] for c in data.cells if point in c.points)))
    if not galleries:
        return None
    names = [data.names[cell.id] for cell in data.cells]
    both = side_by_side([g for g, _ in galleries], [p for _, p in galleries], names, n_outputs)
    both.data["numbers"] = [f"of {'training ' * data.is_trained}seed {seed}" for seed in seeds]
    return both


def sheet(data: SweepData, gallery: Gallery) -> dict[str, Any] | None:
    """Cells (rows) by prompts (columns), of one training seed, as pictures in base64."""
    entries = [e for e in gallery.data["samples"] if any("t" in o for o in e["o"])]
    if not entries:
        return None
    seeds = range(len(gallery.data["numbers"]))

    def cells_of(seed: int) -> set[int]:
        return {o["n"] for e in entries for o in e["o"] if o["i"] == seed and "t" in o}

    seed = max(seeds, key=lambda s: (len(cells_of(s)), -s))  # the first that most cells have
    chosen = entries[:SHEET_PROMPTS]
    rows = []
    for cell in data.cells:
        place = data.places[cell.id]
        pictures = []
        for entry in chosen:
            output = next((o for o in entry["o"] if o["n"] == place and o["i"] == seed and "t" in o), None)
            value = output["v"] if output else None
            pictures.append({
                "encoded": gallery.pictures[output["t"]] if output else None,
                "verdict": "" if value is None else "right" if value >= 1 else "wrong",
                "crisp": output is not None and max(output["w"], output["h"]) <= gallery.data["crispBelow"],
            })  # fmt: skip
        rows.append({"name": data.names[cell.id], "pictures": pictures})
    return {
        "seed": gallery.data["numbers"][seed].removeprefix("of "),
        "columns": [entry["p"] for entry in chosen],
        "rows": rows,
    }


def training_sheet(data: SweepData, task: str) -> dict[str, Any] | None:
    """Cells (rows) by checkpoints (columns): one prompt and training seed on its way; None without such pictures."""
    best: tuple[int, int, dict[str, dict[str, Path]]] = (0, 0, {})
    seeds = dict.fromkeys(p.point.seed for p in data.points)
    found: dict[str, dict[str, Mapping[str, tuple[str, Path]]]] = {}
    for seed in seeds:
        per_cell = {}
        for cell in data.cells:
            steps = _by_share(data, cell, _checkpoint_pictures(data, cell, seed, task))
            if len(steps) > 1:
                per_cell[cell.id] = steps
        if len(per_cell) > best[0]:
            best, found = (len(per_cell), seed, {}), per_cell
    if not found:
        return None
    common = set.intersection(*(set(rows) for steps in found.values() for rows in steps.values()))
    if not common:
        return None
    sample = sorted(common)[len(common) // 2]
    names = list(dict.fromkeys(step for steps in found.values() for step in steps))
    names = sorted(names, key=lambda n: int(n))
    if len(names) > SHEET_STEPS:
        every = (len(names) - 1) / (SHEET_STEPS - 1)
        names = [names[round(i * every)] for i in range(SHEET_STEPS)]
    paths = [steps[n][sample][1] for steps in found.values() for n in names if n in steps]
    setting = choose_setting(paths, len(paths), BUDGET_BYTES // 8)
    made = iter(thumbnails(paths, setting))
    rows, prompt = [], ""
    for cell in data.cells:
        if cell.id not in found:
            continue
        pictures = []
        for n in names:
            one = next(made) if n in found[cell.id] else None
            prompt = prompt or found[cell.id].get(n, {}).get(sample, ("", None))[0]
            pictures.append({
                "encoded": one.encoded if one else None, "verdict": "",
                "crisp": one is not None and max(one.width, one.height) <= 128,
            })  # fmt: skip
        rows.append({"name": data.names[cell.id], "pictures": pictures})
    columns = ["end" if n == _END else f"{n} % of steps" for n in names]
    told = tables.shortened(prompt, 160)
    return {"seed": f"training seed {best[1]}", "prompt": told, "columns": columns, "rows": rows}


def _by_share(
    data: SweepData, cell: Cell, pictures: Mapping[str, Mapping[str, tuple[str, Path]]]
) -> dict[str, Mapping[str, tuple[str, Path]]]:
    """The same by percent of the last stage's steps, of which cells have different numbers."""
    stages = next((data.by_id[i].point.stages for i in cell.points if i in data.by_id), ())
    total = data.stage_steps.get(stages[-1]) if stages else None  # a sweep without training has no stages
    if not total:
        return {}
    return {
        _END if name == "final" else str(round(100 * int(name.removeprefix("step-")) / total)): rows
        for name, rows in pictures.items()
    }


def _checkpoint_pictures(
    data: SweepData, cell: Cell, seed: int, task: str
) -> Mapping[str, Mapping[str, tuple[str, Path]]]:
    """evaluation -> sample id -> (prompt, picture file) of the cell's point with that seed."""
    point = next((data.by_id[i] for i in cell.points if i in data.by_id and data.by_id[i].point.seed == seed), None)
    found: dict[str, dict[str, tuple[str, Path]]] = {}
    for evaluation in point.point.evaluations if point is not None else ():
        root = data.folder.eval_folder(point.id, evaluation.name, task) if point is not None else Path()
        if evaluation.task != task or not (root / "results.json").exists():
            continue
        rows: dict[str, tuple[str, Path]] = {}
        try:
            for row in read_rows(root / "outputs.jsonl"):
                if row.get("path") and row["sample_id"] not in rows:
                    rows[row["sample_id"]] = (row["prompt"], root / row["path"])
        except (EvalError, OSError, KeyError, ValueError):
            continue
        if rows:
            found[evaluation.name] = rows
    return found


def picture_tasks(data: SweepData) -> Sequence[str]:
    """Tasks of the sweep that make pictures."""
    return [name for name, task in data.sweep["tasks"].items() if task.get("kind") == "generation"]


