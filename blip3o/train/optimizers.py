"""Which optimizers move a stage's parameters.

``adamw`` moves all of them. ``muon`` moves the weights of linear layers along their orthogonalised momentum (Jordan et
al. 2024; rates as AdamW's by the update's RMS, Liu et al. 2025, arXiv:2502.16982, section 2.2) and leaves embeddings,
queries, convolutions, norms and biases to AdamW. Both are torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blip3o.errors import ConfigError

if TYPE_CHECKING:
    from blip3o.train.schedule import LoopConfig
    from blip3o.train.stage import TrainStage

Optimizers = Sequence[torch.optim.Optimizer]


def make_optimizers(stage: TrainStage, module: nn.Module, config: LoopConfig) -> Optimizers:
    """One or two optimizers over what learns; vectors and scalars (norms, biases, gates) are not decayed.

    Every parameter group has a ``share`` of the learning rate, ``stage.rate_share(name)`` where the stage says one.
    Raises: ConfigError if nothing learns.
    """
    share_of: Callable[[str], float] = getattr(stage, "rate_share", lambda name: 1.0)
    turned = linear_weights(module) if config.optimizer == "muon" else set()
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = parameter in turned, share_of(name.rpartition("parts.")[2]), parameter.ndim >= 2
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ConfigError(f"stage '{stage.name}' has nothing to learn: every parameter is frozen")
    plain: list[dict[str, Any]] = []
    orthogonal: list[dict[str, Any]] = []
    for (is_turned, share, is_decayed), own in sorted(groups.items(), key=lambda group: group[0], reverse=True):
        group = {"params": own, "weight_decay": config.weight_decay if is_decayed else 0.0, "share": share}
        (orthogonal if is_turned else plain).append(group)
    found: list[torch.optim.Optimizer] = []
    if orthogonal:
        found.append(torch.optim.Muon(orthogonal, lr=config.lr, adjust_lr_fn="match_rms_adamw"))
    if plain:
        found.append(torch.optim.AdamW(plain, lr=config.lr, betas=config.betas, fused=True))
    return found


def linear_weights(module: nn.Module) -> set[torch.Tensor]:
    """What Muon moves: weights of linear layers, without those that an embedding shares."""
    embeddings = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    return {m.weight for m in module.modules() if isinstance(m, nn.Linear)} - embeddings
