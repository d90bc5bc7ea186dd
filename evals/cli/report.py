"""``blip3o-eval report``: the HTML page of runs."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="HTML file; needed for several runs.  [default: report.html in the run folder]",
)
def command(runs: tuple[str, ...], output: str | None) -> None:
    """Write the HTML report of a run, or of several side by side.

    Reads run folders only: no model, no judge, no network. The page of an unfinished run says how much is there.
    """
    from pathlib import Path

    from evals.errors import UsageError
    from reports.html import write_report

    if len(runs) > 1 and output is None:
        raise UsageError(f"a report on {len(runs)} runs needs --output FILE")
    path = write_report([Path(run) for run in runs], Path(output) if output else None)
    click.echo(str(path))
