"""From the answer of an images endpoint to one picture, or to the reason why there is none."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.http.endpoint import Endpoint, RequestError
from evals.pictures.files import parse_picture

_REFUSALS = ("content_policy", "moderation", "content_filter", "safety")


class ReplyError(Exception):
    """The endpoint answered, and what it sent is not the one picture that was asked for."""


class ContentRefusedError(Exception):
    """The endpoint's content policy refused the prompt."""


@dataclass(frozen=True)
class Answer:
    """The bytes of one picture, and the prompt as the endpoint rewrote it, if it says so."""

    data: bytes
    revised_prompt: str | None = None


def refusal(error: RequestError) -> Exception:
    """The same error, by its own name when the content policy is the reason."""
    text = f"{error.code} {error}".lower()
    if any(word in text for word in _REFUSALS):
        return ContentRefusedError(f"the endpoint's content policy refused the prompt ({error})")
    return error


def read_answer(reply: Mapping[str, Any], endpoint: Endpoint) -> Answer:
    """The picture of an answer; one that is given as an address is fetched, without the key.

    Raises: ReplyError, RequestError.
    """
    entries = reply.get("data")
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise ReplyError("the answer has no list `data` of pictures")
    if len(entries) != 1:
        raise ReplyError(f"{len(entries)} pictures came where one was asked for")
    (entry,) = entries
    revised = entry.get("revised_prompt")
    revised = revised if isinstance(revised, str) and revised.strip() else None
    if isinstance(entry.get("b64_json"), str):
        return Answer(_decoded(entry["b64_json"]), revised)
    if isinstance(entry.get("url"), str):
        if entry["url"].startswith("data:"):
            return Answer(_decoded(entry["url"]), revised)
        return Answer(endpoint.get_bytes(entry["url"]), revised)
    raise ReplyError("the picture has neither b64_json nor url")


def read_picture_bytes(data: bytes, size: tuple[int, int] | None) -> Any:
    """The picture in RGB. Raises PictureError for what is no plain picture, ReplyError for another size."""
    picture = parse_picture(data, "the picture of the endpoint")
    if size is not None:
        found = picture.convert("RGB").size
        if found != size:
            raise ReplyError(
                f"a picture of {found[0]} x {found[1]} pixels came, {size[0]} x {size[1]} was asked for"
            )
    return picture


def _decoded(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ReplyError("the picture is no base64") from None
