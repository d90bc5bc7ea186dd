"""Tables of a document written from a sweep's results file, between markers, so that no figure is typed by hand.

    <!-- sweep study/results.json effects axis=target -->
    ...what stands here is replaced...
    <!-- /sweep -->

The path is relative to the document; `reports.sweep_blocks` lists the blocks and their settings. `filled` is pure but
for reading those files, so a test can say that a document is up to date. Both files are written by

    blip3o-eval sweep report FOLDER --results docs/study/results.json --markdown docs/study.md
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.io.files import write_atomically
from evals.io.strict_json import parse
from reports.sweep_blocks import BLOCKS
from reports.sweep_export import SCHEMA

_BLOCK = re.compile(
    r"^(?P<open><!-- sweep (?P<file>\S+) (?P<block>\w+)(?P<settings>[^\n]*?) -->)\n"
    r"(?P<body>.*?)^(?P<close><!-- /sweep -->)$",
    re.DOTALL | re.MULTILINE,
)

_MISSING = (
    "> **No results yet: `{file}` is not there.** Nothing on this page came out of a finished sweep. The\n"
    "> text says how results are going to be read; tables and verdicts are going to be written from that file."
)


def filled(page: str, folder: Path) -> str:
    """The document with every block written anew; a results file that is not there is said in its blocks.

    Args: folder: of the document. Raises: InputError for an unknown block or setting, an open marker, a damaged file.
    """
    opened, closed = len(re.findall(r"^<!-- sweep ", page, re.M)), len(re.findall(r"^<!-- /sweep -->$", page, re.M))
    if opened != closed or opened != len(_BLOCK.findall(page)):
        raise InputError(
            f"{opened} blocks begin with <!-- sweep FILE BLOCK --> and {closed} end with <!-- /sweep -->, each on a "
            "line of its own; every one needs both"
        )

    def write(match: re.Match[str]) -> str:
        name = match["block"]
        if name not in BLOCKS:
            raise InputError(f"unknown block {name!r} for {match['file']}; known: {', '.join(BLOCKS)}")
        settings = _settings(match["settings"], match["open"])
        results = _read(folder / match["file"])
        if results is None:
            missing = _MISSING if name == "status" else "*No results yet: `{file}` is not there.*"
            body = missing.format(file=match["file"])
        else:
            try:
                body = BLOCKS[name](results, **settings)
            except (TypeError, KeyError) as error:
                raise InputError(f"{match['open']}: {' '.join(str(error).split())}") from None
        return f"{match['open']}\n\n{body}\n\n{match['close']}"

    return _BLOCK.sub(write, page)


def fill(path: str | Path) -> bool:
    """Write a document's blocks anew in place; whether anything changed. Raises: InputError; StoreError."""
    path = Path(path)
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error.__class__.__name__})") from None
    if "<!-- sweep " not in before:
        raise InputError(f"{path}: has no block <!-- sweep FILE BLOCK --> ... <!-- /sweep --> to write into")
    after = filled(before, path.parent)
    if after != before:
        write_atomically(path, after.encode())
    return after != before


def write_results(results: Mapping[str, Any], path: str | Path) -> None:
    """The results of `reports.sweep_export.export`, one record a line, so that changes can be read in a diff."""
    lines = []
    for key, value in results.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join("  " + _dumps(row) for row in value)
            lines.append(f" {_dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f" {_dumps(key)}: {_dumps(value)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a results file of `sweep report --results` with schema {SCHEMA}")
    return found


def _settings(text: str, marker: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in shlex.split(text)]
    if any(not equals for _, equals, _ in pairs):
        raise InputError(f"{marker}: settings are written as key=value")
    return {key: value for key, _, value in pairs}
