"""`blip3o-eval judge`: how far a judge can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

_MAX_LISTED = 20


@click.group("judge")
def command() -> None:
    """Measure a judge against labels."""


@command.command("agree")
@click.argument("labels", required=False, type=click.Path())
@click.option("--judge", "judge_name", metavar="J", help="Judge to ask.  [default: that of the labels' domain]")
@click.option("--run", "run_folder", metavar="DIR", type=click.Path(), help="Finished run whose pictures are labelled; its stored verdicts count unless --judge is given.")
@click.option("--task", "task_name", metavar="T", help="Task whose rules apply.  [default: the labels' or the run's]")
@click.option("--device", metavar="D", default="auto", show_default=True, help="Device of the judge: auto, cpu, cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.  [default: tables]")
def agree(
    labels: str | None,
    judge_name: str | None,
    run_folder: str | None,
    task_name: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Compare a judge's verdicts with labels.

    LABELS is a file of JSON lines (docs/sticker-judge.md describes it); without it, the labels that come with the
    package: 300 pictures that nano made, labelled by a vision-language model. Printed are agreement, Cohen's kappa and
    the bias of the judge (its rate of yes minus the labels') per group and overall, with 95 % intervals over prompts,
    and the pictures on which the two differ. GenEval's overall is too high by about the bias of overall.
    """
    import json

    from evals.judging import agree as measure

    found = measure(labels, judge_name, run_folder, task_name, device)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    for line in table(found):
        click.echo(line)


def table(found: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text."""
    judge = found["judge"]
    lines = [
        f"judge {judge['name']} (weights {judge['weights_sha256'][:12] or 'none'}) against {found['labels']}: "
        f"{found['overall']['n']} pictures of {found['overall']['prompts']} prompts, task {found['task']}",
        f"labeller: {found['labeller_note'] or 'not named'}",
    ]
    if judge["is_test_double"]:
        lines.append("TEST DOUBLE: a fake judge; these figures mean nothing")
    header = ["group", "n", "agreement", "95 %", "kappa", "95 %", "bias", "95 %", "judge", "labels"]
    rows = [_row(name, figures) for name, figures in found["groups"].items()]
    rows.append(_row("overall", found["overall"]))
    if found["unsure"] and found["overall_sure"]:
        rows.append(_row("overall, sure labels", found["overall_sure"]))
    lines += ["", *_aligned([header, *rows])]
    c = found["overall"]["confusion"]
    lines += [
        "",
        f"judge yes, label yes {c['both']}; judge yes, label no {c['alarm']}; "
        f"judge no, label yes {c['missed']}; judge no, label no {c['neither']}",
    ]
    for name, figures in found["by_pixels"].items():
        lines.append(
            f"{name}, colours read from the pixels: agreement with labels {_value(figures['with_labels']['agreement'])}, "
            f"with the judge's own reading {_value(figures['with_judge']['agreement'])}"
        )
    if found["labeller"]:
        own = found["labeller"]
        lines.append(
            f"labelled twice: {own['n']} pictures, agreement {_value(own['agreement'])}, kappa {_value(own['kappa'])}"
        )
    left_out = [
        f"{found[key]} {words}"
        for key, words in (
            ("unsure", "labels are unsure"),
            ("not_judgeable", "pictures cannot be judged by the labeller"),
            ("without_verdict", "pictures have no verdict of the judge"),
        )
        if found[key]
    ]
    lines += left_out
    differing = found["disagreements"]
    if differing:
        lines += ["", f"They differ on {len(differing)} pictures:"]
        for one in differing[:_MAX_LISTED]:
            who = "judge yes, label no" if one["verdict"] else "judge no, label yes"
            reason = "; ".join(str(one["reason"]).split("\n")) or "-"
            lines.append(
                f"  {one['sample_id']}/{one['image_index']}  {who}{' (unsure)' if one['unsure'] else ''}"
                f"  {str(one['prompt'] or one['group'])[:60]}  [{reason[:60]}]"
            )
        if len(differing) > _MAX_LISTED:
            lines.append(f"  ... {len(differing) - _MAX_LISTED} more with --json")
    return lines


def _row(name: str, figures: Mapping[str, Any]) -> list[str]:
    cells = [name, str(figures["n"])]
    for key, sign in (("agreement", ""), ("kappa", ""), ("bias", "+")):
        cells += [_value(figures[key], sign), _interval(figures[key], sign)]
    return cells + [f"{figures['judge_rate']:.3f}", f"{figures['label_rate']:.3f}"]


def _value(figure: Mapping[str, Any], sign: str = "") -> str:
    return "-" if figure["value"] is None else f"{figure['value']:{sign}.3f}"


def _interval(figure: Mapping[str, Any], sign: str = "") -> str:
    ci95 = figure["ci95"]
    return "-" if ci95 is None else f"{ci95[0]:{sign}.3f} to {ci95[1]:{sign}.3f}"


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
