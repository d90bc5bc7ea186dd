"""Arguments of `openai:MODEL` (``--set model.args.NAME=VALUE``), checked before anything is asked.

``base_url``: address, default ``OPENAI_BASE_URL``, else OpenAI's. ``key_variable``: environment variable that holds the
key, "none" for a server without one. ``body``: further fields of every request, such as ``{quality: low}``.
``seed_field``: name under which the server takes a seed. ``price``: of one picture, for the estimate. ``max_cost``:
the most that may be spent. ``workers``: requests at a time. ``requests_per_minute``, ``timeout_s``, ``max_retries``,
``max_wait_s``: see ``evals.http.endpoint.Limits``. ``cache``: folder of pictures that were paid for, or "none".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.api import ModelOptions
from evals.errors import UsageError, shown, suggest
from evals.http.endpoint import Limits
from evals.io.redact import redact_json
from evals.models.openai_memory import default_folder

# name -> (least, most, whether whole)
_NUMBERS = {
    "price": (0.0, 1000.0, False),
    "max_cost": (0.0, 1e9, False),
    "workers": (1, 64, True),
    "requests_per_minute": (0.0, 1e6, False),
    "timeout_s": (0.05, 3600.0, False),
    "max_retries": (0, 100, True),
    "max_wait_s": (0.0, 86400.0, False),
}
_TEXTS = ("base_url", "key_variable", "seed_field", "cache")
_KNOWN = (*_NUMBERS, *_TEXTS, "body")
_OURS = {
    "model": "it stands in --model openai:MODEL",
    "prompt": "the task brings it",
    "n": "every request is for one picture",
    "size": "give --width and --height",
}
_SECRETS = re.compile(r"key|token|secret|password|authorization", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]\w{0,99}")


@dataclass(frozen=True)
class Settings:
    """Resolved arguments. ``size``: width and height in pixels, None for the endpoint's own."""

    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    size: tuple[int, int] | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    seed_field: str | None = None
    price: float | None = None
    max_cost: float | None = None
    workers: int = 4
    cache: Path | None = None
    limits: Limits = Limits()


def read_settings(options: ModelOptions) -> Settings:
    """Raises UsageError for what an endpoint does not take."""
    extra = options.extra
    for key in extra:
        if key not in _KNOWN:
            if key != "key_variable" and _SECRETS.search(key):
                raise UsageError(
                    f"model.args.{key}: keys come from the environment only; model.args.key_variable=NAME says from "
                    "which variable"
                )
            raise UsageError(f"unknown key 'model.args.{key}'.{suggest(key, _KNOWN)}")
    numbers = {name: _number(name, extra[name]) for name in _NUMBERS if extra.get(name) is not None}
    texts = {name: _text(name, extra[name]) for name in _TEXTS if extra.get(name) is not None}
    for name in ("key_variable", "seed_field"):
        if name in texts and not _NAME.fullmatch(texts[name]):
            # Not shown: it may be the key itself.
            raise UsageError(f"model.args.{name} is no name: give letters, digits and _ only")
    if "max_cost" in numbers and "price" not in numbers:
        raise UsageError("model.args.max_cost needs model.args.price, the price of one picture")
    _refuse_options(options)
    limits = {n: numbers[n] for n in ("timeout_s", "max_retries", "max_wait_s", "requests_per_minute") if n in numbers}
    return Settings(
        base_url=texts.get("base_url"),
        key_variable=texts.get("key_variable", Settings.key_variable),
        size=_size(options),
        body=_body(extra.get("body") or {}, texts.get("seed_field")),
        seed_field=texts.get("seed_field"),
        price=numbers.get("price"),
        max_cost=numbers.get("max_cost"),
        workers=int(numbers.get("workers", Settings.workers)),
        cache=_cache(texts.get("cache")),
        limits=Limits(**limits),
    )


def _number(name: str, value: Any) -> Any:
    least, most, is_whole = _NUMBERS[name]
    is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        kind = "a whole number" if is_whole else "a number"
        raise UsageError(f"model.args.{name} = {shown(value)}: give {kind} from {least:g} to {most:g}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"model.args.{name} = {shown(redact_json(value))}: give a text")
    return value


def _refuse_options(options: ModelOptions) -> None:
    given = {
        "--steps": options.steps,
        "--guidance-scale": options.guidance_scale,
        "--revision": options.revision,
        "--dtype": None if options.dtype == "auto" else options.dtype,
    }
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"{option} {value}: the protocol of the endpoint has no such setting; what your server takes beside it "
                "goes into model.args.body"
            )


def _size(options: ModelOptions) -> tuple[int, int] | None:
    width, height = options.width, options.height
    if width is None and height is None:
        return None
    if width is None or height is None:
        raise UsageError("the endpoint takes a size as a whole: give --width and --height, or neither")
    return width, height


def _body(body: Any, seed_field: str | None) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise UsageError(f"model.args.body = {shown(redact_json(body))}: give a map of names to values")
    for name in body:
        if name in _OURS:
            raise UsageError(f"model.args.body.{name} is not allowed: {_OURS[name]}")
        if name == seed_field:
            raise UsageError(f"model.args.body.{name} is also model.args.seed_field: give one of them")
    if redact_json(body) != dict(body):
        raise UsageError("model.args.body holds what looks like a secret: keys come from the environment only")
    return dict(body)


def _cache(text: str | None) -> Path | None:
    if text == "none":
        return None
    return Path(text).expanduser() if text else default_folder()
