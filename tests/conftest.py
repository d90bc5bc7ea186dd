"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.fixture
def golden() -> Path:
    """Recorded reference values, one folder per subject."""
    return TESTS / "golden"
