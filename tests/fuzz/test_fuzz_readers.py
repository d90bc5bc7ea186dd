"""The fuzzing command says what it needs; fuzzing itself is started by hand."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest


def test_without_atheris_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="atheris is not installed: pip install atheris"):
        runpy.run_path(str(Path(__file__).with_name("fuzz_readers.py")))
