"""``blip3o``: train, generate, ask, parity. Commands import what they need when they run."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

# Commands that live elsewhere, loaded when named: name -> (module:attribute, help line).
_LAZY = {
    "train": ("blip3o.train.cli:train", "Train a recipe from nothing."),
}


class LazyGroup(click.Group):
    """A group that imports some of its commands only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _LAZY:
            return super().get_command(ctx, name)
        module, attribute = _LAZY[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but without importing the commands for their help lines."""
        rows = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        rows += [(name, text) for name, (_, text) in _LAZY.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(cls=LazyGroup, context_settings={"auto_envvar_prefix": "BLIP3O", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="blip3o-eval")
def main() -> None:
    """BLIP3-o: one model that understands and generates images."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def parity(files: tuple[Path, ...]) -> None:
    """Replay recorded tensors of the upstream modules (FILE...) and print the differences.

    One line per file, then the number of tensors and the largest difference. Exit 1 if a tensor differs by
    more than 1e-5, an integer differs, or a tensor cannot be replayed.
    """
    from blip3o.parity import replay_file, summary

    reports = []
    for path in files:
        reports.append(replay_file(path))
        click.echo(reports[-1].line())
        for key, reason in list(reports[-1].failures.items())[1:]:
            click.echo(f"{path.name}:{key} failed: {reason}", err=True)
    click.echo(summary(reports))
    if any(report.failures for report in reports):
        sys.exit(1)


@main.command()
@click.argument("prompt")
@click.option("--model", default="nano", show_default=True, help="Preset, folder or hub id of the weights.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("picture.png"),
              show_default=True, help="PNG file; several pictures get numbers before the ending.")
@click.option("--num-images", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures to make.")
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of the first picture; the next adds 1.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Sampling steps; default the model's own.")
@click.option("--guidance-scale", type=click.FloatRange(min=0), default=None, help="Default the model's own.")
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="Input picture; PROMPT is then an instruction.")
@click.option("--compat", type=click.Choice(["default", "released"]), default=None,
              help="released repeats the choices of the released inference code.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
def generate(
    prompt: str, model: str, output: Path, num_images: int, seed: int, steps: int | None,
    guidance_scale: float | None, image: Path | None, compat: str | None, device: str,
) -> None:
    """Make pictures of PROMPT."""
    import torch

    from blip3o.errors import Blip3oError

    try:
        pipeline = _load(model, compat, device)
        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(num_images)]
        result = pipeline(
            [prompt] * num_images, None if image is None else _open(image), generator=generators,
            num_inference_steps=steps, guidance_scale=guidance_scale,
        )
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    for i, picture in enumerate(result.images):
        path = output if num_images == 1 else output.with_name(f"{output.stem}-{i}{output.suffix or '.png'}")
        try:
            picture.save(path)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path} cannot be written ({error})") from None
        click.echo(path)


@main.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("question")
@click.option("--model", default="nano", show_default=True, help="Preset, folder or hub id of the weights.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
def ask(image: Path, question: str, model: str, max_new_tokens: int, device: str) -> None:
    """Answer QUESTION about the picture IMAGE."""
    from blip3o.errors import Blip3oError

    try:
        pipeline = _load(model, None, device)
        click.echo(pipeline.ask(_open(image), question, max_new_tokens=max_new_tokens))
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None


def _load(model: str, compat: Any, device: str) -> Any:
    """The pipeline on a device. Raises: Blip3oError."""
    from blip3o.errors import ConfigError
    from blip3o.pipeline import Blip3oPipeline

    pipeline = Blip3oPipeline.from_pretrained(model, compat=compat)
    try:
        return pipeline.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}); try cpu") from None


def _open(path: Path) -> Any:
    """A picture file. Raises: DataError."""
    from PIL import Image, UnidentifiedImageError

    from blip3o.errors import DataError

    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable picture ({error})") from None
