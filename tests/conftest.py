"""Fixtures shared by all tests, and how many examples hypothesis tries."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests that need it skip themselves
    pass
else:
    _COMMON = {
        "deadline": None,  # machines in use by others
        "database": None,  # nothing is left in the working directory
        "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    }
    # The same few examples every time; `pytest --hypothesis-profile=deep` tries many others.
    settings.register_profile("quick", max_examples=20, derandomize=True, **_COMMON)
    settings.register_profile("deep", max_examples=3000, **_COMMON)
    settings.load_profile("quick")


@pytest.fixture
def golden() -> Path:
    """Recorded reference values, one folder per subject."""
    return TESTS / "golden"


@pytest.fixture(autouse=True)
def own_logging():
    """A command run within the test process, by a fixture too, sets levels and handlers: no test inherits them."""
    for name in ("evals", "blip3o", "tasks", "reports"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.handlers.clear()
