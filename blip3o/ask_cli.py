"""``blip3o ask``: one question, about a picture, several, or none."""

from __future__ import annotations

from pathlib import Path

import click

from blip3o.cli_options import SEED, device_option, load_pipeline, model_option


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.argument("question")
@model_option
@click.option("--image", "more", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A further picture, after IMAGE; may be given several times.")
@click.option("--choice", "choices", multiple=True, metavar="TEXT",
              help="Compare this answer with others instead of writing one; give two or more.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="0 takes the likeliest token; above, tokens are drawn.")
@click.option("--top-p", type=click.FloatRange(min=0, min_open=True, max=1), default=1.0, show_default=True,
              help="Draw from the fewest tokens whose probabilities sum to this.")
@click.option("--seed", type=SEED, default=42, show_default=True, help="Of a drawn answer.")
@click.option("--min-pixels", type=click.IntRange(min=1), default=None,
              help="Smallest size that pictures are read at; default the model's own.")
@click.option("--max-pixels", type=click.IntRange(min=1), default=None,
              help="Largest size that pictures are read at; default the model's own.")
@device_option
def ask(
    image: Path, question: str, model: str, more: tuple[Path, ...], choices: tuple[str, ...], max_new_tokens: int,
    temperature: float, top_p: float, seed: int, min_pixels: int | None, max_pixels: int | None, device: str,
) -> None:  # fmt: skip
    """Answer QUESTION about the picture IMAGE; - for IMAGE asks without a picture.

    With --choice the answers given are listed, the likeliest first, each with the natural logarithm of its probability
    and its share among them.
    """
    import torch

    from blip3o.chat import open_picture
    from blip3o.errors import Blip3oError

    if len(choices) == 1:
        raise click.UsageError("one --choice is compared with nothing; give two or more")
    try:
        paths = [*([] if str(image) == "-" else [image]), *more]
        pictures = [open_picture(path) for path in paths]
        pipeline = load_pipeline(model, None, device)
        pipeline.set_pixels(min_pixels, max_pixels)
        if choices:
            [found] = pipeline.score_choices([pictures], [question], choices)
            shares = torch.tensor(found.log_likelihoods, dtype=torch.float64).softmax(0).tolist()
            rows = sorted(zip(found.log_likelihoods, shares, choices, strict=True), key=lambda row: -row[0])
            for value, share, text in rows:
                click.echo(f"{value:9.3f}  {share:6.1%}  {text}")
            return
        [answer] = pipeline.ask_batch(
            [pictures], [question], max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        click.echo(answer)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
