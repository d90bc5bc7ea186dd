"""What a reader of a sweep must know before its first number, and where every point stands."""

from __future__ import annotations

from collections import Counter
from typing import Any

from reports.banners import LEVELS, is_stickers
from reports.format import count, words
from reports.sweep_data import SweepData
from reports.sweep_sources import shared_over_seeds


def sweep_banners(data: SweepData) -> list[dict[str, str]]:
    """Titled sentences, gravest first; `level` is stop, warn or note."""
    found: list[tuple[str, str, str]] = []
    states = Counter(row["status"] for row in point_rows(data))
    total = sum(states.values())
    if data.table.is_test_double:
        found.append(("stop", "Not a measurement", "Made with a test double. These figures mean nothing."))
    left = states["pending"] + states["running"]
    if left:
        told = f"{count(left)} of {count(total)} points are not finished"
        text = (
            f"{told}, {states['running']} running when this page was written. Figures are of the finished ones. The "
            "same command goes on."
            if data.study.results
            else f"None of {count(total)} points has a result yet. The same command goes on."
        )
        found.append(("warn" if data.study.results else "stop", "Unfinished sweep", text))
    elif not data.study.results:
        found.append(("stop", "Nothing is finished", f"None of {count(total)} points has a result."))
    if states["failed"]:
        text = (
            f"{count(states['failed'])} of {count(total)} points failed; the reasons stand under Points. They are in "
            "no figure, and cells without them rest on fewer seeds."
        )
        found.append(("warn", f"{count(states['failed'])} failed", text))
    if states["skipped"]:
        text = f"{count(states['skipped'])} points were skipped and are in no figure."
        found.append(("warn", f"{count(states['skipped'])} skipped", text))
    if states["unreadable"]:
        text = f"The files of {count(states['unreadable'])} points are damaged or half written; they are in no figure."
        found.append(("warn", "Damaged points", text))
    if data.table.mixed:
        parts = sorted({f"{task}: {what}" for (_, task), what in data.table.mixed.items()})
        text = (
            f"{count(len(data.table.mixed))} evaluations differ from those of most points ({'; '.join(parts)}). They "
            "are in no figure; cells rest on the other seeds."
        )
        found.append(("warn", "Mixed sweep", text))
    sizes = {len(cell.done) for cell in data.cells if cell.done}
    if sizes == {1}:
        text = (
            "Each cell was trained once. Intervals and p-values cover the prompts, not what another training would "
            "give: two cells may differ by chance of training alone."
            if data.is_trained
            else "Each cell was evaluated with one seed. Intervals and p-values cover the prompts, not what other "
            "starting noise would give."
        )
        found.append(("warn", "One seed", text))
    elif len(sizes) > 1:
        text = (
            f"Cells rest on {min(sizes)} to {max(sizes)} seeds. Differences are taken over the seeds that both cells "
            "have, which stand beside them."
        )
        found.append(("warn", "Unequal seeds", text))
    shared = shared_over_seeds(data)
    if shared and max(sizes, default=0) > 1:
        text = (
            f"Trained once and used by several seeds: {', '.join(words(name) for name in shared)}. Intervals over "
            "seeds do not cover what another training of these stages would give; cells whose seeds share the model "
            "that answers have no verdict in that figure."
        )
        found.append(("note", "Shared stages", text))
    plans = {task: run.manifest["plan"] for task, run in data.runs.items() if run.manifest["partial"]}
    if plans:
        parts = [f"{task} {count(p['samples'])} of {count(p['official_samples'])}" for task, p in plans.items()]
        text = f"Prompts run at the end: {', '.join(parts)}. The figures are estimates and not the benchmarks' scores."
        found.append(("note", "Partial evaluation", text))
    if any(is_stickers(run) for run in data.runs.values()):
        text = (
            "Judged by the sticker world's own judge, which was measured on sticker pictures only. These figures "
            "do not compare with published ones; they compare the cells of this sweep."
        )
        found.append(("note", "Sticker judge", text))
    if data.sweep["left_out"]:
        n = len(data.sweep["left_out"])
        text = f"{count(n)} combination{'s' * (n != 1)} cannot be; the reasons stand under Points."
        found.append(("note", "Left out", text))
    found.sort(key=lambda banner: LEVELS.index(banner[0]))
    return [{"level": level, "title": title, "text": text} for level, title, text in found]


def point_rows(data: SweepData) -> list[dict[str, Any]]:
    """Every point of the sweep: id, status, attempts, seconds, last step, error."""
    rows = []
    for point_id in data.folder.point_ids():
        point, state = data.by_id.get(point_id), data.folder.state(point_id)
        status: str = state.status
        error = state.error
        if status == "done" and (point is None or point.result is None):
            status = "unreadable"
            error = (point.problem if point is not None else None) or "point.json is missing or damaged"
        elif point is not None and point.problem:
            error = "; ".join(filter(None, (error, point.problem)))
        rows.append({
            "point": point_id, "status": status, "attempts": state.attempts, "seconds": state.seconds or None,
            "step": (point.last_step or None) if point is not None else None,
            "error": data.without_root(" ".join((error or "").split()))[:400],
        })  # fmt: skip
    return rows
