from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from evals.api import Sample
from evals.errors import ConfigError
from evals.phases.plan import Plan, cut, parse_shard, sample_seed, spread_evenly


def make_samples(**sizes: int) -> list[Sample]:
    names = [group for group, size in sizes.items() for _ in range(size)]
    return [Sample(id=f"s{n}", number=n, group=g, prompt=g) for n, g in enumerate(names)]


def test_seeds_are_the_same_in_every_process() -> None:
    code = "from evals.phases.plan import sample_seed; print(sample_seed(42, '00007', 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sample_seed(42, "00007", 3)


def test_seeds_are_all_different_and_fit_into_json_numbers() -> None:
    seeds = {
        sample_seed(r, f"{s:05d}", i) for r in (0, 1, 42) for s in range(553) for i in range(4)
    }
    assert len(seeds) == 3 * 553 * 4
    assert max(seeds) < 2**53


def test_seed_does_not_depend_on_limit_batch_or_shard() -> None:
    samples = make_samples(a=10, b=10)
    whole = Plan(tuple(samples), 4, 8, seed=42)
    part = Plan(tuple(spread_evenly(samples, ("a", "b"), 4)), 4, 3, seed=42)
    seeds = {}
    for p in range(len(whole)):
        sample, index = whole.place(p)
        seeds[sample.id, index] = whole.seed_of(p)
    for p in range(len(part)):
        sample, index = part.place(p)
        assert part.seed_of(p) == seeds[sample.id, index]


def test_upstream_mode_starts_every_sample_from_the_run_seed_and_cuts_between_samples() -> None:
    plan = Plan(tuple(make_samples(a=5)), 4, 10, seed=42, series=True)
    assert {plan.seed_of(p) for p in range(len(plan))} == {42}
    assert [(b.start, b.stop) for b in plan.batches()] == [(0, 8), (8, 16), (16, 20)]
    small = Plan(tuple(make_samples(a=5)), 4, 1, seed=42, series=True)
    assert {len(b) for b in small.batches()} == {4}


def test_limit_spreads_over_groups_in_official_order_and_is_always_the_same() -> None:
    samples = make_samples(a=80, b=99, c=80, d=94, e=100, f=100)
    chosen = spread_evenly(samples, tuple("abcdef"), 20)
    assert Counter(s.group for s in chosen) == {"a": 4, "b": 4, "c": 3, "d": 3, "e": 3, "f": 3}
    assert [s.number for s in chosen] == sorted(s.number for s in chosen)
    assert chosen == spread_evenly(samples, tuple("abcdef"), 20)
    numbers = [s.number for s in chosen if s.group == "a"]
    assert numbers == [10, 30, 50, 70]


def test_limit_takes_from_other_groups_when_one_runs_out() -> None:
    samples = make_samples(a=1, b=9)
    assert Counter(s.group for s in spread_evenly(samples, ("a", "b"), 6)) == {"a": 1, "b": 5}
    assert spread_evenly(samples, ("a", "b"), 10) == samples
    assert spread_evenly(samples, ("a", "b"), 99) == samples


@pytest.mark.parametrize("limit", range(1, 12))
def test_limit_yields_exactly_that_many_distinct_samples(limit: int) -> None:
    samples = make_samples(a=3, b=5, c=4)
    assert len({s.id for s in spread_evenly(samples, ("a", "b"), limit)}) == limit


def test_batches_cover_every_position_once_whatever_the_number_of_shards() -> None:
    plan = Plan(tuple(make_samples(a=13)), 4, 7, seed=0)
    whole = [(b.index, b.start, b.stop) for b in plan.batches()]
    for count in (1, 2, 3, 64):
        parts = [(b.index, b.start, b.stop) for i in range(count) for b in plan.batches((i, count))]
        assert sorted(parts) == whole
    assert [p for b in plan.batches() for p in b.positions] == list(range(52))
    assert [len(b) for b in cut(10, 4)] == [4, 4, 2]


def test_two_samples_with_one_id_are_refused() -> None:
    sample = Sample("x", 0, "g", "p")
    with pytest.raises(ConfigError, match="same id"):
        Plan((sample, sample), 1, 1, seed=0)


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/3", "1/0", "0/", ""])
def test_a_shard_is_i_of_n(text: str) -> None:
    with pytest.raises(ConfigError, match="give i/n"):
        parse_shard(text)
    assert parse_shard("3/4") == (3, 4)
