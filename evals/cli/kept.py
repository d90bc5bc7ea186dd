"""``blip3o-eval kept``: understanding before and after generation training, paired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evals.kept import Kept


# fmt: off
@click.command("kept")
@click.argument("before", type=click.Path())
@click.argument("after", nargs=-1, required=True, type=click.Path())
@click.option("--margin", type=float, default=0.02, show_default=True, metavar="X", help="Loss that still counts as kept, as a share of the figure's range.")
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write the report page, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.  [default: a table]")
# fmt: on
def command(before: str, after: tuple[str, ...], margin: float, html: str | None, as_json: bool) -> None:
    """Was understanding kept? Runs of one backbone BEFORE generation training against those AFTER it.

    Each is a run folder of an understanding task, or a folder of the runs of several tasks, as
    `run --task a,b --output DIR` makes it. Says for each task how many answers are the same word for
    word, the paired difference with its interval, and a reading: identical, kept, lost, gained or
    undecided.
    """
    from json import dumps
    from pathlib import Path

    from evals.kept import kept

    found = kept(before, after, margin)
    if html is not None:
        from reports.kept import write_page

        click.echo(str(write_page(found, Path(html))), err=True)
    if as_json:
        click.echo(dumps(found.to_json(), allow_nan=False))
        return
    for line in table(found):
        click.echo(line)


def table(found: Kept) -> list[str]:
    """The comparison as lines of text."""
    from evals.kept import legend

    lines = [f"before: {found.before}"]
    if any(_is_double(one.before) or _is_double(one.after) for a in found.after for one in a.tasks):
        lines.append("TEST DOUBLE: these figures come from a fake model and mean nothing")
    header = ["task", "figure", "before", "after", "difference", "95 % interval", "p (Holm)", "same", "better", "worse", "reading"]
    for after in found.after:
        lines += ["", after.sentence]
        cells = [header, *(_cells(one) for one in after.tasks)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        lines += [f"note: {one.task}: {note}" for one in after.tasks for note in one.notes]
        if after.left_out:
            lines.append(f"note: only one side has {', '.join(after.left_out)}")
    used = {one.verdict for after in found.after for one in after.tasks}
    lines += ["", *(f"{v}: {text}" for v, text in legend(found.margin).items() if v in used)]
    return lines


def _is_double(run: Any) -> bool:
    return bool(run.results and run.results["is_test_double"])


def _cells(one: Any) -> list[str]:
    head = one.headline
    digits = 3 if head.unit == "fraction" else 2

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    interval = "-" if head.ci95 is None else f"{number(head.ci95[0], '+')} to {number(head.ci95[1], '+')}"
    p = "-" if head.p_holm is None else "<0.001" if head.p_holm < 0.001 else f"{head.p_holm:.3f}"
    return [
        one.task, head.metric, number(head.baseline), number(head.value), number(head.difference, "+"), interval, p,
        f"{one.same}/{one.shared}", str(one.better), str(one.worse), one.verdict,
    ]  # fmt: skip
