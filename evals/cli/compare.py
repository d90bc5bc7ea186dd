"""``blip3o-eval compare``: runs against a baseline, metric by metric, on the samples they share; or a sweep's points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evals.comparison import Comparison, Difference, RunDifferences

_SIGNIFICANT = 0.05


# fmt: off
@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...|SWEEP", type=click.Path())
@click.option("--metric", "metric", multiple=True, metavar="NAME", help="Compare this metric only; may be repeated, and the correction covers no others.  [default: all]")
@click.option("--json", is_flag=True, help="Print one JSON object.  [default: a table]")
# fmt: on
def command(runs: tuple[str, ...], **options: Any) -> None:
    """Compare finished runs of one task with the first of them, the baseline.

    For every metric: the paired difference (run minus baseline) on the outputs that have a score in both,
    its 95 % interval over prompts, a two-sided p-value, and the p-value after Holm's correction for all
    rows of the comparison. Runs of different tasks, prompts or judges are refused, naming what differs.
    A sweep's folder, given alone, prints its combinations against the sweep's baseline, seeds pooled.
    """
    from json import dumps

    from evals.comparison import compare
    from evals.results import load
    from evals.sweeps.folder import SweepFolder, is_sweep

    sweeps = [run for run in runs if is_sweep(run)]
    if sweeps:
        from evals.errors import UsageError
        from evals.sweeps import results, text

        if len(runs) > 1:
            raise UsageError(f"{sweeps[0]} is a sweep, which has a baseline of its own: give it alone")
        found_table = results.build(SweepFolder(Path(sweeps[0])), options["metric"])
        if options["json"]:
            click.echo(dumps(found_table.to_json(), allow_nan=False))
            return
        for line in text.lines(found_table):
            click.echo(line)
        return

    found = compare([load(run) for run in runs], only=options["metric"])
    if options["json"]:
        click.echo(dumps(found.to_json(), allow_nan=False))
        return
    for line in table(found):
        click.echo(line)


def table(found: Comparison) -> list[str]:
    """The comparison as lines of text, one block per run."""
    manifest = found.runs[0].manifest
    judge = manifest["judge"]
    title = f"{manifest['task']['name']}, judged by {judge['name']}" if judge else manifest["task"]["name"]
    lines = [f"{title}; baseline: {found.names[0]} ({found.runs[0].root})"]
    if any(run.results and run.results["is_test_double"] for run in found.runs):
        lines.append("TEST DOUBLE: these figures come from a fake model or judge and mean nothing")
    for one, run in zip(found.against, found.runs[1:], strict=True):
        lines += ["", f"{one.name} ({run.root}): {one.shared} shared outputs of {one.shared_samples} samples"]
        lines += _rows(one, {**(found.runs[0].results or {}).get("metrics", {})})
        lines += [f"note: {text}" for text in one.notes]
    tests = "1 test" if found.n_tests == 1 else f"{found.n_tests} tests"
    small = sum((r.p_holm or 1.0) < _SIGNIFICANT for one in found.against for r in one.rows)
    lines += [
        "",
        f"p: two-sided, signs of whole prompts flipped; Holm: corrected for the {tests} above. "
        f"{small} of them stay below {_SIGNIFICANT}.",
    ]
    return lines


def _rows(one: RunDifferences, metrics: Mapping[str, Any]) -> list[str]:
    """A line per metric; of those without a difference only the headline and what the baseline has a value of."""
    header = ["metric", "baseline", "run", "difference", "95 % interval", "p", "Holm", "n", "units"]
    cells = [header, *(_cells(row) for row in one.rows if row.n)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    for number, row in enumerate(one.rows):
        is_known = number == 0 or metrics.get(row.metric, {}).get("value") is not None
        if not row.n and row.note and is_known:
            lines.append(f"{row.metric.ljust(widths[0])}  -  {row.note}")
    return lines


def _cells(row: Difference) -> list[str]:
    digits = 3 if row.unit == "fraction" else 2

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    interval = "-" if row.ci95 is None else f"{number(row.ci95[0], '+')} to {number(row.ci95[1], '+')}"
    p_value, p_holm = ("-" if p is None else _p(p) for p in (row.p_value, row.p_holm))
    return [
        row.metric, number(row.baseline), number(row.value), number(row.difference, "+"), interval,
        p_value, p_holm, str(row.n), str(row.n_clusters),
    ]  # fmt: skip


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
