"""``blip3o-eval report``: the HTML page of runs, or of a sweep."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN...|SWEEP")
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="HTML file; needed for several runs.  [default: report.html in the run folder]",
)
def command(runs: tuple[str, ...], output: str | None) -> None:
    """Write the HTML report of a run, of several side by side, or of a sweep.

    Reads folders only: no model, no judge, no network. The page of an unfinished run says how much is there.
    """
    from pathlib import Path

    from evals.errors import UsageError
    from evals.sweeps.folder import is_sweep
    from reports.html import write_report

    sweeps = [run for run in runs if is_sweep(run)]
    if sweeps:
        if len(runs) > 1 or output is not None:
            raise UsageError(f"{sweeps[0]} is a sweep: give it alone, its page is written into its folder")
        from reports.sweep import build

        click.echo(str(build(Path(sweeps[0]))))
        return
    if len(runs) > 1 and output is None:
        raise UsageError(f"a report on {len(runs)} runs needs --output FILE")
    path = write_report([Path(run) for run in runs], Path(output) if output else None)
    click.echo(str(path))
