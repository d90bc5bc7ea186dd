"""Pictures made small for a page: how small and how well, and the work itself, in several processes when it is much.

A page has a budget of bytes for pictures. Opening a large PNG costs far more than shrinking it (about 40 ms at 1024
px), and Pillow holds the interpreter's lock meanwhile, so large pictures are divided among processes. Those are plain
children that are fed paths and answer with thumbnails: nothing is forked, and a user's script is not imported again.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

BUDGET_BYTES = 8_000_000  # of all pictures in a page, after base64
CRISP_BELOW_PX = 128  # pictures smaller than this are enlarged without smoothing
PROBES = 12
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
MIN_PER_PROCESS = 100  # large pictures; fewer are not worth another process
MAX_PROCESSES = 8
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from reports.thumbnails import serve; serve()"


@dataclass(frozen=True)
class Thumbnail:
    """Size of the picture in px before it was made small, and the small one as base64 of WebP."""

    width: int
    height: int
    encoded: str


@dataclass(frozen=True)
class Setting:
    """How thumbnails are made: longest side (None: as it is) and WebP quality (None: lossless)."""

    side_px: int | None
    quality: int | None

    def encode(self, image: Image) -> bytes:
        if self.side_px and max(image.size) > self.side_px:
            image = image.copy()
            image.thumbnail((self.side_px, self.side_px), reducing_gap=2.0)
        file = io.BytesIO()
        if self.quality is None:
            image.save(file, "WEBP", lossless=True, method=2)
        else:
            image.save(file, "WEBP", quality=self.quality, method=2)
        return file.getvalue()

    def __str__(self) -> str:
        size = "full size" if self.side_px is None else f"at most {self.side_px} px"
        return f"{size}, {'lossless' if self.quality is None else f'WebP quality {self.quality}'}"


_SMALL = (
    Setting(None, None),
    Setting(None, 95),
    Setting(None, 85),
    Setting(None, 60),
    Setting(64, 60),
)
_LARGE = (Setting(320, 82), Setting(224, 78), Setting(160, 72), Setting(112, 65), Setting(72, 55))


def open_picture(path: Path) -> Image | None:
    """The picture in RGB, or None if it is missing, damaged or implausibly large."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # By content, whatever the name says; only what runs hold, as Pillow starts Ghostscript for EPS.
            with Image.open(path, formats=FORMATS) as image:
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None


def choose_setting(paths: Sequence[Path], n_pictures: int, budget: int = BUDGET_BYTES) -> Setting:
    """The best setting with which `n_pictures` like those at `paths` fit into `budget` bytes of base64."""
    step = max(1, len(paths) // PROBES)
    probes = [image for path in paths[::step][:PROBES] if (image := open_picture(path))]
    if not probes:
        return _SMALL[0]
    settings = _SMALL if max(max(image.size) for image in probes) <= CRISP_BELOW_PX else _LARGE
    for setting in settings:
        mean = sum(len(setting.encode(image)) for image in probes) / len(probes)
        if mean * n_pictures * 4 / 3 <= budget:
            return setting
    return settings[-1]


def thumbnails(paths: Sequence[Path], setting: Setting) -> list[Thumbnail | None]:
    """A thumbnail for each path, in order; None for what cannot be read. The same however many processes work."""
    is_large = setting.side_px is not None and setting.side_px > CRISP_BELOW_PX // 2
    n = min(MAX_PROCESSES, _cores(), len(paths) // MIN_PER_PROCESS) if is_large else 1
    if n < 2:
        return list(_made(paths, setting))
    found: list[Thumbnail | None] = [None] * len(paths)
    shares = [paths[i::n] for i in range(n)]
    with ThreadPoolExecutor(n) as pool:  # the threads only wait
        for i, made in enumerate(pool.map(lambda share: _by_child(share, setting), shares)):
            # A child that was killed (memory) leaves its share to this process: slower, and the same in the end.
            found[i::n] = list(_made(shares[i], setting)) if made is None else made
    return found


def serve() -> None:
    """What a child does: a job as JSON from standard input, a line of JSON for each picture to standard output."""
    job = json.load(sys.stdin)
    for made in _made(map(Path, job["paths"]), Setting(**job["setting"])):
        sys.stdout.write(json.dumps(None if made is None else asdict(made)) + "\n")


def _by_child(paths: Sequence[Path], setting: Setting) -> list[Thumbnail | None] | None:
    """The thumbnails as another process makes them; None if it did not come to its end."""
    job = {"setting": asdict(setting), "paths": [os.fspath(path) for path in paths]}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
        input=json.dumps(job).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    rows = done.stdout.splitlines()
    if done.returncode or len(rows) != len(paths):
        return None
    return [None if row is None else Thumbnail(**row) for row in map(json.loads, rows)]


def _made(paths: Iterable[Path], setting: Setting) -> Iterator[Thumbnail | None]:
    for path in paths:
        image = open_picture(path)
        if image is None:
            yield None
        else:
            encoded = base64.b64encode(setting.encode(image)).decode()
            yield Thumbnail(image.width, image.height, encoded)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
