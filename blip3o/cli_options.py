"""What the commands share: options, loading of models and pictures, threads."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from blip3o.pipeline import Blip3oPipeline

model_option = click.option(
    "--model", default="nano", show_default=True, help="Preset, folder or hub id of the weights."
)
# What torch's generators take, so that no seed is another's.
SEED = click.IntRange(0, 2**63 - 1)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:N or mps."
)


def disk_trouble(error: BaseException) -> str | None:
    """One line about a file that the system would not let us write or read; None for any other error."""
    if type(error).__name__ == "SafetensorError" and "os error" in str(error):
        return f"weights cannot be written ({' '.join(str(error).split())}); free space, or name another place"
    known = (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
        errno.EEXIST, errno.ENAMETOOLONG,
    )  # fmt: skip
    if isinstance(error, OSError) and error.errno in known:
        return f"{error.filename or 'a file'} cannot be used ({error.strerror}); free space, or name another place"
    return None


def wait_politely() -> None:
    """Let idle OpenMP threads sleep instead of spin; call before torch is imported.

    Spinning threads take the cores from those that still compute, which on a busy machine of two cores made drawing
    several times slower. The user's own OMP_WAIT_POLICY wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_pipeline(model: str, compat: Any, device: str) -> Blip3oPipeline:
    """The pipeline on a device. Raises: Blip3oError."""
    from blip3o.pipeline import Blip3oPipeline

    found = find_device(device)
    return Blip3oPipeline.from_pretrained(model, compat=compat).to(found)


def find_device(name: str) -> torch.device:
    """A device that works; ``auto`` is this machine's accelerator, or its CPU. Raises: ConfigError."""
    import torch

    from blip3o.errors import ConfigError

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); try cpu") from None


def check_output(output: Path) -> None:
    """Before anything is drawn. Raises: click.ClickException for a place or format that pictures cannot go to."""
    from PIL import Image

    if not output.parent.is_dir():
        raise click.ClickException(f"folder {output.parent} does not exist; make it or give another --output")
    known = Image.registered_extensions()
    if output.suffix and known.get(output.suffix.lower()) not in Image.SAVE:
        raise click.ClickException(f"{output}: pictures cannot be written as {output.suffix}; use .png, .jpg or .webp")


def numbered(output: Path, number: int, count: int) -> Path:
    """``output``, with the number before its ending where there are several."""
    return output if count == 1 else output.with_name(f"{output.stem}-{number}{output.suffix or '.png'}")


def save_pictures(images: list[Any], output: Path) -> None:
    """Write pictures and print their paths; without an ending as PNG. Raises: click.ClickException."""
    if not output.suffix:
        output = output.with_suffix(".png")
    for i, picture in enumerate(images):
        path = numbered(output, i, len(images))
        try:
            picture.save(path)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path} cannot be written ({error})") from None
        click.echo(path)
