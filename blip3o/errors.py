"""Exceptions of the ``blip3o`` package.

Blip3oError                 root: everything this package raises on purpose
├── ConfigError             a setting is unknown, contradictory or out of range
├── ShapeError              tensors disagree with each other or with the configuration
├── WeightsError            weights are missing, incomplete, damaged, or do not fit the configuration
└── DataError               a picture, prompt or record cannot be used

A message is one line: the value, what is allowed, and the next step.
"""

from __future__ import annotations


class Blip3oError(Exception):
    """Root of the errors raised on purpose; a command prints its text without a traceback."""


class ConfigError(Blip3oError):
    """A setting is unknown, contradictory or out of range."""


class ShapeError(Blip3oError):
    """Tensors disagree with each other or with the configuration."""


class WeightsError(Blip3oError):
    """Weights are missing, incomplete, damaged, or do not fit the configuration."""


class DataError(Blip3oError):
    """A picture, prompt or record cannot be used."""
