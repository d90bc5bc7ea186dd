"""Which parameters an optimizer moves, and how far."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from blip3o.errors import ConfigError
from blip3o.train.loop import LoopConfig, TrainingDiverged, fit
from blip3o.train.optimizers import make_optimizers

CONFIG = LoopConfig(steps=1, lr=1e-2, warmup_steps=0, clip_norm=1e9, ema_decay=0.0, bf16=False)
MUON = dataclasses.replace(CONFIG, optimizer="muon")


class Model(nn.Module):
    """Every kind of parameter; the head shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 24)
        self.queries = nn.Parameter(torch.randn(4, 24))
        self.conv = nn.Conv1d(24, 24, 3, padding=1)
        self.norm = nn.LayerNorm(24)
        self.inner = nn.Linear(24, 40)
        self.outer = nn.Linear(40, 24, bias=False)
        self.head = nn.Linear(24, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids) + self.queries
        x = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return self.head(x + self.outer(self.inner(x).tanh()))


class Stage:
    name = "naming"

    def __init__(self, broken_at: int | None = None) -> None:
        self.model = Model()
        self.modules = {"model": self.model}
        self.broken_at = broken_at

    def batch(self, index):
        return torch.randint(11, (6, 4), generator=torch.Generator().manual_seed(index))

    def loss(self, batch, generator):
        loss = nn.functional.cross_entropy(self.model(batch).flatten(0, 1), (batch.flatten() + 1) % 11)
        self.seen = getattr(self, "seen", -1) + 1
        return (loss * float("nan") if self.seen == self.broken_at else loss), {}


def test_linear_weights_go_to_muon_and_everything_else_to_adamw():
    stage = Stage()
    muon, adamw = make_optimizers(stage, stage.model, MUON)
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    names = {parameter: name for name, parameter in stage.model.named_parameters()}
    moved = [{names[p] for group in o.param_groups for p in group["params"]} for o in (muon, adamw)]
    assert moved[0] == {"inner.weight", "outer.weight"}
    assert moved[0] | moved[1] == set(names.values()) and not moved[0] & moved[1]
    (alone,) = make_optimizers(stage, stage.model, CONFIG)
    assert isinstance(alone, torch.optim.AdamW)


def test_a_model_of_linear_layers_alone_has_one_optimizer():
    stage = Stage()
    stage.model = nn.Linear(3, 4, bias=False)
    assert [type(o) for o in make_optimizers(stage, stage.model, MUON)] == [torch.optim.Muon]


def test_a_first_step_of_muon_is_the_nearest_orthogonal_matrix_at_adamws_size(tmp_path):
    """Momentum starts at zero, so the first update is the gradient's own polar factor, which singular value
    decomposition gives exactly; its size is 0.2 sqrt(larger side) x rate (arXiv:2502.16982, equation 4)."""
    stage = Stage()
    stage.loss(stage.batch(0), None)[0].backward()
    gradient = stage.model.inner.weight.grad.clone()
    stage.model.zero_grad()
    before = stage.model.inner.weight.detach().clone()
    fit(stage, MUON, tmp_path)
    moved = (before - stage.model.inner.weight.detach()) / (0.2 * 40**0.5 * MUON.lr)
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    large = sizes > 0.05 * sizes[0]  # five Newton-Schulz steps leave the smallest short
    assert large.sum() >= 10
    inside = left[:, large].T @ moved @ right[large].T  # the identity, were it exact
    assert inside.diagonal().min() > 0.6 and inside.diagonal().max() < 1.25
    ideal = torch.eye(int(large.sum()))
    assert torch.cosine_similarity(inside.flatten(), ideal.flatten(), dim=0) > 0.95


def test_a_share_of_the_rate_holds_for_both(tmp_path):
    moved = []
    for share in (1.0, 0.25):
        stage = Stage()
        stage.rate_share = lambda name, share=share: share
        before = {k: v.clone() for k, v in stage.model.state_dict().items()}
        fit(stage, MUON, tmp_path / str(share))
        moved.append({k: (v - before[k]).norm().item() for k, v in stage.model.state_dict().items()})
    for name, whole in moved[0].items():
        assert whole > 0 and moved[1][name] == pytest.approx(0.25 * whole, rel=1e-2), name


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_killed_run_of_muon_ends_as_an_undisturbed_one(tmp_path, weight_decay):
    config = dataclasses.replace(MUON, steps=6, weight_decay=weight_decay, ema_decay=0.5)
    whole, cut, again = Stage(), Stage(broken_at=3), Stage()
    fit(whole, config, tmp_path / "whole")
    saving = dataclasses.replace(config, save_every_s=0.0)
    with pytest.raises(TrainingDiverged):
        fit(cut, saving, tmp_path / "cut")
    fit(again, saving, tmp_path / "cut")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    fit(Stage(), CONFIG, tmp_path)
    with pytest.raises(ConfigError, match=r"made with other settings \(optimizer\)"):
        fit(Stage(), MUON, tmp_path)


def test_what_muon_cannot_do_is_said():
    with pytest.raises(ConfigError, match="optimizer muno is out of range: adamw or muon"):
        LoopConfig(steps=1, lr=1e-3, optimizer="muno")
    with pytest.raises(ConfigError, match="muon turns whole matrices, sharding fsdp2 cuts them; use sharding ddp"):
        LoopConfig(steps=1, lr=1e-3, optimizer="muon", sharding="fsdp2")
