"""The random stream: known values, and draws that are fair."""

from __future__ import annotations

from collections import Counter

import pytest

from blip3o.stickers.rng import Stream


def test_generator_is_splitmix64():
    """First outputs of SplitMix64 from state 1234567, as published with its reference code."""
    stream = Stream("any")
    stream._state = 1234567
    assert [stream.bits() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_keys_are_told_apart():
    assert Stream("a", "bc").bits() != Stream("ab", "c").bits()
    assert Stream("train", 1).bits() == Stream("train", "1").bits()


def test_draws_are_fair():
    stream = Stream("fair")
    counts = Counter(stream.weighted((("a", 1.0), ("b", 3.0))) for _ in range(8000))
    assert counts["b"] / 8000 == pytest.approx(0.75, abs=0.02)
    dice = Counter(stream.integer(6) for _ in range(12_000))
    assert set(dice) == set(range(6)) and max(dice.values()) < 2200 and min(dice.values()) > 1800


def test_sample_has_no_repeats():
    assert sorted(Stream("s").sample(range(10), 10)) == list(range(10))
