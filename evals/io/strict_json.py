"""JSON as RFC 8259 means it: no key twice in an object, no NaN unless asked, no reader that can be made to crash.

`json.loads` takes NaN and Infinity, keeps the last of two equal keys without a word, and raises five
kinds of exceptions for what is not JSON. A file that can be read in two ways can lead to two numbers,
so here it is refused, with one line that says why.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotJsonError(ValueError):
    """The text is not JSON; the message is the reason, without a place."""


def parse(data: bytes, *, allow_constants: bool = False) -> Any:
    """The value of UTF-8 text; a byte order mark in front is passed over.

    Args: allow_constants: take NaN and Infinity, which Python's own writer writes, as floats.
    Raises: NotJsonError, one line. Numbers beyond the range of floats become infinite, as everywhere
    in Python: who needs a finite number has to ask for one.
    """
    constant = float if allow_constants else _refuse_constant
    try:
        text = data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
        return json.loads(text, parse_constant=constant, object_pairs_hook=_without_twins)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} " if error.lineno > 1 else ""
        problem = f"{error.msg} at {place}column {error.colno}"
    except RecursionError:
        problem = "nested too deeply"
    except NotJsonError as error:
        problem = str(error)
    except ValueError:  # the interpreter's guard against conversions in quadratic time
        problem = "a whole number of thousands of digits"
    raise NotJsonError(problem)


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not allowed")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                shown = json.dumps(key if len(key) <= 60 else f"{key[:60]}...")
                raise NotJsonError(f"key {shown} stands twice in one object")
            seen.add(key)
    return found
