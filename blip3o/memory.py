"""Running out of memory: how it is recognised, and what is given back. No torch at import."""

from __future__ import annotations

import sys

_WORDS = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, torch's OutOfMemoryError (CUDA, XPU), and allocators that only say so in words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _WORDS)


def free_device_memory() -> None:
    """Hand cached device memory back, if torch uses a device in this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
