"""Discrete image tokens: sampled per seed, read again as a condition."""

from __future__ import annotations

import pytest
import torch

from blip3o.discrete import DiscreteScheme, DiscreteTokens
from blip3o.errors import ConfigError, ShapeError
from blip3o.presets import build_tiny


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


@pytest.fixture(scope="module")
def model():
    return build_tiny(name="tiny-llama").model


@pytest.fixture(scope="module")
def scheme(model) -> DiscreteScheme:
    # A codebook of 40 entries in the vocabulary of the tiny model, 5 entries to a picture.
    return DiscreteScheme(model.backbone, DiscreteTokens(first_id=100, codebook_size=40, num_tokens=5, scale_id=99))


IDS = torch.randint(20, 90, (3, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [0, 0] + [1] * 5, [1] * 4 + [0] * 3])


def test_words_depend_on_seed_and_prompt_whatever_the_batch(scheme) -> None:
    together = scheme.sample(IDS, MASK, seeds(1, 2, 3))
    assert together.shape == (3, 5) and together.min() >= 0 and together.max() < 40
    for row in range(3):
        real = MASK[row].bool()
        alone = scheme.sample(IDS[row : row + 1, real], MASK[row : row + 1, real], seeds(row + 1))
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(scheme.sample(IDS, MASK, seeds(4, 5, 6)), together)


def test_the_cached_words_are_the_likeliest_of_the_plain_sequence(model, scheme) -> None:
    greedy = DiscreteScheme(
        model.backbone, DiscreteTokens(first_id=100, codebook_size=40, num_tokens=5, scale_id=99, top_k=1)
    )
    words = greedy.sample(IDS, MASK, seeds(1, 2, 3))
    with torch.no_grad():
        hidden = greedy.condition(IDS, MASK, words)
        logits = model.backbone.logits(hidden[:, :-1])[..., 100:140]
    assert torch.equal(logits.argmax(-1), words)


def test_words_condition_the_generator(model, scheme) -> None:
    words = scheme.sample(IDS, MASK, seeds(1, 2, 3))
    condition = scheme.condition(IDS, MASK, words)
    assert condition.shape == (3, 6, 32)
    features = model.sample_features(condition.detach(), generators=seeds(1, 2, 3))
    assert features.shape == (3, *model.feature_shape)
    loss = scheme.loss(IDS, MASK, words)
    assert loss.requires_grad and 0 < loss.item() < 10


def test_only_the_nucleus_is_drawn(model) -> None:
    config = DiscreteTokens(first_id=0, codebook_size=4, num_tokens=1, scale_id=9, top_p=0.6)
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    draws = {int(DiscreteScheme(model.backbone, config)._draw(logits, seeds(s))) for s in range(60)}
    assert draws == {0, 1}  # 0.5, then 0.3 because the mass before it is below 0.6


def test_wrong_settings_are_refused(scheme) -> None:
    with pytest.raises(ConfigError, match="top_p must be above 0 and at most 1.*got 1.5"):
        DiscreteTokens(first_id=0, codebook_size=4, num_tokens=1, scale_id=9, top_p=1.5)
    with pytest.raises(ConfigError, match="must be at least 1, got 4, 0"):
        DiscreteTokens(first_id=0, codebook_size=4, num_tokens=0, scale_id=9)
    with pytest.raises(ShapeError, match=r"entries must be \(3, 5\), got \(3, 4\)"):
        scheme.condition(IDS, MASK, torch.zeros(3, 4, dtype=torch.long))
    with pytest.raises(ShapeError, match="3 prompts need as many generators, got 1"):
        scheme.sample(IDS, MASK, seeds(1))
