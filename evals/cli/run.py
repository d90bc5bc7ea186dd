"""``blip3o-eval run``: options -> RunConfig -> ``evals.evaluate`` -> a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blip3o.cli_options import wait_politely
from evals.cli.settings import layers_from, settings_options, task_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.runner import Run


# fmt: off
@click.command("run")
@settings_options
@click.option("--output", type=click.Path(), metavar="DIR", help="Run folder; of several tasks DIR/<task>.  [default: runs/<task>-<model>-<configuration>]")
@click.option("--shard", metavar="i/n", help="Do part i (from 0) of n; the last one to finish merges and scores.")
@click.option("--fresh", is_flag=True, help="Remove what is in the run folder and start over.")
@click.option("--retry-errors", is_flag=True, help="Make outputs and scores that ended in an error again.")
@click.option("--sample-timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds per output; a call that takes longer is ended and its sample failed. The model then runs in a process of its own.")
@click.option("--judge-when", type=click.Choice(("auto", "beside", "after")), default="auto", show_default=True, help="Judge outputs beside the drawing of the next ones, or after all are drawn. auto: beside, unless model and judge would share the CPU.")
@click.option("--verify", is_flag=True, help="Read every picture against its checksum, not only its size; damaged ones are made again.")
@click.option("--json", is_flag=True, help="Print results as one JSON object a task.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
# fmt: on
def command(ctx: click.Context, **options: Any) -> None:
    """Run one or more tasks on a model: generate, judge, score, report.

    The same command resumes an interrupted run, and only reads a finished one. Settings are taken
    from, later ones winning: defaults, presets, --config files, environment, --set, these flags;
    `config show` with the same options prints them with their origin. Ctrl-C and SIGTERM stop a run so that
    it can go on; the exit code is then 1 and 143.
    """
    from pathlib import Path

    from evals.cli.interrupts import resumable
    from evals.config import resolve
    from evals.errors import EvalError
    from evals.phases.plan import parse_shard
    from evals.plugins.lookup import find_model
    from evals.runner import RunOptions, prepare

    wait_politely()
    set_up_logging(options["verbose"], options["quiet"])
    layers = layers_from(ctx)
    names = task_names(ctx, layers)
    configs = {name: resolve([*layers, ("flag --task", {"task": name})])[0] for name in names}
    shard = parse_shard(options["shard"]) if options["shard"] else shard_of_launcher()
    output = Path(options["output"]) if options["output"] else None
    model = find_model(configs[names[0]])
    # Everything that can be missing is named before the first picture of the first task.
    runs = [
        prepare(
            name,
            model,
            config.judge.name,
            config,
            RunOptions(
                output / name if output is not None and len(names) > 1 else output,
                shard,
                fresh=options["fresh"],
                retry_errors=options["retry_errors"],
                quiet=options["quiet"],
                sample_timeout_s=options["sample_timeout"],
                verify=options["verify"],
                judge_when=options["judge_when"],
            ),
        )
        for name, config in configs.items()
    ]
    problems = []
    for prepared in runs:
        with resumable():
            run = prepared.run()
        show(run, options["json"], [metric.name for metric in prepared.parts.metrics])
        if run.problem is not None:
            problems.append(run.problem)
    if problems:
        raise EvalError("\n".join(problems))


def shard_of_launcher() -> tuple[int, int]:
    """(rank, world size) under torchrun, else the whole."""
    import os

    from evals.phases.plan import parse_shard

    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return parse_shard(f"{rank}/{size}") if rank and size else (0, 1)


def set_up_logging(is_verbose: bool, is_quiet: bool) -> None:
    import logging

    from evals.io.redact import RedactingFormatter

    level = logging.DEBUG if is_verbose else logging.ERROR if is_quiet else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(levelname)s: %(message)s"))
    for name in ("evals", "blip3o", "tasks", "reports"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            logger.addHandler(handler)


def show(run: Run, as_json: bool, asked: Sequence[str] = ()) -> None:
    """Print a run: one JSON object, or a table of its metrics; see `table`."""
    import json

    if as_json:
        where = {"run": str(run.root), "report": run.report_path and str(run.report_path)}
        body = dict(run.results) if run.results is not None and not run.pending else {}
        click.echo(json.dumps({**where, "pending": run.pending, "problem": run.problem, **body}))
        return
    if run.pending or run.results is None:
        what = f"{run.pending} outputs are left to other shards" if run.pending else "; ".join(run.notes)
        click.echo(f"{run.root}: this part is done; {what}")
        return
    for line in table(run, asked):
        click.echo(line)


def table(run: Run, asked: Sequence[str] = ()) -> list[str]:
    """The results as lines of text: what was run, each metric with interval and n, and the caveats.

    A metric without a single score has no line, unless it is the headline or was `asked` for by name.
    """
    results = run.results
    assert results is not None
    judge = results["judge"]
    title = f"{results['task']['name']} on {results['model']['name']}"
    title += f", judged by {judge['name']} ({judge['domain']})" if judge else ""
    lines = [title + (", PARTIAL" if results["partial"] else "")]
    if results["is_test_double"]:
        lines.append("TEST DOUBLE: these figures come from a fake model or judge and mean nothing")
    width = max((len(name) for name in results["metrics"]), default=0)
    lines.append(f"{'metric':<{width}}  value   95 % interval     n")
    for number, (name, metric) in enumerate(results["metrics"].items()):
        if number and name not in asked and metric["value"] is None and not metric["n"]:
            continue  # a figure this run knows nothing about; results.json says why
        value = "-" if metric["value"] is None else f"{metric['value']:.3f}"
        interval = "{:.3f} to {:.3f}".format(*metric["ci95"]) if metric["ci95"] else "-"
        note = f"  {metric['note']}" if metric["note"] else ""
        lines.append(f"{name:<{width}}  {value:<6}  {interval:<16}  {metric['n']}{note}".rstrip())
    counts = results["counts"]
    if counts["unscored"]:
        lines.append(f"{counts['unscored']} of {counts['outputs']} outputs have no score ({counts['failed']} failed)")
    lines += [f"note: {text}" for text in (*results["deviations"], *results["warnings"])]
    lines.append(f"report: {run.report_path}" if run.report_path else f"run: {run.root}")
    return lines
