"""Checksums inside the files of a run folder: a flipped bit is found, not averaged in.

Every line of ``outputs.jsonl`` and ``scores.jsonl`` ends in the CRC-32 of what stands before it, as
``"crc32": "1a2b3c4d"``: it finds every error burst of up to 32 bits and costs a resume almost nothing.
``manifest.json`` and ``results.json`` hold the sha256 of the rest of their content as
``content_sha256``. What carries no checksum, such as a line written by hand, is taken as it is by
readers (``results.load``); a run that is resumed makes such lines again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

JSON_KEY = "content_sha256"
LINE_KEY = "crc32"
_MARK = b', "crc32": "'
_TAIL = len(_MARK) + 8 + len(b'"}\n')


def seal_line(text: str) -> bytes:
    """A JSON object as one line of a file, its checksum as last key.

    Args: text: the object without checksum, not empty, such as ``{"p": 1}``.
    """
    body = text[:-1].encode()
    return b'%s%s%08x"}\n' % (body, _MARK, crc32(body))


def line_problem(line: bytes) -> str | None:
    """None for a line whose checksum fits; else ``"torn"``, ``"no checksum"`` or ``"checksum differs"``."""
    if line[-1:] != b"\n":
        return "torn"
    if line[-_TAIL:-11] != _MARK or line[-3:] != b'"}\n':
        return "no checksum"
    if b"%08x" % crc32(line[:-_TAIL]) != line[-11:-3]:
        return "checksum differs"
    return None


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys with ``content_sha256`` as the last."""
    body = {k: v for k, v in value.items() if k != JSON_KEY}
    return {**body, JSON_KEY: _digest(body)}


def is_sound(value: Mapping[str, Any]) -> bool:
    """Whether the content is what it was when it was sealed."""
    return value.get(JSON_KEY) == _digest({k: v for k, v in value.items() if k != JSON_KEY})


def _digest(body: Mapping[str, Any]) -> str:
    # Through JSON once, so that a tuple and the list it becomes in the file count as the same.
    plain = json.loads(json.dumps(body, allow_nan=False))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
