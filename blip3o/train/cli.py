"""``blip3o train``: recipes by name or file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

NANO_STAGES = (
    "tokenizer",
    "clip",
    "decoder",
    "vision",
    "understanding",
    "cache",
    "generation",
    "alignment",
    "conditions",
    "generator",
    "export",
)
OPTIONAL_NANO_STAGES = ("autoencoder",)  # no part of what ships: run when asked for


@click.command()
@click.argument("recipe")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder of the run; an interrupted one resumes. Default runs/train-RECIPE.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Setting in place of the recipe's own, e.g. loop.steps=100 or data.0.paths='[a.tar]' (repeatable).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Count parameters, memory and time on no device at all, print them and stop.",
)
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="With --dry-run: processes.")
@click.option(
    "--peak-tflops",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Peak of one device in TFLOP/s, whose share the log gives. Default: this device's, from its data sheet "
    "(a CPU's is measured); with --dry-run 989, an H100's or H200's in bf16.",
)
@click.option(
    "--share",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.4,
    show_default=True,
    help="With --dry-run: share of the peak that the run reaches.",
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: one JSON object.")
@click.option(
    "--profile",
    is_flag=True,
    help="Wait for the GPU around every phase of a step, which makes the seconds of the phases true.",
)
@click.option(
    "--tracking-uri",
    default=None,
    help="Curves go to this MLflow store, e.g. sqlite:///runs/mlflow.db; a resumed run goes on with its own. "
    "Default: none.",
)
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice((*NANO_STAGES, *OPTIONAL_NANO_STAGES)),
    help="nano: only these stages (repeatable); default all but autoencoder, in order.",
)
@click.option(
    "--minutes",
    "minutes",
    multiple=True,
    metavar="STAGE=MINUTES",
    help="nano: time budget of a stage, in minutes; its learning rate anneals within it (repeatable).",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    help="CPU threads; default torch's own choice.",
)
def train(
    recipe: str,
    output: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    devices: int,
    peak_tflops: float | None,
    share: float,
    as_json: bool,
    profile: bool,
    tracking_uri: str | None,
    stages: tuple[str, ...],
    minutes: tuple[str, ...],
    threads: int | None,
) -> None:
    """Train RECIPE: `nano` (the bundled model, from nothing), a recipe that ships, or a YAML file.

    In a recipe, `evaluate:` scores the model and draws sample pictures on the way; see docs/training.md.
    """
    import torch

    from blip3o.errors import Blip3oError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    folder = output or Path("runs") / f"train-{Path(recipe).stem}"
    try:
        if recipe == "nano":
            _refuse_for_nano(overrides, dry_run, tracking_uri)
            _train_nano(folder, stages, minutes)
            return
        if stages or minutes:
            raise click.UsageError("--stage and --minutes belong to nano; use --set loop.max_minutes=N")
        from blip3o.train.recipe import TrainRecipe, load_recipe

        settings = load_recipe(recipe, overrides)
        if dry_run:
            from blip3o.train.estimate import describe, estimate

            if not isinstance(settings, TrainRecipe):
                raise click.UsageError(f"--dry-run counts whole models, not the stage '{settings.stage}' of a part")
            found = estimate(settings, processes=devices, peak_tflops=peak_tflops or 989.0, share=share)
            click.echo(json.dumps(found.to_dict()) if as_json else describe(found))
            return
        from blip3o.train.curves import mlflow_curves
        from blip3o.train.distributed import leave
        from blip3o.train.loop import Hooks
        from blip3o.train.run_part import run_part
        from blip3o.train.run_recipe import run_recipe

        with mlflow_curves(tracking_uri, folder.name, folder) as log:
            hooks = Hooks(log=log, synchronize=profile, peak_tflops=peak_tflops)
            if isinstance(settings, TrainRecipe):
                made = run_recipe(settings, folder, hooks)
            else:
                made = run_part(settings, folder, hooks)
            click.echo(made)
        leave()
    except Blip3oError as error:
        raise click.ClickException(str(error)) from error


def _refuse_for_nano(overrides: tuple[str, ...], dry_run: bool, tracking_uri: str | None) -> None:
    if overrides or dry_run or tracking_uri:
        raise click.UsageError("--set, --dry-run and --tracking-uri belong to recipes in YAML, not to nano")


def _train_nano(folder: Path, stages: tuple[str, ...], minutes: tuple[str, ...]) -> None:
    from blip3o.train.nano import BUDGETED_STAGES, NanoTrainer

    budgets: dict[str, float] = {}
    for entry in minutes:
        name, _, value = entry.partition("=")
        if name not in BUDGETED_STAGES:
            raise click.UsageError(
                f"--minutes {entry!r}: '{name}' has no time budget; one of {', '.join(BUDGETED_STAGES)}"
            )
        try:
            budgets[name] = float(value)
        except ValueError:
            raise click.UsageError(
                f"--minutes {entry!r}: '{value}' is not a number of minutes"
            ) from None
        if not 0 < budgets[name] < float("inf"):
            raise click.UsageError(f"--minutes {entry!r}: must be greater than 0")
    NanoTrainer(folder, minutes=budgets).run(stages or NANO_STAGES)
