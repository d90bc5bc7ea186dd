"""An instruction of the user's for a judge that follows them (`judge.args.instruction=FILE`), in place of the task's.

`{prompt}` in it stands for what the model was asked to draw, `{explanation}` for what the task says has to be seen.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from evals.errors import InputError, UsageError, shown

PLACES = ("{prompt}", "{explanation}")
_PLACE = re.compile("|".join(map(re.escape, PLACES)))
MAX_BYTES = 256 * 1024


def read_instruction(path: Any) -> str | None:
    """The text of the file; None for None. Raises UsageError or InputError for what is no instruction."""
    if path is None:
        return None
    if not isinstance(path, str) or not path:
        raise UsageError(f"judge.args.instruction = {shown(path)}: give the path of a text file")
    try:
        with open(Path(path).expanduser(), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a zero byte in the path
        problem = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as UTF-8 text ({problem})") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES:,} bytes, which no instruction is")
    missing = [place for place in PLACES if place not in text]
    if missing:
        raise InputError(
            f"{path}: has no {' and no '.join(missing)}; an instruction holds {' and '.join(PLACES)} where prompt and "
            "explanation belong"
        )
    return text


def instruction_settings(instruction: str | None) -> dict[str, str]:
    """What an instruction adds to the settings of a judge's identity: resume under another one is refused."""
    return {} if instruction is None else {"instruction_sha256": hashlib.sha256(instruction.encode()).hexdigest()}


def filled(instruction: str, prompt: str, explanation: str) -> str:
    """The instruction about one picture; what prompt and explanation hold is left as it is."""
    values = dict(zip(PLACES, (prompt, explanation), strict=True))
    return _PLACE.sub(lambda place: values[place[0]], instruction)
