"""``blip3o-eval merge``: shards -> one run, scored and reported."""

from __future__ import annotations

import click


@click.command("merge")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print results as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(folder: str, as_json: bool, quiet: bool) -> None:
    """Merge the shards in FOLDER, score and report the run.

    The last shard to finish does this by itself; use it when that process died. Nothing is generated:
    missing outputs are counted, and refused.
    """
    from evals.cli.run import set_up_logging, show, wait_politely
    from evals.errors import EvalError
    from evals.runner import merge

    wait_politely()
    set_up_logging(False, quiet)
    run = merge(folder, quiet=quiet)
    show(run, as_json)
    if run.problem is not None:
        raise EvalError(run.problem)
