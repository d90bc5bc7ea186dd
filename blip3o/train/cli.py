"""``blip3o train``: recipes by name."""

from __future__ import annotations

import logging
from pathlib import Path

import click

RECIPES = ("nano",)
NANO_STAGES = (
    "tokenizer",
    "clip",
    "decoder",
    "vision",
    "understanding",
    "cache",
    "generation",
    "export",
)


@click.command()
@click.argument("recipe", type=click.Choice(RECIPES))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/train-nano"),
    show_default=True,
    help="Folder of the stages; finished ones are kept, an interrupted one resumes.",
)
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(NANO_STAGES),
    help="Only these stages (repeatable); default all, in order.",
)
@click.option(
    "--minutes",
    "minutes",
    multiple=True,
    metavar="STAGE=MINUTES",
    help="Time budget of a stage, in minutes; the learning rate anneals to its end within it (repeatable).",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    help="CPU threads; default torch's own choice.",
)
def train(
    recipe: str,
    output: Path,
    stages: tuple[str, ...],
    minutes: tuple[str, ...],
    threads: int | None,
) -> None:
    """Train RECIPE from nothing. `nano`: the bundled model, on the sticker world."""
    import torch

    from blip3o.errors import Blip3oError
    from blip3o.train.nano import TRAINED_STAGES, NanoTrainer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    budgets: dict[str, float] = {}
    for entry in minutes:
        name, _, value = entry.partition("=")
        if name not in TRAINED_STAGES:
            raise click.UsageError(
                f"--minutes {entry!r}: '{name}' has no time budget; one of {', '.join(TRAINED_STAGES)}"
            )
        try:
            budgets[name] = float(value)
        except ValueError:
            raise click.UsageError(
                f"--minutes {entry!r}: '{value}' is not a number of minutes"
            ) from None
        if budgets[name] <= 0:
            raise click.UsageError(f"--minutes {entry!r}: must be greater than 0")
    if threads:
        torch.set_num_threads(threads)
    try:
        NanoTrainer(output, minutes=budgets).run(stages or NANO_STAGES)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from error
