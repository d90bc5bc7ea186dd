"""Writing files so that a reader sees the old or the new content, and errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.errors import StoreError
from evals.io.checksums import JSON_KEY, is_sound, seal

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}


class NotWritableError(StoreError):
    """The folder or file system allows no writing."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno == errno.ENOENT and not path.parent.exists():
            raise StoreError(f"{where} cannot be written: there is no folder {path.parent}") from error
        if error.errno in _NO_SPACE:
            raise StoreError(
                f"no space left on the device of {where}: free some and run the same command again; "
                "everything written so far is kept"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise NotWritableError(
                f"{where} cannot be written ({error.strerror}): give another folder with --output"
            ) from error
        raise StoreError(f"{where}: {error.strerror or error}") from error


def temporary_of(path: Path) -> Path:
    """Where the content of ``path`` lies until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, data: bytes, is_durable: bool = True) -> None:
    """Replace ``path`` by ``data`` in one step; readers see the old or the new, never a part.

    ``is_durable`` forces the data to the disk first, against power loss.
    """
    temporary = temporary_of(path)
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            error.filename = str(path)  # the temporary name says nothing to who asked for this one
            raise


def write_json(path: Path, value: Mapping[str, Any], is_durable: bool = True) -> None:
    """Write a JSON object with its checksum, atomically."""
    write_atomically(path, sealed_json(value), is_durable)


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """The bytes that ``write_json`` writes."""
    sealed = seal(value)
    try:
        text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # a lone surrogate in a name or an error; escaped it reads back the same
        text = json.dumps(sealed, indent=2, allow_nan=False).encode()
    return text + b"\n"


def json_problem(path: Path) -> str | None:
    """Why a file of ``write_json`` cannot be used: missing, or damaged; None if it is sound."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        return f"damaged: {error}"
    if not isinstance(value, dict):
        return "damaged: it holds no JSON object"
    if JSON_KEY not in value:
        return "without a checksum: an earlier version wrote it, or it was edited"
    if not is_sound(value):
        return "damaged: its checksum differs"
    return None
