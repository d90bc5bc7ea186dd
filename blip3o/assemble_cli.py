"""``blip3o assemble``: the folder that a training of a new model starts from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from blip3o.cli_options import SEED

DESIGNS = {
    "clip-flow": {"target": "clip", "objective": "flow"},
    "clip-mse": {"target": "clip", "objective": "mse"},
    "vae-flow": {"target": "vae", "objective": "flow"},
}


@click.command()
@click.argument("backbone", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--design", type=click.Choice(list(DESIGNS)), default="clip-flow", show_default=True,
              help="What is generated, and how it is learned.")
@click.option("--head", default="dit", show_default=True, help="Network: dit, linear (clip-mse) or sana (vae-flow).")
@click.option("--num-queries", type=click.IntRange(min=1), default=64, show_default=True, help="Query tokens.")
@click.option("--dit", "dit", multiple=True, metavar="KEY=VALUE",
              help="A size of the transformer, for instance num_layers=12 (repeatable); default the released ones.")
@click.option("--decoder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None,
              help="Folder of a pixel decoder to take along.")
@click.option("--target-encoder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None,
              help="Folder of a target encoder to take along.")
@click.option("--dtype", type=click.Choice(("float32", "float16", "bfloat16")), default="float32", show_default=True,
              help="Of the weights.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the fresh queries and head.")
def assemble(
    backbone: Path, output: Path, design: str, head: str, num_queries: int, dit: tuple[str, ...], decoder: Path | None,
    target_encoder: Path | None, dtype: str, seed: int,
) -> None:
    """Put fresh queries and a fresh head on the pretrained BACKBONE and write the model to OUTPUT.

    BACKBONE: a transformers folder of Qwen2.5-VL or of a language model, or a BLIP3-o folder whose backbone is kept.
    """
    import torch

    from blip3o.assemble import assemble as build
    from blip3o.card import read_card
    from blip3o.decoder import load_decoder
    from blip3o.errors import Blip3oError
    from blip3o.pipeline import Blip3oPipeline
    from blip3o.vision.targets import load_target

    if output.exists() and any(output.iterdir()):
        raise click.UsageError(f"{output} is not an empty folder; name a new one")
    sizes = dict(_size(entry) for entry in dit)
    precision = getattr(torch, dtype)
    torch.manual_seed(seed)
    try:
        model, tokenizer = build(
            backbone, dtype=precision, num_queries=num_queries, dit_config=sizes, head=head, **DESIGNS[design]
        )
        # How a trained backbone is shown pictures and asked stays; what its model could do does not.
        card = replace(read_card(backbone), version="1", modes=(), is_random=False)
        pipeline = Blip3oPipeline(
            model,
            tokenizer,
            None if decoder is None else load_decoder(decoder, precision),
            card,
            target_encoder=None if target_encoder is None else load_target(target_encoder),
        )
        pipeline.save_pretrained(output)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    fresh = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("backbone."))
    click.echo(f"{output}: {design}, {fresh:,} fresh parameters on {model.config.backbone_config['model_type']}")


def _size(entry: str) -> tuple[str, Any]:
    name, _, text = entry.partition("=")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        raise click.UsageError(f"--dit {entry!r} is no KEY=VALUE with a number") from None
