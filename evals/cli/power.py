"""`blip3o-eval power`: which difference a run can show, and what size a difference needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evals.power import Plan

_FRACTION = click.FloatRange(0, 1)
_INSIDE = click.FloatRange(0, 1, min_open=True, max_open=True)


# fmt: off
@click.command("power")
@click.argument("run", required=False, metavar="[RUN]", type=click.Path())
@click.option("--against", metavar="RUN2", type=click.Path(), help="A second run of the task: measures --correlation.")
@click.option("--metric", metavar="NAME", help="Metric of RUN.  [default: its headline]")
@click.option("--share", type=_FRACTION, metavar="P", help="Without RUN: share of right answers, 0 to 1.  [default: 0.5, the worst case]")
@click.option("--prompts", type=click.IntRange(min=1), metavar="N", help="Prompts; with RUN its strata are scaled to N in all.  [default: RUN's, else 553]")
@click.option("--num-images", type=click.IntRange(min=1), metavar="M", help="Pictures per prompt.  [default: RUN's, else 4]")
@click.option("--icc", type=_FRACTION, metavar="R", help="Without RUN: correlation of two pictures of one prompt, 0 to 1.  [default: 0.5]")
@click.option("--correlation", type=_FRACTION, metavar="C", help="How strongly two models agree on which prompts are hard, 0 to 1.  [default: that of --against, else 0.5]")
@click.option("--difference", type=click.FloatRange(min=0, min_open=True), metavar="D", help="A difference to plan for, in the metric's unit (GenEval: 0.02 is two points).")
@click.option("--power", type=_INSIDE, default=0.8, show_default=True, metavar="SHARE", help="Chance of finding a true difference.")
@click.option("--alpha", type=_INSIDE, default=0.05, show_default=True, metavar="SHARE", help="Chance of a false alarm, two-sided.")
@click.option("--comparisons", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="Tests that share --alpha.")
@click.option("--json", is_flag=True, help="Print one JSON object.  [default: text]")
# fmt: on
def command(run: str | None, against: str | None, **options: Any) -> None:
    """Say which difference between two models a run can show, and what size a given difference needs.

    With a finished RUN, shares and the correlation of pictures of one prompt are measured on it; without one, they are
    what the options say. Prompts are the independent units: more pictures of the same prompts help only so far.
    """
    from json import dumps

    from evals.power import plan

    measured, source = _from_run(run, against, options) if run else _from_numbers(against, options)
    found = plan(
        measured,
        difference=options["difference"],
        power=options["power"],
        alpha=options["alpha"],
        comparisons=options["comparisons"],
    )
    if options["json"]:
        click.echo(dumps({"source": source, **found.to_json()}, allow_nan=False))
        return
    for line in text(found, source):
        click.echo(line)


def _from_run(run: str, against: str | None, options: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from dataclasses import replace

    from evals.errors import UsageError
    from evals.power import correlation_of_runs, design_of_run
    from evals.results import load

    for name in ("share", "icc"):
        if options[name] is not None:
            raise UsageError(f"--{name} is measured on {run}: give either the run or the number")
    data = load(run)
    correlation, source = options["correlation"], "given"
    if against is not None:
        if correlation is not None:
            raise UsageError("--correlation is measured by --against: give one of them")
        correlation, source = correlation_of_runs(data, load(against), options["metric"]), "measured"
    elif correlation is None:
        source = "assumed"
    measured = design_of_run(data, options["metric"], correlation)
    design = measured.design
    if options["prompts"] is not None:
        design = design.with_clusters(options["prompts"] / sum(design.n_clusters))
    if options["num_images"] is not None:
        design = replace(design, cluster_size=options["num_images"])
    return replace(measured, design=design), {"run": run, "correlation": source}


def _from_numbers(against: str | None, options: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from evals.errors import UsageError
    from evals.power import DEFAULT_CORRELATION, Measured
    from evals.stats import Design

    if against is not None or options["metric"] is not None:
        raise UsageError("--against and --metric need a RUN to measure on")

    def number(name: str, default: float) -> float:
        return default if options[name] is None else options[name]

    share = number("share", 0.5)
    design = Design(
        (int(number("prompts", 553)),),
        (share,),
        (number("icc", 0.5),),
        number("num_images", 4),
        number("correlation", DEFAULT_CORRELATION),
    )
    source = "assumed" if options["correlation"] is None else "given"
    measured = Measured("share", "fraction", 1.0, share, design, options["icc"] is not None)
    return measured, {"correlation": source}


def text(found: Plan, source: dict[str, str]) -> list[str]:
    """The plan as lines."""
    measured, design = found.measured, found.measured.design
    prompts = sum(design.n_clusters)
    name = f"{measured.metric} of {source['run']}" if "run" in source else "a share"
    icc = sum(n * r for n, r in zip(design.n_clusters, design.iccs, strict=True)) / prompts
    hint = " (--against RUN2 measures it)" if source["correlation"] == "assumed" else ""
    guess = "" if measured.has_icc else " (assumed)"
    unit = "" if measured.unit == "fraction" else f" {measured.unit}"
    shared = f", shared by {found.comparisons} comparisons" if found.comparisons > 1 else ""
    lines = [
        f"{name}: {_number(measured.value, measured)}; {prompts:,} prompts x {design.cluster_size:g} pictures",
        f"pictures of one prompt correlate by {icc:.2f}{guess}, two models over prompts by {design.correlation:.2f}, "
        f"{source['correlation']}{hint}",
        "",
        f"A true difference of {_number(found.detectable, measured)}{unit} or more is found with a chance "
        f"of {found.power:.0%} (two-sided test at {found.alpha:g}{shared}).",
        "",
        "pictures per prompt  detectable difference",
    ]
    lines += [f"{size:<19}  {_number(value, measured)}" for size, value in found.by_size]
    lines.append(f"{'endless':<19}  {_number(found.limit, measured)}")
    if found.difference is not None:
        images = found.num_images_needed
        enough = (
            f"{images:,} pictures of each of these prompts"
            if images is not None
            else "no number of pictures of these prompts alone"
        )
        assert found.power_of_difference is not None and found.prompts_needed is not None
        lines += [
            "",
            f"A difference of {_number(found.difference, measured)} is found here with a chance of "
            f"{found.power_of_difference:.0%}. For {found.power:.0%} it needs {found.prompts_needed:,} prompts x "
            f"{design.cluster_size:g} pictures, or {enough}.",
        ]
    return lines


def _number(value: float, measured: Any) -> str:
    return f"{value:.{3 if measured.unit == 'fraction' else 2}f}"
