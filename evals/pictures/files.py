"""Reading one picture that others made, so that what is scored is exactly what the file shows.

Scored are 8-bit pictures of one frame without transparency, whatever they are stored as (RGB, grey, palette).
Everything else would need a decision that changes pixels (a background, a depth), so it is refused by name.
"""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.phases.readymade import EncodedPicture

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MAX_PIXELS = 8192 * 8192  # what --height and --width allow a model to draw
MAX_BYTES = 512 * 2**20
_EXACT_MODES = ("RGB", "L", "1", "P")  # become RGB without loss where nothing is transparent
_ALPHA_MODES = ("RGBA", "LA", "PA")


class PictureError(Exception):
    """A picture file that cannot be scored; the message begins with its name."""


def read_picture(path: Path, name: str) -> Image.Image | EncodedPicture:
    """The picture in RGB, turned as its EXIF orientation says; with its bytes if it is a plain RGB PNG.

    Args: name: what error messages call it.
    Raises: PictureError for a file that is missing, cut short, too large, of another kind, or not plainly RGB.
    """
    return parse_picture(_bytes(path, name), name)


def parse_picture(data: bytes, name: str) -> Image.Image | EncodedPicture:
    """The same for the bytes of a file. Raises PictureError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with _open(data) as image:
            _check_kind(image, name)
            image.load()
            turned = ImageOps.exif_transpose(image)
            if image.mode == "RGB" and image.format == "PNG" and not _is_turned(image):
                return EncodedPicture(data)
            return turned.convert("RGB")
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{name}: is no picture of kind {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name}: has more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise PictureError(f"{name}: does not fit into memory") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError and others
        reason = " ".join(str(error).split())[:120]
        raise PictureError(f"{name}: damaged or cut short ({reason})") from None


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """Width and height from the header alone. Raises PictureError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(f"{name}: is no ordinary file")
        with _open(path) as image:
            return image.size
    except PictureError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise PictureError(f"{name}: cannot be read ({reason})") from None


def _open(source: Any) -> Image.Image:
    """Only the formats above: others start other programs. Sizes are checked here, without a warning."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return Image.open(file, formats=sorted(set(FORMATS.values())))


def _bytes(path: Path, name: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise PictureError(f"{name}: is no ordinary file")
        if status.st_size > MAX_BYTES:
            raise PictureError(
                f"{name}: has {status.st_size:,} bytes, at most {MAX_BYTES:,} are read"
            )
        if status.st_size == 0:
            raise PictureError(f"{name}: is empty")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"{name}: cannot be read ({error.strerror or error})") from None


def _check_kind(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name}: {width} x {height} pixels, at most {MAX_PIXELS:,} pixels are read"
        )
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise PictureError(f"{name}: holds {frames} frames, a picture has one")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] < 255:  # type: ignore[operator]  # one channel, one pair
            raise PictureError(
                f"{name}: has transparent pixels; put it on the background that is meant, as RGB"
            )
    elif image.mode not in _EXACT_MODES:
        raise PictureError(
            f"{name}: has mode {image.mode}; scored are 8-bit pictures: save it as RGB"
        )


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF data turn or mirror the picture."""
    return image.getexif().get(0x0112, 1) != 1
