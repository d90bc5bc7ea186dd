"""``from_pretrained`` that takes everything or refuses, for our layout and the released one.

Names, shapes and completeness are compared before anything is read; values are checked to be finite after.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, overload

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig

from blip3o.checkpoint_files import check_fit, folder_headers
from blip3o.config import Blip3oConfig
from blip3o.errors import WeightsError
from blip3o.locate import find_folder
from blip3o.released import (
    MODEL_TYPES,
    config_from_released,
    current_name,
    is_unused,
    key_mapping,
    map_names,
)
from blip3o.storage import CONFIG_NAME, quiet_transformers, read_json


@contextmanager
def outside_launcher() -> Iterator[None]:
    """Hide torchrun's variables: transformers would split a model over the processes when it sees them."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_released(folder: Path) -> bool:
    """Whether a folder has the layout of the released checkpoints."""
    return read_json(folder / CONFIG_NAME).get("model_type") in MODEL_TYPES


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a folder's tensors under our names, without the released parts that are not used."""
    headers = folder_headers(folder)
    names = map_names(headers) if is_released(folder) else {n: current_name(n) for n in headers}
    return {ours: headers[theirs].shape for theirs, ours in names.items()}


def read_config(folder: Path) -> Blip3oConfig:
    """The model configuration of a folder of either layout. Raises: WeightsError, ConfigError."""
    values = read_json(folder / CONFIG_NAME)
    kind = values.get("model_type")
    if kind in MODEL_TYPES:
        return config_from_released(values, read_shapes(folder))
    if kind != Blip3oConfig.model_type:
        raise WeightsError(
            f"{folder / CONFIG_NAME} is of a {kind!r} model, not of a BLIP3-o; "
            f"expected {Blip3oConfig.model_type} or {' or '.join(MODEL_TYPES)}"
        )
    return Blip3oConfig.from_dict(values)


def check_finite(tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Raises: WeightsError naming the first tensor that holds NaN or infinity. Offloaded tensors are passed over."""
    for name, tensor in tensors.items():
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        # The extremes carry any NaN or infinity, and need no second tensor of this size.
        least, most = torch.aminmax(tensor.detach())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise WeightsError(
                f"the weights in {source} hold values that are not finite: {name}; fetch or save them again"
            )


class StrictLoading:
    """Mixin before ``PreTrainedModel``."""

    @overload
    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *args: Any, output_loading_info: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(cls, folder: str | Path, *args: Any, **kwargs: Any) -> Self: ...

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load weights as transformers does, but strictly: safetensors only, nothing left to chance.

        Args: folder: a folder of our layout or the released one, or a hub id that is on this machine. The rest as
            in transformers: ``dtype``, ``device_map``, ``max_memory``, ``offload_folder``, ...
        Raises: WeightsError if a file is missing, damaged, cut short or pickled, or does not fit the configuration.
        """
        path = find_folder(folder, kwargs.pop("revision", None))
        if not isinstance(config, PretrainedConfig):
            config = read_config(path)
        with torch.device("meta"):
            expected: Any = cls(config)  # type: ignore[call-arg]
        wanted = {name: tuple(value.shape) for name, value in expected.state_dict().items()}
        found = read_shapes(path)
        for name, source in expected.all_tied_weights_keys.items():
            if name not in found and source in found:
                wanted.pop(name, None)  # tied: the file holds the other one
        check_fit(found, wanted, path)
        if is_released(path):
            kwargs["key_mapping"] = key_mapping()
        kwargs |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "local_files_only": True}
        with_info = kwargs.pop("output_loading_info", False)
        try:
            with quiet_transformers(), outside_launcher():
                model, info = super().from_pretrained(  # type: ignore[misc]
                    path, *args, config=config, output_loading_info=True, **kwargs
                )
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"the weights in {path} cannot be loaded ({' '.join(str(error).split())}); fetch or save them again"
            ) from None
        unexpected = [key for key in info["unexpected_keys"] if not is_unused(key)]
        if info["missing_keys"] or unexpected or info["mismatched_keys"]:
            raise WeightsError(
                f"the weights in {path} were not all taken: missing {sorted(info['missing_keys'])[:3]}, "
                f"unknown {sorted(unexpected)[:3]}, of wrong shape {sorted(map(str, info['mismatched_keys']))[:3]}"
            )
        check_finite(model.state_dict(), path)
        # The mapping belongs to the files that were read; a model is saved under its own names.
        if hasattr(model, "_weight_conversions"):
            model._weight_conversions = None
        return (model, info) if with_info else model
