"""``blip3o-eval track``: what concerns MLflow after a run."""

from __future__ import annotations

import click


@click.group("track")
def command() -> None:
    """Look after what runs log to MLflow."""


@command.command("sync")
@click.argument("places", nargs=-1, type=click.Path(exists=True, file_okay=False), metavar="[RUN|SWEEP|FOLDER]...")
@click.option("--all", "include_untracked", is_flag=True, help="Log runs that were made with --no-track, too.")
@click.option("--experiment", metavar="E", help="MLflow experiment.  [default: that of the run]")
@click.option("--tracking-uri", metavar="U", help="MLflow tracking URI.  [default: that of the first attempt]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
def sync(
    places: tuple[str, ...],
    include_untracked: bool,
    experiment: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Log runs and sweeps whose logging failed or was interrupted; the default is all below ./runs.

    A run that has an MLflow run already continues it: nothing is logged twice. Exit code 1 if a run
    could not be logged.
    """
    import json

    from evals.cli.run import set_up_logging
    from evals.publish import run_folders, sync, sync_sweep
    from evals.sweeps.folder import is_sweep

    set_up_logging(False, True)
    done = []
    for root in run_folders(places or ("runs",), with_sweeps=True):
        result = (sync_sweep if is_sweep(root) else sync)(
            root,
            tracking_uri=tracking_uri,
            experiment=experiment,
            include_untracked=include_untracked,
        )
        done.append(result)
        if as_json:
            click.echo(
                json.dumps({"run": str(root), "outcome": result.outcome, "detail": result.detail})
            )
        else:
            click.echo(f"{result.outcome:<14}  {root}  {result.detail}".rstrip())
    raise SystemExit(1 if any(result.is_problem for result in done) else 0)
