"""`blip3o-eval fid`: distances of a folder of pictures to a reference, and statistics of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

FEATURES = ("inception", "effnetlite0", "sticker-features")


# fmt: off
def _options(command: Any) -> Any:
    for option in reversed((
        click.option("--features", default="inception", show_default=True, metavar="NAME", help=f"Whose features: {', '.join(FEATURES)}; NAME:FILE gives the weights."),
        click.option("--resize", type=click.Choice(("clean", "legacy")), default="clean", show_default=True, help="clean: antialiased, as clean-fid; legacy: TensorFlow's, as torch-fidelity."),
        click.option("--crop", type=int, metavar="PX", help="Short side and centre crop before anything else; COCO-30K: 256.  [default: pictures are seen whole]"),
        click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:N or mps."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    )):
        command = option(command)
    return command


@click.group("fid")
def command() -> None:
    """FID, KID, IS, precision and recall of a folder of pictures.

    A model's run against a data set with prompts is `blip3o-eval run --task fid`.
    """


@command.command("score")
@click.argument("pictures", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@_options
@click.option("--bootstrap", type=click.IntRange(min=100), metavar="N", help="Intervals of the distances from N draws of the pictures with replacement; slow for many pictures.  [default: jackknife and disjoint parts]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
# fmt: on
def score(
    pictures: Path, reference: Path, bootstrap: int | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Distances of the folder PICTURES to REFERENCE, a folder or a statistics file."""
    from dataclasses import asdict

    from evals.errors import UsageError
    from evals.metrics.set_figures import MAX_REFERENCE, all_figures
    from evals.pictures.sets import check_places, picture_set, reference_of
    from evals.results import metric_to_json

    check_places(pictures, reference)  # before weights are asked for
    judge = _judge(options)
    other = reference_of(reference, judge, quiet)
    found = picture_set(pictures, judge, quiet)
    if bootstrap and found.n > MAX_REFERENCE:
        raise UsageError(
            f"--bootstrap is for small sets, up to {MAX_REFERENCE:,} pictures; {pictures} holds {found.n:,}: leave it out"
        )
    figures = all_figures(found, other, bootstrap or 0)
    if as_json:
        record = {
            "recipe": asdict(judge.recipe),
            "recipe_digest": judge.recipe.digest,
            "reference": {"source": other.source, "n": other.n, "digest": other.digest},
            "metrics": {figure.name: metric_to_json(figure) for figure in figures},
        }
        click.echo(json.dumps(record))
        return
    width = max(len(figure.name) for figure in figures)
    click.echo(f"{found.n:,} pictures against {other.n:,} of {other.source} (recipe {judge.recipe.digest})")
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.5g}"
        interval = "{:.5g} to {:.5g}".format(*figure.ci95) if figure.ci95 else "-"
        click.echo(f"{figure.name:<{width}}  {value:<9}  {interval:<20}  {figure.note or ''}".rstrip())


@command.command("statistics")
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Statistics file to write, .safetensors.")
@_options
def statistics(pictures: Path, output: Path, quiet: bool, **options: Any) -> None:
    """Write the features of the folder PICTURES, with their recipe, as a reference for later."""
    from evals.errors import UsageError
    from evals.metrics.features import save
    from evals.pictures.sets import STATISTICS_SUFFIX, picture_paths, statistics_of

    if output.suffix != STATISTICS_SUFFIX:
        raise UsageError(f"--output {output} must end in {STATISTICS_SUFFIX}")
    found = statistics_of(picture_paths(pictures), pictures, _judge(options), is_quiet=quiet)
    save(found, output)
    click.echo(f"{output}: {found.n:,} pictures, recipe {found.recipe.digest}, statistics {found.digest}")


def _judge(options: dict[str, Any]) -> Any:
    """The network that --features names. Raises UsageError for one that gives no features."""
    from evals import discovery, registry
    from evals.api import ModelOptions
    from evals.errors import UsageError, suggest
    from evals.judges.features import FeatureJudge

    discovery.discover()
    name, _, rest = options["features"].partition(":")
    extra = {"resize": options["resize"]}
    if options["crop"] is not None:
        extra["crop_px"] = options["crop"]
    if name not in registry.judges:
        raise UsageError(f"--features {name!r} is unknown.{suggest(name, FEATURES)}")
    judge = registry.judges.get(name)(rest, ModelOptions(device=options["device"], extra=extra))
    if not isinstance(judge, FeatureJudge) and not hasattr(judge, "extract"):
        raise UsageError(f"--features {name!r} gives no features; known are: {', '.join(FEATURES)}")
    return judge
