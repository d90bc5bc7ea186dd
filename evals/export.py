"""Finished runs in the forms that papers, spreadsheets and other programs read.

``csv`` and ``markdown`` and ``latex`` are tables for people, ``model-index`` and ``lmms-eval`` (see
``evals.export_records``) records for programs. Every form says what a figure is: how many outputs it
rests on, its interval, its judge, and whether the run was partial or made by a test double.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import MetricValue
from evals.errors import UsageError
from evals.frames import METRIC_COLUMNS, encodable, metric_rows, spreadsheet_safe
from evals.results import RunData

RUN_COLUMNS = (
    "run", "task", "task_version", "prompts_sha256", "model", "model_sha256", "judge", "judge_domain", "seed",
    "partial", "test_double", "samples", "config_sha256",
)  # fmt: skip
_DECIMALS = {"fraction": 3, "percent": 1, "points": 1}


def export(runs: Sequence[RunData], form: str) -> str:
    """The runs in one of ``FORMATS``, ending with a line end.

    Raises: UsageError for a run that is not finished, or runs that one file of this form cannot hold.
    """
    for run in runs:
        if not run.is_finished:
            raise UsageError(
                f"{run.root} is not finished: the command that started it finishes it, `blip3o-eval merge` "
                "does so for shards"
            )
    return FORMATS[form](runs)


def marks(run: RunData) -> str:
    """What stands in the run's name wherever it is shown: "TEST DOUBLE", "PARTIAL", both, or nothing."""
    assert run.results is not None
    found = {"TEST DOUBLE": run.results["is_test_double"], "PARTIAL": run.results["partial"]}
    return ", ".join(mark for mark, is_true in found.items() if is_true)


def caveats(run: RunData) -> list[str]:
    """Sentences without which the figures of a run would mislead; the gravest first."""
    manifest, results = run.manifest, run.results
    assert results is not None
    found = []
    if results["is_test_double"]:
        found.append("TEST DOUBLE: made by a fake model or judge, the figures mean nothing")
    if results["partial"]:
        plan = manifest["plan"]
        found.append(f"PARTIAL: {plan['samples']} of {plan['official_samples']} samples")
    judge = manifest["judge"]
    if judge and judge["domain"] == "stickers":
        found.append("judged by the sticker judge: not comparable with published figures")
    found += [text for text in manifest["deviations"] if "(--limit)" not in text]
    return [encodable(text) for text in [*found, *manifest["warnings"]]]


def number(value: float | None, unit: str) -> str:
    """A figure with the decimals of its unit; "-" for none."""
    return "-" if value is None else f"{value:.{_DECIMALS.get(unit, 3)}f}"


# -- csv ----------------------------------------------------------------------------------------


def to_csv(runs: Sequence[RunData]) -> str:
    """One line per run and metric, safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*RUN_COLUMNS, *METRIC_COLUMNS))
    for run in runs:
        cells = tuple(_run_cells(run)[column] for column in RUN_COLUMNS)
        for row in metric_rows(run):
            writer.writerow([_cell(value) for value in (*cells, *row)])
    return out.getvalue()


def _run_cells(run: RunData) -> dict[str, Any]:
    manifest, results = run.manifest, run.results
    assert results is not None
    judge = manifest["judge"] or {}
    return {
        "run": str(run.root),
        "task": manifest["task"]["name"],
        "task_version": manifest["task"]["version"],
        "prompts_sha256": manifest["task"]["prompts_sha256"],
        "model": manifest["model"]["name"],
        "model_sha256": manifest["model"]["weights_sha256"],
        "judge": judge.get("name"),
        "judge_domain": judge.get("domain"),
        "seed": manifest["config"]["seed"],
        "partial": results["partial"],
        "test_double": results["is_test_double"],
        "samples": results["counts"]["samples"],
        "config_sha256": manifest["config_sha256"],
    }


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return spreadsheet_safe(" ".join(encodable(value).split())) if isinstance(value, str) else value


# -- tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """The runs of one task and version, in plain text: runs as rows, metrics as columns."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def _tables(runs: Sequence[RunData]) -> list[_Table]:
    from evals.comparison import run_names

    by_task: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        task = run.manifest["task"]
        by_task.setdefault((task["name"], task["version"]), []).append(run)
    tables = []
    for (task, version), mine in by_task.items():
        names = run_names(mine)
        metrics: dict[str, str] = {}
        for run in mine:
            for metric in run.metric_values():
                if metric.value is not None or not metrics:
                    metrics.setdefault(metric.name, metric.unit)
        header = ["model", "judge", *(f"{m} ({u})" for m, u in metrics.items()), "outputs scored"]
        rows, notes = [], []
        for name, run in zip(names, mine, strict=True):
            assert run.results is not None
            found = caveats(run)
            # The mark stands in the row itself: tables are cut out and pasted.
            mark = marks(run)
            values = {m.name: m for m in run.metric_values()}
            judge = (run.manifest["judge"] or {}).get("name", "-")
            counts = run.results["counts"]
            rows.append(
                [
                    f"{name} ({mark})" if mark else name,
                    judge,
                    *(_figure(values.get(metric)) for metric in metrics),
                    f"{counts['scored']} of {counts['outputs']}",
                ]
            )
            notes += [f"{name}: {text}" for text in found]
        title = f"{task}, version {version}, with 95 % intervals"
        lines = [[_line(cell) for cell in row] for row in rows]
        tables.append(_Table(_line(title), list(map(_line, header)), lines, list(map(_line, notes))))
    return tables


def _figure(metric: MetricValue | None) -> str:
    if metric is None or metric.value is None:
        return "-"
    text = number(metric.value, metric.unit)
    if metric.ci95 is None:
        return text
    low, high = (number(bound, metric.unit) for bound in metric.ci95)
    return f"{text} [{low}, {high}]"


def _line(text: str) -> str:
    """One line of printable characters: bidirectional marks and the like would reorder what stands beside."""
    text = " ".join(encodable(str(text)).split())
    return "".join(c for c in text if c.isprintable())


_MARKDOWN = str.maketrans(
    {**{c: f"\\{c}" for c in "\\`*_[]|~#$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\char34{}",
    }
)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands, also inside a table."""
    return text.translate(_MARKDOWN)


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands. A leading bracket would be an argument after a line end."""
    text = text.translate(_LATEX)
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def to_markdown(runs: Sequence[RunData]) -> str:
    """A table per task, runs as rows, and notes under it."""
    parts = []
    for table in _tables(runs):
        rule = ["---", "---", *["---:"] * (len(table.header) - 2)]
        lines = [f"**{markdown_text(table.title)}**", ""]
        lines += [_pipes(map(markdown_text, table.header)), _pipes(rule)]
        lines += [_pipes(map(markdown_text, row)) for row in table.rows]
        if table.notes:
            lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_latex(runs: Sequence[RunData]) -> str:
    """A ``table`` per task with booktabs rules; the notes stand in the caption."""
    parts = ["% needs \\usepackage{booktabs} and, for other scripts than Latin, a Unicode engine\n"]
    for table in _tables(runs):
        columns = "ll" + "r" * (len(table.header) - 2)
        caption = ". ".join(map(latex_text, [table.title, *table.notes]))
        lines = [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}.}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            _ampersands(table.header),
            r"    \midrule",
            *map(_ampersands, table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _ampersands(cells: Iterable[str]) -> str:
    return f"    {' & '.join(map(latex_text, cells))} \\\\"


def _to_model_index(runs: Sequence[RunData]) -> str:
    from evals.export_records import to_model_index

    return to_model_index(runs)


def _to_lmms_eval(runs: Sequence[RunData]) -> str:
    from evals.export_records import to_lmms_eval

    return to_lmms_eval(runs)


FORMATS: Mapping[str, Callable[[Sequence[RunData]], str]] = {
    "csv": to_csv,
    "markdown": to_markdown,
    "latex": to_latex,
    "model-index": _to_model_index,
    "lmms-eval": _to_lmms_eval,
}
