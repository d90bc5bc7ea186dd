"""BLIP3-o: one model that understands and generates images.

Public names load on first use, so that ``import blip3o`` costs nothing (``blip3o.stickers`` must
stay free of torch).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip3o.config import Blip3oConfig as Blip3oConfig
    from blip3o.dit import DiT as DiT
    from blip3o.dit import DiTConfig as DiTConfig
    from blip3o.errors import Blip3oError as Blip3oError
    from blip3o.pipeline import Blip3oPipeline as Blip3oPipeline
    from blip3o.unified import Blip3oModel as Blip3oModel

__version__ = "0.1.0"

_PUBLIC = {
    "Blip3oConfig": "blip3o.config",
    "Blip3oModel": "blip3o.unified",
    "Blip3oPipeline": "blip3o.pipeline",
    "DiT": "blip3o.dit",
    "DiTConfig": "blip3o.dit",
    "Blip3oError": "blip3o.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'blip3o' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
