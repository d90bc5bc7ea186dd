"""Which heads and which combinations of target and objective there are; how a head is built and driven.

The paper's three designs are ``clip`` + ``flow``, ``clip`` + ``mse`` and ``vae`` + ``flow``. Another network joins
with one entry: a builder that returns a ``FlowNetwork`` (or a ``Regressor``) which is an ``nn.Module``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from blip3o.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from blip3o.config import Blip3oConfig

Builder = Callable[["Blip3oConfig"], "nn.Module"]

# (target, objective): what was studied and is supported.
COMBINATIONS = (("clip", "flow"), ("clip", "mse"), ("vae", "flow"))

# head -> (objectives it serves, "module:function" of its builder)
_HEADS: dict[str, tuple[tuple[str, ...], str | Builder]] = {
    "dit": (("flow", "mse"), "blip3o.heads.kinds:build_dit"),
    "linear": (("mse",), "blip3o.heads.kinds:build_linear"),
    "sana": (("flow",), "blip3o.heads.sana:build_sana"),
}

# Heads whose sizes are those of dit_config; another head brings its own.
USE_DIT_CONFIG = ("dit", "linear")


def register_head(name: str, builder: Builder | str, objectives: tuple[str, ...] = ("flow",)) -> None:
    """Add a head under a new name. Raises: ConfigError for a name that is taken."""
    if name in _HEADS:
        raise ConfigError(f"head {name!r} exists already; choose another name")
    _HEADS[name] = (objectives, builder)


def check_combination(target: str, objective: str, head: str) -> None:
    """Raises: ConfigError listing what is allowed."""
    if (target, objective) not in COMBINATIONS:
        allowed = ", ".join(f"{t} + {o}" for t, o in COMBINATIONS)
        raise ConfigError(f"target {target!r} with objective {objective!r} is not supported; choose {allowed}")
    if head not in _HEADS:
        raise ConfigError(f"head {head!r} is unknown; choose one of {', '.join(_HEADS)}")
    if objective not in _HEADS[head][0]:
        fitting = ", ".join(name for name, (objectives, _) in _HEADS.items() if objective in objectives)
        raise ConfigError(f"head {head!r} does not serve objective {objective!r}; choose {fitting}")


def build_network(config: Blip3oConfig) -> nn.Module:
    """The network of the head that a configuration names."""
    builder = _HEADS[config.head][1]
    if isinstance(builder, str):
        module, name = builder.split(":")
        builder = getattr(import_module(module), name)
    network: nn.Module = builder(config)
    return network


def build_dit(config: Blip3oConfig) -> nn.Module:
    from blip3o.dit import DiT

    return DiT(config.dit)


def build_linear(config: Blip3oConfig) -> nn.Module:
    from blip3o.heads.regression import LinearRegressor

    return LinearRegressor(config.dit, config.num_queries)


def drive(network: Any, config: Blip3oConfig) -> Any:
    """The GenerationHead over a network, by the configuration's objective."""
    from blip3o.dit import DiT
    from blip3o.heads.flow import FlowHead
    from blip3o.heads.regression import DiTRegressor, RegressionHead

    if config.objective == "flow":
        return FlowHead(network, config.flow, is_released=config.compat == "released")
    return RegressionHead(DiTRegressor(network) if isinstance(network, DiT) else network)
