"""``blip3o chat``: a conversation in the terminal or through a pipe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blip3o.cli_options import SEED, device_option, load_pipeline, model_option

if TYPE_CHECKING:
    from PIL import Image

    from blip3o.chat import SavedDialogue

HELP = """\
  TEXT               ask or tell; the model answers in text (or draws, where it learned to choose)
  /draw CAPTION      draw a new picture
  /edit INSTRUCTION  change the attached picture, or the latest of the conversation
  /image FILE        attach a picture to the next message; again for several
  /help, /quit       this list, the end; a text that begins with / is written with //"""


@click.command()
@model_option
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=None,
              help="Where transcript.jsonl and pictures go; a conversation that is there goes on. "
                   "Default: a new folder runs/chat-DATE-TIME.")
@click.option("--image", "images", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Picture for the first message; may be given several times.")
@click.option("--seed", type=SEED, default=42, show_default=True, help="Seed of the first picture; the next adds 1.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Sampling steps; default the model's own.")
@click.option("--guidance-scale", type=click.FloatRange(min=0), default=None, help="Default the model's own.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Longest answer.")
@click.option("--json", "as_json", is_flag=True, help="Replies as JSON lines with role, text or image.")
@device_option
def chat(
    model: str, folder: Path | None, images: tuple[Path, ...], seed: int, steps: int | None,
    guidance_scale: float | None, max_new_tokens: int, as_json: bool, device: str,
) -> None:
    """Talk with a model in text and pictures.

    One message a line, from the keyboard or a pipe; replies go to stdout, pictures as the files they were written to.
    Exit code 1 if a message of a pipe got no reply.

    \b
    printf '%s\\n' '/draw a photo of a dog' 'Is there a dog?' | blip3o chat --folder talk
    """
    from blip3o.chat import SavedDialogue
    from blip3o.dialogue import Dialogue
    from blip3o.errors import Blip3oError

    is_terminal = sys.stdin.isatty()
    folder = folder or Path("runs") / time.strftime("chat-%Y%m%d-%H%M%S")
    try:
        with _lock(folder):
            pipeline = load_pipeline(model, None, device)
            saved = SavedDialogue(Dialogue(pipeline, seed=seed), folder, model)
            session = Session(saved, {"num_inference_steps": steps, "guidance_scale": guidance_scale},
                              max_new_tokens, as_json)
            session.pending = [saved.attach(path) for path in images]
            known = len(saved.dialogue.turns)
            click.echo(f"{saved.path}" + (f": goes on after {known} turns" if known else ""), err=True)
            if is_terminal:
                click.echo(HELP, err=True)
            failed = session.run(_lines(is_terminal), stop_on_interrupt=not is_terminal)
    except Blip3oError as error:
        raise click.ClickException(str(error)) from None
    if failed and not is_terminal:
        raise click.ClickException(f"{failed} messages got no reply; the others are in {saved.path}")


class Session:
    """Messages in, replies out."""

    def __init__(self, saved: SavedDialogue, drawing: dict[str, Any], max_new_tokens: int, as_json: bool) -> None:
        self.saved, self.drawing, self.max_new_tokens, self.as_json = saved, drawing, max_new_tokens, as_json
        self.pending: list[Image.Image] = []

    def run(self, lines: Iterator[str], stop_on_interrupt: bool) -> int:
        """How many messages got no reply."""
        from blip3o.errors import Blip3oError

        failed = 0
        for line in lines:
            if line in ("/quit", "/exit"):
                break
            try:
                self.take(line)
            except Blip3oError as error:
                failed += 1
                click.echo(f"Error: {error}", err=True)
            except KeyboardInterrupt:
                if stop_on_interrupt:
                    raise
                click.echo("stopped; the conversation is as it was before this message", err=True)
        return failed

    def take(self, line: str) -> None:
        """One message. Raises: Blip3oError; the conversation is then as before."""
        from blip3o.errors import DataError

        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if not line.strip():
            return
        if command == "/help":
            click.echo(HELP, err=True)
        elif command == "/image" and not rest:
            raise DataError("/image needs a file: /image FILE")
        elif command == "/image":
            self.pending.append(self.saved.attach(Path(rest).expanduser()))
        elif command in ("/draw", "/edit"):
            self._reply(command, rest)
        elif line.startswith("/") and not line.startswith("//"):
            raise DataError(f"unknown command {command}; known: /draw, /edit, /image, /help, /quit")
        else:
            self._reply("", line.removeprefix("/") if line.startswith("//") else line)

    def _reply(self, command: str, text: str) -> None:
        dialogue = self.saved.dialogue
        with self.saved.saving():
            if command == "/draw":
                dialogue.draw(text, **self.drawing)
            elif command == "/edit":
                dialogue.edit(text, self.pending, **self.drawing)
            else:
                dialogue.send(text, self.pending, max_new_tokens=self.max_new_tokens)
        if command != "/draw":
            self.pending = []
        turn = dialogue.turns[-1]
        shown = str(self.saved.picture_path(len(dialogue.turns) - 1)) if turn.images else turn.text
        if self.as_json:
            shown = json.dumps({"role": "assistant", "image" if turn.images else "text": shown}, ensure_ascii=False)
        click.echo(shown)


def _lines(is_terminal: bool) -> Iterator[str]:
    """Messages from the keyboard or the pipe, without their line ends."""
    from blip3o.errors import DataError

    if is_terminal:
        while True:
            try:
                yield input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                click.echo(err=True)
                return
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            yield raw.decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} of the input is not UTF-8 ({error.reason}); convert it") from None


def _lock(folder: Path) -> Any:
    """Held while a conversation is open. Raises: DataError if another process has it."""
    from filelock import FileLock, Timeout

    from blip3o.errors import DataError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise DataError(f"{folder} is in use by another chat; close it or give another --folder") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be used ({error.strerror or error}); give another --folder") from None
