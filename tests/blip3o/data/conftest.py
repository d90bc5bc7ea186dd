from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image


def _picture(number: int) -> bytes:
    """A PNG of 8x8 px whose pixels tell its number."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _write_tar(path, members) -> str:
    """``members``: (name, bytes) in order; a TarInfo instead of a name is written as it is."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture
def picture():
    return _picture


@pytest.fixture
def write_tar():
    return _write_tar


@pytest.fixture
def shards(tmp_path):
    """A function that writes ``count`` archives of ``each`` records and returns their pattern."""

    def write(count: int, each: int) -> str:
        for shard in range(count):
            members = []
            for i in range(each):
                number = shard * each + i
                members += [
                    (f"{number:05d}.png", _picture(number)),
                    (f"{number:05d}.txt", f"number {number}".encode()),
                ]
            _write_tar(tmp_path / f"{shard:05d}.tar", members)
        return str(tmp_path / f"{{00000..{count - 1:05d}}}.tar")

    return write
