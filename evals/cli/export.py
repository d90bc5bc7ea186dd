"""``blip3o-eval export``: finished runs as tables and records."""

from __future__ import annotations

import click

_FORMATS = ("csv", "markdown", "latex", "model-index", "lmms-eval")


@click.command("export")
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False), metavar="RUN...")
@click.option("--format", "form", type=click.Choice(_FORMATS), required=True, help="csv: a line per run and metric. markdown, latex: a table per task. model-index: metadata of a Hugging Face model card. lmms-eval: a results file of its form.")
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write there.  [default: stdout]")
def command(runs: tuple[str, ...], form: str, output: str | None) -> None:
    """Write the figures of finished runs in another form.

    RUN is a run folder, or a folder that holds several. Figures keep their intervals and counts, and
    partial runs and test doubles stay marked.
    """
    from pathlib import Path

    from evals.export import export
    from evals.io.files import write_atomically
    from evals.publish import run_folders
    from evals.results import load

    text = export([load(root) for root in run_folders(runs)], form)
    if output is None:
        click.echo(text, nl=False)
        return
    write_atomically(Path(output), text.encode())
    click.echo(output)
