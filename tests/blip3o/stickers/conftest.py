"""GenEval's metadata lines, as bundled with the tasks."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest


@pytest.fixture(scope="session")
def official() -> list[dict[str, Any]]:
    text = (files("tasks") / "data" / "geneval" / "evaluation_metadata.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 553
    return lines
