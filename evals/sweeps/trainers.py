"""Which trainer a sweep means: ``base.train.trainer``, BLIP3-o's own without it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from evals.errors import unknown_name
from evals.sweeps.api import Trainer

KEY, DEFAULT = "trainer", "blip3o"
_TRAINERS = {
    DEFAULT: "evals.sweeps.training",
    "dummy": "evals.sweeps.dummy",  # for tests
}


def find_trainer(settings: Mapping[str, Any]) -> tuple[Trainer, dict[str, Any]]:
    """The trainer and its own settings. Raises: UnknownNameError."""
    own = {key: value for key, value in settings.items() if key != KEY}
    name = settings.get(KEY, DEFAULT)
    if name not in _TRAINERS:
        raise unknown_name("trainer", str(name), [n for n in _TRAINERS if n != "dummy"])
    trainer: Trainer = importlib.import_module(_TRAINERS[name])
    return trainer, own
