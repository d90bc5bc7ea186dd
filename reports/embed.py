"""Putting things into a page so that they stay what they are."""

from __future__ import annotations

import base64
import json
from typing import Any


def data_uri(content: str | bytes, media_type: str) -> str:
    """The content as a `data:` address."""
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return f"data:{media_type};base64,{base64.b64encode(raw).decode()}"


def script_json(value: Any) -> Any:
    """JSON for a script element: without any character that could end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markup(text)


def markup(text: str) -> Any:
    """Text of our own making that is already HTML: autoescaping leaves it alone."""
    from markupsafe import Markup

    return Markup(text)


def coded(text: str) -> str:
    """Text of others with what stands between backticks as code; all of it escaped."""
    from markupsafe import escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # one that is not closed is itself
        parts[-2:] = ["`".join(parts[-2:])]
    found = [f"<code>{escape(part)}</code>" if i % 2 else str(escape(part)) for i, part in enumerate(parts)]
    return markup("".join(found))
