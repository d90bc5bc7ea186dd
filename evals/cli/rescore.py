"""`blip3o-eval rescore`: judge the outputs of a run again, in a folder of its own."""

from __future__ import annotations

from typing import Any

import click

from evals.cli.settings import NumberOrAuto, Share, judge_settings


# fmt: off
@click.command("rescore")
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--judge", metavar="NAME", help="Who judges now, such as stickers or stickers:FOLDER for other weights; auto takes that of the model's domain.  [default: the run's own, for new weights or new rules]")
@click.option("--output", type=click.Path(), metavar="DIR", help="The new run folder.  [default: beside RUN, <task>-<model>-<configuration>]")
@click.option("--judge-batch-size", type=NumberOrAuto(), metavar="N|auto", help="Outputs per call of the judge.  [default: as in RUN]")
@click.option("--set", multiple=True, metavar="judge.args.X=V", help="One argument of the judge; may be repeated.")
@click.option("--max-errors", type=Share(), metavar="SHARE", help="Share of outputs that may fail before the exit code is 1.  [default: as in RUN]")
@click.option("--experiment", metavar="E", help="MLflow experiment.  [default: as in RUN]")
@click.option("--tracking-uri", metavar="U", help="MLflow tracking URI.  [default: as in RUN]")
@click.option("--no-track", is_flag=True, help="Do not log to MLflow.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", is_flag=True, help="Print results as one JSON object.  [default: a table]")
# fmt: on
def command(run: str, judge: str | None, output: str | None, quiet: bool, **options: Any) -> None:
    """Judge the pictures or texts of RUN again: by another judge, by new weights, or by new rules.

    Nothing is drawn again and RUN is only read. The new folder is a whole run that names RUN as its parent.
    The same command resumes; outputs that RUN has made meanwhile are taken over. While RUN lacks outputs,
    they count as failed and no headline figure is given.
    """
    from evals.cli.interrupts import resumable
    from evals.cli.run import set_up_logging, show, wait_politely
    from evals.errors import EvalError
    from evals.rescoring import rescore

    wait_politely()
    set_up_logging(False, quiet)
    settings = judge_settings(options["set"], "rescore")
    if options["judge_batch_size"] is not None:
        settings.setdefault("judge", {})["batch_size"] = options["judge_batch_size"]
    if options["max_errors"] is not None:
        settings["max_errors"] = options["max_errors"]
    tracking = {k: options[k] for k in ("experiment", "tracking_uri") if options[k] is not None}
    if options["no_track"]:
        tracking["enabled"] = False
    if tracking:
        settings["tracking"] = tracking
    with resumable():
        found = rescore(run, judge, output=output, settings=settings, quiet=quiet)
    if not quiet:
        missing = f"; {found.missing:,} are not made yet" if found.missing else ""
        click.echo(f"reused {found.reused:,} outputs of {found.parent}{missing}", err=True)
    show(found.run, options["json"])
    if found.run.problem is not None:
        raise EvalError(found.run.problem)
