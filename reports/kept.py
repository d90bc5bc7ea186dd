"""The page "Understanding kept?": one model before, one or more after generation training, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.io.files import write_atomically
from evals.kept import After, Kept, KeptTask, legend
from reports import plots
from reports.banners import LEVELS, banners
from reports.credits import credits_of
from reports.facts import command_of
from reports.format import signed, words
from reports.html import render
from reports.page import both_widths, task_title


def write_page(found: Kept, out: Path) -> Path:
    """Write the self-contained page. Raises: StoreError if it cannot be written."""
    page = render("kept.html.j2", kept_page(found))
    write_atomically(out, page.encode("utf-8", "replace"))
    return out


def kept_page(found: Kept) -> dict[str, Any]:
    """The template's values."""
    every = [one for after in found.after for one in after.tasks]
    return {
        "title": f"Understanding kept? {found.before} and {', '.join(a.name for a in found.after)}",
        "before": found.before,
        "margin": found.margin,
        "banners": _banners(every),
        "parts": [_part(found.before, after) for after in found.after],
        "legend": legend(found.margin),
        "runs": [
            {"task": task_title(one.task), "before": _made(one.before), "after": _made(one.after), "name": after.name}
            for after in found.after
            for one in after.tasks
        ],
        "credits": credits_of(every[0].before.manifest),
    }


def _part(before: str, after: After) -> dict[str, Any]:
    return {
        "name": after.name,
        "sentence": after.sentence,
        "left_out": after.left_out,
        "rows": [
            {
                "task": task_title(one.task),
                "figure": one.headline.metric,
                "unit": one.headline.unit,
                "head": one.headline,
                "one": one,
                "same_share": one.same / one.shared if one.shared else None,
            }
            for one in after.tasks
        ],
        "notes": _notes(after.tasks),
        "charts": _charts(f"{after.name} minus {before}", after.tasks),
    }


def _banners(every: Sequence[KeptTask]) -> list[dict[str, str]]:
    """Those of all runs; what differs in its first sentence only is said once, with the tasks."""
    said: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for one in every:
        for banner in (*banners(one.before), *banners(one.after)):
            first, _, rest = banner["text"].partition(". ")
            tasks = said.setdefault((banner["level"], banner["title"], rest), {}).setdefault(first, [])
            tasks += [one.task] if one.task not in tasks else []
    names = {one.task for one in every}
    return [
        {"level": level, "title": title, "text": _of_tasks(firsts, names) + (rest and f". {rest}")}
        for (level, title, rest), firsts in sorted(said.items(), key=lambda item: LEVELS.index(item[0][0]))
    ]


def _notes(tasks: Sequence[KeptTask]) -> list[str]:
    said: dict[str, list[str]] = {}
    for one in tasks:
        for note in one.notes:
            said.setdefault(note, []).append(one.task)
    return [f"{_of_tasks({note: names}, {one.task for one in tasks})}." for note, names in said.items()]


def _of_tasks(said: Mapping[str, Sequence[str]], every: set[str]) -> str:
    """Each sentence after the tasks that it is about, unless it is about all."""
    return "; ".join(
        text if set(tasks) == every else f"{', '.join(map(task_title, tasks))}: {text}" for text, tasks in said.items()
    )


def _charts(title: str, tasks: Sequence[KeptTask]) -> list[dict[str, Any]]:
    """Differences of all tasks on one axis, as shares of each figure's range."""
    drawn = [one for one in tasks if one.headline.difference is not None]
    if not drawn:
        return []

    def share(one: KeptTask, value: float) -> float:
        return value / one.scale

    text = "; ".join(
        f"{task_title(one.task)} {signed(one.headline.difference, one.headline.unit)}" for one in drawn
    )
    return both_widths(
        lambda width_in: plots.difference_chart(
            [words(task_title(one.task)) for one in drawn],
            [share(one, one.headline.difference or 0.0) for one in drawn],
            [
                None if one.headline.ci95 is None
                else (share(one, one.headline.ci95[0]), share(one, one.headline.ci95[1]))
                for one in drawn
            ],
            [one.verdict in ("lost", "gained") for one in drawn],
            width_in=width_in,
            notes=[words(one.verdict) for one in drawn] if width_in > 5 else [],
        ),
        f"{title}, as shares of each figure's range",
        text,
    )  # fmt: skip


def _made(run: Any) -> dict[str, str]:
    return {
        "command": command_of(run.manifest),
        "weights": run.manifest["model"]["weights_sha256"],
        "model": str(run.manifest["model"]["name"]),
    }
