"""Averaged weights: what is shipped and sampled from, kept beside the weights that learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from blip3o.train.distributed import local


class ExponentialMovingAverage:
    """float32 averages of every learning parameter, keyed ``module.parameter``.

    The decay ramps up as ``min(decay, (1 + step) / (10 + step))`` so that the first steps do not linger.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self._live = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.averages: dict[str, Tensor] = {
            key: parameter.detach().float().clone() for key, parameter in self._live.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        keys = list(self.averages)
        live = [local(self._live[key].detach()).float() for key in keys]
        torch._foreach_lerp_([local(self.averages[key]) for key in keys], live, weight)

    @torch.no_grad()
    def copy_to(self, modules: Mapping[str, nn.Module]) -> None:
        """Overwrite the learning parameters with their averages."""
        for name, module in modules.items():
            for key, parameter in module.named_parameters():
                average = self.averages.get(f"{name}.{key}")
                if average is not None:
                    local(parameter).copy_(local(average).to(parameter.dtype))

    @contextlib.contextmanager
    def applied(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """The averages in place of the learning weights, in evaluation mode, for as long as the block runs."""
        training = [(part, part.training) for module in modules.values() for part in module.modules()]
        kept = {key: local(parameter.detach()).clone() for key, parameter in self._live.items()}
        self.copy_to(modules)
        for module in modules.values():
            module.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for key, parameter in self._live.items():
                    local(parameter).copy_(kept[key])
            for part, was_training in training:
                part.training = was_training
