"""``blip3o-eval sweep``: plan, run, report and look at sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blip3o.cli_options import wait_politely

if TYPE_CHECKING:
    from evals.sweeps.results import SweepTable


@click.group("sweep")
def command() -> None:
    """Grids of points that train and evaluate: plan, run, report.

    FILE is a sweep file in YAML or JSON (`config schema sweep` prints its schema), NAME one that ships (`sweep list`).
    """


# fmt: off
@command.command("plan")
@click.argument("file", metavar="FILE|NAME")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c", help="A key of the file, such as base.train.steps=100 or seeds=[0,1]; may be repeated.")
@click.option("--json", is_flag=True, help="Print one JSON object.")
# fmt: on
def plan(file: str, overrides: tuple[str, ...], json: bool) -> None:
    """Print what a sweep would do: points, shared stages, pictures, time and disk. Writes nothing."""
    import json as jsons

    from evals.sweeps import plan_text
    from evals.sweeps.plan import plan_sweep

    made = plan_sweep(file, overrides)
    if json:
        click.echo(jsons.dumps(plan_text.as_json(made)))
        return
    for line in plan_text.lines(made):
        click.echo(line)


# fmt: off
@command.command("run")
@click.argument("file", metavar="FILE|NAME")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c", help="A key of the file, such as base.train.steps=100 or seeds=[0,1]; may be repeated.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Sweep folder.  [default: runs/sweep-<name>-<definition>]")
@click.option("--executor", metavar="NAME", help="Where jobs run: local, slurm or ray.  [default: the file's, local]")
@click.option("--executor-set", multiple=True, metavar="k=v", help="A setting of the executor, such as cores=4 or partition=gpu; may be repeated.")
@click.option("--max-parallel", type=click.IntRange(min=1), metavar="N", help="Jobs at once.  [default: the file's, else what the executor has room for]")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these points: target=clip,seed=0 or a pattern of ids such as '*seed=0'; may be repeated.")
@click.option("--experiment", metavar="E", help="MLflow experiment.  [default: the file's, blip3o-eval]")
@click.option("--tracking-uri", metavar="U", help="MLflow tracking URI.  [default: the file's, MLFLOW_TRACKING_URI, or runs/mlflow.db]")
@click.option("--no-track", is_flag=True, help="Do not log to MLflow.")
@click.option("--tag", multiple=True, metavar="k=v", help="Tag of the MLflow runs; may be repeated.")
@click.option("--no-report", is_flag=True, help="Write no report.html at the end.")
@click.option("--json", is_flag=True, help="Print the table as one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
# fmt: on
def run(file: str, **options: Any) -> None:
    """Run a sweep: train, evaluate, compare. The same command resumes, point by point and step by step.

    Failed points are tried again, finished ones are left alone. Exit code 1 if a point failed.
    """
    from evals.cli.run import set_up_logging
    from evals.errors import EvalError
    from evals.settings.files import parse_assignment
    from evals.sweeps.door import sweep
    from evals.sweeps.plan import plan_sweep

    wait_politely()
    set_up_logging(options["verbose"], options["quiet"])
    made = plan_sweep(file, options["overrides"])
    for point, reason in made.left_out.items():
        if not options["quiet"]:
            click.echo(f"left out: {point}: {reason}", err=True)
    done = sweep(
        made,
        options["output"],
        executor=options["executor"],
        executor_settings=dict(map(parse_assignment, options["executor_set"])),
        max_parallel=options["max_parallel"],
        only=options["only"],
        tracking=_tracking(options),
        report=not options["no_report"],
        quiet=options["quiet"],
    )
    _show(done.table, done.page, options["json"])
    if done.problem is not None:
        raise EvalError(done.problem)


# fmt: off
@command.command("report")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write all results with their intervals as one small JSON file.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write the tables of a document anew, between its <!-- sweep ... --> marks; may need --results.")
@click.option("--json", is_flag=True, help="Print the table as one JSON object.")
# fmt: on
def report(folder: Path, results: Path | None, markdown: Path | None, json: bool) -> None:
    """Print a sweep's table anew, and write table.csv and report.html. Reads the folder only."""
    from evals.sweeps.finish import finish
    from evals.sweeps.folder import SweepFolder

    table, page = finish(SweepFolder(folder))
    if results is not None:
        from reports.sweep_export import export
        from reports.sweep_markdown import write_results

        write_results(export(folder), results)
    if markdown is not None:
        from reports.sweep_markdown import fill

        fill(markdown)
    _show(table, page, json)


def _show(table: SweepTable, page: Path | None, as_json: bool) -> None:
    import json

    from evals.sweeps import text

    if as_json:
        click.echo(json.dumps({**table.to_json(), "report": page and str(page)}, allow_nan=False))
        return
    for line in text.lines(table):
        click.echo(line)
    if page is not None:
        click.echo(f"report: {page}")


@command.command("status")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--json", is_flag=True, help="One JSON object a point.")
def status(folder: Path, json: bool) -> None:
    """Print where each point of a sweep stands, also while it runs."""
    import json as jsons
    from dataclasses import asdict

    from evals.io.locks import FileLock
    from evals.sweeps.folder import LOCK, SweepFolder

    sweep = SweepFolder(folder)
    ids = sweep.point_ids()
    lock = FileLock(folder / LOCK)
    holder = lock.holder() if lock.path.exists() else None
    counts: dict[str, int] = {}
    for point in ids:
        state = sweep.state(point)
        # A scheduler that was killed took its jobs with it and could not say so.
        text = "interrupted" if state.status == "running" and holder is None else state.status
        counts[text] = counts.get(text, 0) + 1
        if json:
            click.echo(jsons.dumps({"point": point, **asdict(state), "status": text}))
            continue
        what = state.error if text == "failed" else state.doing if text == "running" else None
        share = f" {state.progress:.0%}" if text == "running" else ""
        click.echo(f"{text + share:<12}  {point}" + (f": {what}" if what else ""))
    if not json:
        summary = ", ".join(f"{n} {text}" for text, n in counts.items())
        click.echo(f"{len(ids)} points: {summary}; " + (f"scheduled by {holder}" if holder else "nobody works on it"))


@command.command("list")
def list_() -> None:
    """List the sweeps that ship with the package."""
    from evals.sweeps.sweepfile import load_sweep, shipped

    for name in shipped():
        config, _ = load_sweep(name)
        click.echo(f"{name:<20}  {' '.join(config.description.split())}")


def _job(ctx: click.Context, folder: Path) -> None:
    from evals.sweeps.point import main

    ctx.exit(main([str(folder)]))


@command.command("point", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_context
def point(ctx: click.Context, folder: Path) -> None:
    """Do the job of one point or stage; executors start this."""
    _job(ctx, folder)


def _tracking(options: dict[str, Any]) -> dict[str, Any]:
    from evals.cli.settings import parse_tag

    found: dict[str, Any] = {"enabled": False} if options["no_track"] else {}
    for key in ("experiment", "tracking_uri"):
        if options[key] is not None:
            found[key] = options[key]
    if options["tag"]:
        found["tags"] = dict(map(parse_tag, options["tag"]))
    return found
