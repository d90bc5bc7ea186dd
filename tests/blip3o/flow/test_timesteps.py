"""Noise levels of training, against diffusers' tables and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from blip3o.errors import ConfigError
from blip3o.flow.timesteps import SigmaDistribution, sigma_from_uniform, train_sigmas


@pytest.mark.parametrize("shift", [1.0, 1.7, 3.0])
def test_levels_equal_those_of_diffusers(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    assert torch.equal(train_sigmas(shift), scheduler.sigmas[:1000])


def test_discrete_levels_are_chosen_by_the_uniform_number() -> None:
    u = torch.tensor([0.0, 0.0009, 0.001, 0.5, 0.99999994])
    sigma = sigma_from_uniform(u, SigmaDistribution(rule="discrete"))
    assert torch.equal(sigma * 1000, torch.tensor([1000.0, 1000.0, 999.0, 500.0, 1.0]))


def test_every_rule_stays_within_bounds_and_falls_with_u() -> None:
    u = torch.linspace(0, 1 - 2**-24, 2001)
    for rule in ("discrete", "uniform", "logit_normal"):
        sigma = sigma_from_uniform(u, SigmaDistribution(rule=rule, shift=2.0))
        assert sigma.min() > 0 and sigma.max() <= 1
        assert (sigma.diff() <= 0).all()


def test_logit_normal_has_its_moments() -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    sigma = sigma_from_uniform(
        u, SigmaDistribution(rule="logit_normal", logit_mean=0.7, logit_std=1.3)
    )
    logits = torch.logit(sigma.double())
    assert math.isclose(logits.mean(), 0.7, abs_tol=0.02)
    assert math.isclose(logits.std(), 1.3, abs_tol=0.02)


@pytest.mark.parametrize("values", [{"rule": "cosine"}, {"shift": 0.0}, {"logit_std": -1.0}])
def test_unknown_rules_and_impossible_numbers_are_refused(values) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values())))):
        SigmaDistribution(**values)
