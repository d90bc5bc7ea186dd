"""Takes secrets out of text and JSON before they are stored, logged or sent on: the one place for it.

A secret is recognised by where it stands or how it looks, never by guessing at ordinary words:

* user and password of an address: ``https://me:pw@host/x`` -> ``https://host/x``;
* the value of a query parameter, a ``name=value`` or a header whose name says so
  (``api_key=...``, ``?token=...``, ``Authorization: Bearer ...``);
* the value under such a key in nested JSON (``model.args.api_key``);
* well known forms of tokens (``sk-...``, ``hf_...``, ``ghp_...``, ``AKIA...``, JSON web tokens);
* the values of environment variables with such a name (``OPENAI_API_KEY``), wherever they appear.

Applying it twice changes nothing. Standard library only: ``evals.api`` uses it for every ``Identity``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

MARK = "[redacted]"
MIN_SECRET_CHARACTERS = 8  # shorter values of the environment are words, ports and switches
_MAX_PASSES = 20
_MIN_WORD_CHARACTERS = 16  # and so are lower-case letters alone up to this length

_WORDS = (
    r"api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|auth[_-]?key|signing[_-]?key|"
    r"secret|token|password|passwd|pwd|passphrase|credentials?|authorization|bearer|signature"
)
# "max_new_tokens", "tokenizer" and "pad_token_id" are no secrets: the word has to end the name.
_SECRET_NAME = re.compile(rf"(?:^|[^a-z])(?:{_WORDS})$", re.IGNORECASE)
_HARMLESS_NAME = re.compile(
    r"(?:^|_)(?:bos|eos|pad|unk|sep|cls|mask|image|num|max|min|query|begin|end|stop)_tokens?$",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:$|_)",
    re.IGNORECASE,
)
# The second form is no valid address, yet SQLAlchemy takes a password with a slash; a port is none.
_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"(?:[^\s/?#'\"<>]*@|[^\s/?#'\"<>@:]{0,100}:(?!\d{1,5}[/?#])[^\s'\"<>]{0,200}@)"
)
_PAIR = re.compile(
    rf"(?P<name>(?<![A-Za-z])[\w.-]{{0,40}}?(?:{_WORDS}))(?P<between>[\"']?\s*[=:]\s*[\"']?)"
    r"(?P<scheme>(?:Bearer|Basic|Token)\s+)?"
    r"(?P<value>\[redacted\]|(?<=\")[^\"\n]+|(?<=')[^'\n]+|[^\s&,;\"'<>)}\]]+)",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"(?P<name>--[\w-]{{0,40}}?(?:{_WORDS}))(?P<between>[ \t]+)(?P<scheme>)(?P<value>[^\s-]\S*)",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BEARER = re.compile(r"\b(?P<scheme>Bearer|Basic)\s+[A-Za-z0-9+/_.=~-]{8,}")
_TOKEN_FORMS = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|"
    r"github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|"
    r"AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[\w-]+)"
)


def redact(text: str) -> str:
    """The text without secrets; what was taken out is marked, except user and password of addresses."""
    for value in _secrets_of_environment():
        if value in text:
            text = text.replace(value, MARK)
    for _ in range(_MAX_PASSES):  # what is left of one secret can look like the name of the next
        before, text = text, _pass(text)
        if text == before:
            break
    return text


def _pass(text: str) -> str:
    if "://" in text:
        text = _USERINFO.sub(r"\g<scheme>", text)
    text = _PAIR.sub(_hide_value, text)
    text = _OPTION.sub(_hide_value, text)
    text = _BEARER.sub(rf"\g<scheme> {MARK}", text)
    return _TOKEN_FORMS.sub(MARK, text)


def redact_json(value: Any) -> Any:
    """The same for nested JSON values; what stands under a key that names a secret goes as a whole."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(k) if isinstance(k, str) else k: (
                MARK if _is_secret_name(k) and v not in (None, "", False) else redact_json(v)
            )
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact_json(v) for v in value]
    return value


class RedactingFormatter(logging.Formatter):
    """Formats log records, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _is_secret_name(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    name = _CAMEL.sub("_", name)  # accessToken
    return _SECRET_NAME.search(name) is not None and _HARMLESS_NAME.search(name) is None


def _hide_value(match: re.Match[str]) -> str:
    if not _is_secret_name(match["name"]) or match["value"] == MARK:
        return match[0]
    return f"{match['name']}{match['between']}{match['scheme'] or ''}{MARK}"


def _secrets_of_environment() -> list[str]:
    """Values of variables that hold secrets, longest first, so that no part of one is left over."""
    found = {v for k, v in os.environ.items() if _SECRET_VARIABLE.search(k) and _is_telling(v)}
    return sorted(found, key=lambda v: (-len(v), v))


def _is_telling(value: str) -> bool:
    if len(value) < MIN_SECRET_CHARACTERS or value.startswith(("/", "~")):
        return False
    return len(value) >= _MIN_WORD_CHARACTERS or not (value.isalpha() and value.islower())
