"""`blip3o-eval score`: score what others recorded, without running a model or a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from evals.errors import UsageError

_SHORT_LIST = 4
_MAX_CELL_CHARACTERS = 72


@click.command("score")
@click.option("--task", "task_name", required=True, metavar="T", help="The task whose rules apply.")
@click.option("--detections", metavar="FILE", help="Recorded detections, one picture a line.")
@click.option("--results", metavar="FILE", help="The results.jsonl of GenEval's own script.")
@click.option(
    "--crops", metavar="FILE", help="Pictures, masks and boxes: what the colour judge sees."
)
@click.option("--answers", metavar="FILE", help="Recorded answers of a model or a judge.")
@click.option("--images", metavar="DIR", help="Pictures already made; needs a judge.")
@click.option(
    "--compat",
    metavar="NAME",
    help="Score by the rules of another harness, such as lmms-eval (default: the task's own).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line (default: a table).")
def command(task_name: str, compat: str | None, as_json: bool, **inputs: str | None) -> None:
    """Score recorded inputs by a task's official rules.

    Give one input. Exit status 0 once every line was read, whatever the verdicts.
    """
    task = _task(task_name)
    kind, path = _one_input(task_name, task, {k: v for k, v in inputs.items() if v is not None})

    extra = {} if compat is None else {"compat": _compat(task_name, task, compat)}

    from evals.recorded import read_lines

    rows = task.score_recorded(kind, read_lines(path), **extra)
    for line in _json_lines(rows) if as_json else _table(rows):
        click.echo(line)


def _task(name: str) -> Any:
    from evals import discovery, registry

    discovery.discover()
    return registry.tasks.get(name)()


def _one_input(name: str, task: Any, given: Mapping[str, str]) -> tuple[str, str]:
    """The input's kind and path. Raises UsageError unless exactly one is given and the task reads it."""
    readable: Sequence[str] = getattr(task, "recorded_kinds", ())
    if not readable:
        raise UsageError(
            f"task {name!r} scores no recorded inputs; use blip3o-eval run --task {name}"
        )
    available = " or ".join(f"--{kind} FILE" for kind in readable)
    if len(given) != 1:
        problem = f"got {' and '.join(f'--{kind}' for kind in given)}" if given else "got none"
        raise UsageError(f"score --task {name} needs one input ({available}), {problem}")
    kind, path = next(iter(given.items()))
    if kind not in readable:
        raise UsageError(f"task {name!r} cannot be scored from --{kind} here; it reads {available}")
    return kind, path


def _compat(name: str, task: Any, compat: str) -> str:
    known: Sequence[str] = getattr(task, "compat_modes", ())
    if compat not in known:
        allowed = (
            f"allowed is {' or '.join(known)}" if known else "this task has its own rules only"
        )
        raise UsageError(f"score --task {name}: --compat {compat!r} is not known; {allowed}")
    return compat


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps(row, allow_nan=False) for row in rows]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as aligned columns; a single row as one line per key. Nested values are left to --json.

    A row's `result` is taken apart, and a last row of figures over all (`aggregate`) stands below.
    """
    if len(rows) > 1 and "aggregate" in rows[-1]:
        body = [{"n": row["n"], **row["result"]} for row in rows[:-1]]
        return [*_table(body), *_figures(rows[-1]["aggregate"]["metrics"])]
    if len(rows) == 1:
        width = max(len(key) for key in rows[0])
        return [f"{key:<{width}}  {_cell(value)}".rstrip() for key, value in rows[0].items()]
    columns = [key for key, value in rows[0].items() if _is_short(value)]
    cells = [columns, *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    for key in columns:
        if all(isinstance(row[key], bool) for row in rows):
            lines.append(f"{key}: {sum(row[key] for row in rows)} of {len(rows)}")
    return lines


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    """One line a figure that has a value; in the harness's own form with its number of scores."""
    lines = []
    for name, figure in metrics.items():
        is_plain = not isinstance(figure, Mapping)
        value = figure if is_plain else figure["value"]
        if is_plain or figure["n"]:
            count = "" if is_plain else f"  (n {figure['n']}, without a score {figure['unscored']})"
            lines.append(f"{name}: {_cell(value)}{count}")
    return lines


def _is_short(value: Any) -> bool:
    is_nested = isinstance(value, Mapping) or (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _SHORT_LIST
    )
    return not is_nested


def _cell(value: Any) -> str:
    """One line of printable text; JSON escapes keep control characters away from the terminal."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "; ".join(value.split("\n")) if isinstance(value, str) else json.dumps(value)
    text = json.dumps(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= _MAX_CELL_CHARACTERS else text[: _MAX_CELL_CHARACTERS - 3] + "..."
