"""Checkpoints of others that are pickles: only tensors are read from them (`weights_only`), never objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def read_pickled_tensors(source: Path, wrappers: Sequence[str], advice: str) -> dict[str, Tensor]:
    """The state dict of a file that `torch.save` wrote, bare or below one of the keys ``wrappers``.

    Args: advice: the next step, at the end of each error. Raises: InputError for anything but plain tensors.
    """
    import pickle

    import numpy as np
    import torch

    # Notes on the training stand beside the tensors; numbers of NumPy among them do no harm.
    allowed: list[Any] = [np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64)), type(np.dtype(np.int64))]
    allowed += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{source} is not a checkpoint of plain tensors ({reason}): {advice} again") from None
    for key in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise InputError(f"{source} holds no state dict of tensors: {advice}")
    return dict(tensors)
