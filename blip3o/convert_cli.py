"""``blip3o convert``."""

from __future__ import annotations

from pathlib import Path

import click

LAYOUTS = ("blip3o", "released", "released-new", "target-encoder")
DTYPES = ("float32", "float16", "bfloat16")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--layout", type=click.Choice(LAYOUTS), required=True,
              help="blip3o: our folder. released: as published, names of transformers 4.51; released-new: "
                   "names of 4.52 and later. target-encoder: EVA-CLIP weights, from a file or a released folder.")
@click.option("--dtype", type=click.Choice(DTYPES), default=None, help="Of the new files; default as they are.")
@click.option("--shard-gigabytes", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="Largest weight file, in GB.")
def convert(source: Path, target: Path, layout: str, dtype: str | None, shard_gigabytes: float) -> None:
    """Write the weights in SOURCE to the new folder TARGET in another layout."""
    import torch

    from blip3o.convert import convert as run
    from blip3o.errors import Blip3oError

    precision = None if dtype is None else getattr(torch, dtype)
    try:
        notes = run(source, target, layout, precision, int(shard_gigabytes * 1e9))  # type: ignore[arg-type]
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(target)
