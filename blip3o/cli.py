"""``blip3o``: every mode of the model from the command line. Commands import what they need when they run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from blip3o.cli_options import (
    SEED,
    check_output,
    device_option,
    disk_trouble,
    load_pipeline,
    model_option,
    save_pictures,
    wait_politely,
)

if TYPE_CHECKING:
    from blip3o.pipeline import Blip3oPipeline

# Commands that live elsewhere, loaded when named: name -> (module:attribute, help line).
_LAZY = {
    "ask": ("blip3o.ask_cli:ask", "Answer a question about a picture, several, or none."),
    "assemble": ("blip3o.assemble_cli:assemble", "A new model around a pretrained backbone."),
    "chat": ("blip3o.chat_cli:chat", "Talk with a model in text and pictures."),
    "convert": ("blip3o.convert_cli:convert", "Weights from one layout to another."),
    "train": ("blip3o.train.cli:train", "Train a recipe: nano, one that ships, or a YAML file."),
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

    def invoke(self, ctx: click.Context) -> Any:
        """A disk that takes no more ends a command in one line; what was saved before is whole."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if line := disk_trouble(error):
                raise click.ClickException(line) from None
            raise

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
    wait_politely()


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


def _picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the commands that draw."""
    for option in reversed((
        model_option,
        click.option("--num-images", type=click.IntRange(min=1), default=1, show_default=True,
                     help="Pictures to make, of each prompt."),
        click.option("--seed", type=SEED, default=42, show_default=True,
                     help="Seed of the first picture, of each prompt; the next adds 1."),
        click.option("--steps", type=click.IntRange(min=1), default=None,
                     help="Sampling steps; default the model's own."),
        click.option("--guidance-scale", type=click.FloatRange(min=0), default=None, help="Default the model's own."),
        click.option("--compat", type=click.Choice(["default", "released"]), default=None,
                     help="released repeats the choices of the released inference code."),
        device_option,
    )):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("prompt", nargs=-1)
@click.option("--prompts", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
              help="File with a prompt a line, - for standard input, instead of PROMPT.")
@click.option("--image", "images", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Input picture, PROMPT then is an instruction; may be given several times.")
@click.option("--output", "-o", type=click.Path(path_type=Path), default=None,
              help="PNG file of one PROMPT (several pictures get numbers before the ending), else a folder.  "
                   "[default: picture.png, or runs/generate-DATE-TIME]")
@click.option("--batch-size", type=click.IntRange(min=1), default=None,
              help="Pictures drawn at once.  [default: of one PROMPT all, else the model's own]")
@_picture_options
def generate(
    prompt: tuple[str, ...], prompts: Path | None, images: tuple[Path, ...], output: Path | None,
    batch_size: int | None, **options: Any,
) -> None:
    """Make pictures of PROMPT, or of several.

    Of several, or of those in a file, they go into a folder as 00000-00.png (prompt and picture, counted from 0),
    beside index.jsonl with prompt, seed and path of each. A picture is that of its prompt alone with its seed.
    """
    if bool(prompt) == (prompts is not None):
        raise click.UsageError("give PROMPT, or several, or --prompts FILE" + (", not both" if prompt else ""))
    if len(prompt) != 1:
        _draw_folder(prompt, prompts, images, output, batch_size, _Drawing(**options))
        return
    if output is not None and output.is_dir():
        raise click.BadParameter(f"{output} is a folder; one PROMPT needs a file", param_hint="--output")
    _draw(prompt[0], images, output or Path("picture.png"), batch_size, _Drawing(**options))


@main.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("instruction")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("picture.png"),
              show_default=True, help="PNG file; several pictures get numbers before the ending.")
@_picture_options
def edit(image: Path, instruction: str, output: Path, **options: Any) -> None:
    """Change the picture IMAGE by INSTRUCTION ("make the dog red")."""
    _draw(instruction, (image,), output, None, _Drawing(**options))


@dataclass(frozen=True)
class _Drawing:
    """Values of ``_picture_options``."""

    model: str
    num_images: int
    seed: int
    steps: int | None
    guidance_scale: float | None
    compat: str | None
    device: str

    def pipeline(self) -> Blip3oPipeline:
        return load_pipeline(self.model, self.compat, self.device)

    def settings(self) -> dict[str, Any]:
        return {"num_inference_steps": self.steps, "guidance_scale": self.guidance_scale}


def _draw(
    text: str, images: tuple[Path, ...], output: Path, batch_size: int | None, drawing: _Drawing
) -> None:
    """Pictures of a caption, or of an instruction about pictures, into files."""
    from blip3o.chat import open_picture
    from blip3o.errors import Blip3oError
    from blip3o.prompt_files import draw

    count = drawing.num_images
    seeds = [drawing.seed + i for i in range(count)]
    try:
        pictures = [open_picture(path) for path in images]
        check_output(output)
        made = list(
            draw(drawing.pipeline(), [text] * count, seeds, pictures, batch_size or count, **drawing.settings())
        )
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    save_pictures(made, output)


def _draw_folder(
    given: tuple[str, ...], file: Path | None, images: tuple[Path, ...], output: Path | None,
    batch_size: int | None, drawing: _Drawing,
) -> None:
    """Pictures of several prompts into a folder; their paths are printed as they are written."""
    from blip3o.chat import open_picture
    from blip3o.errors import Blip3oError
    from blip3o.inputs import checked_texts
    from blip3o.prompt_files import INDEX, check_folder, draw_folder, read_prompts, wishes_of

    folder = output or Path("runs") / time.strftime("generate-%Y%m%d-%H%M%S")
    try:
        check_folder(folder)
        prompts = checked_texts(given if file is None else read_prompts(file), "prompt")
        pictures = [open_picture(path) for path in images]
        pipeline = drawing.pipeline()
        wishes = wishes_of(prompts, drawing.num_images, drawing.seed)
        size = batch_size or pipeline.card.batch_size
        for path in draw_folder(pipeline, wishes, folder, pictures, size, **drawing.settings()):
            click.echo(path)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{folder / INDEX} has prompt, seed and path of each", err=True)


@main.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_option
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("picture.png"),
              show_default=True, help="PNG file.")
@click.option("--through", type=click.Choice(["target_encoder", "backbone"]), default="target_encoder",
              show_default=True, help="Whose view of the picture is drawn again.")
@click.option("--seed", type=SEED, default=42, show_default=True, help="Seed of the decoder's noise.")
@device_option
def reconstruct(
    image: Path, model: str, output: Path, through: Literal["target_encoder", "backbone"], seed: int, device: str
) -> None:
    """Draw the picture IMAGE again: what the model's features keep of it."""
    import torch

    from blip3o.chat import open_picture
    from blip3o.errors import Blip3oError

    try:
        picture = open_picture(image)
        check_output(output)
        pipeline = load_pipeline(model, None, device)
        generators = [torch.Generator("cpu").manual_seed(seed)]
        result = pipeline.reconstruct(picture, through=through, generator=generators)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    save_pictures(result.images, output)


if __name__ == "__main__":  # torchrun -m blip3o.cli train ...
    main()
