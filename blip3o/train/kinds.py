"""Names that settings choose from. Importing this module does not import torch."""

from __future__ import annotations

from typing import Literal

Optimizer = Literal["adamw", "muon"]
