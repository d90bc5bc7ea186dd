"""Several trainings on the same prompts: against closed forms, and against what one run's statistics say."""

import math

import numpy as np
import pytest

from evals import stats
from evals.stats.seeds import (
    SeedScores,
    _p_value,
    detectable_difference,
    of_values,
    over_seeds,
    seeds_needed,
    welch,
)

PROMPTS = [f"p{i}" for i in range(60)]


def draws(seeds: int, share: float = 0.5, sd: float = 0.0, rng: int = 1) -> list[SeedScores]:
    source = np.random.default_rng(rng)
    chance = np.clip(share + source.normal(0, 0.2, len(PROMPTS)), 0, 1)
    rows = [np.clip(chance + source.normal(0, sd), 0, 1) for _ in range(seeds)]
    return [SeedScores((source.random(len(PROMPTS)) < row).astype(float).tolist(), PROMPTS) for row in rows]


def test_one_seed_is_what_the_run_itself_says():
    (seed,) = draws(1)
    found, alone = over_seeds([seed]), stats.mean(seed.values, PROMPTS)
    assert (found.value, found.lo, found.hi) == pytest.approx((alone.value, alone.lo, alone.hi))
    assert found.n_seeds == 1 and math.isnan(found.sd_seeds)
    other = draws(1, rng=2)[0]
    found = over_seeds([SeedScores(seed.values, PROMPTS, against=other.values)])
    paired = stats.paired_difference(seed.values, other.values, PROMPTS)
    assert (found.value, found.lo, found.hi, found.p_value) == pytest.approx(
        (paired.value, paired.lo, paired.hi, paired.p_value)
    )


def test_seeds_that_agree_leave_the_prompts_interval_as_it_is():
    (seed,) = draws(1)
    found = over_seeds([seed, seed, seed])
    pooled = stats.mean([*seed.values] * 3, PROMPTS * 3)
    assert (found.value, found.lo, found.hi) == pytest.approx((pooled.value, pooled.lo, pooled.hi))
    assert found.sd_seeds == 0 and found.n_seeds == 3 and found.n_clusters == 60


def test_seeds_that_differ_add_their_margin():
    # Every prompt of a seed alike: nothing but the seeds' spread, so Student's t over three numbers.
    seeds = [SeedScores([x] * 60, PROMPTS) for x in (0.4, 0.5, 0.6)]
    found, t_only = over_seeds(seeds, bounded=False), of_values([0.4, 0.5, 0.6])
    assert found.value == pytest.approx(0.5)
    assert (found.lo, found.hi) == pytest.approx((t_only.lo, t_only.hi))
    assert t_only.hi - 0.5 == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)


def test_p_is_the_level_at_which_the_interval_ends_at_zero():
    a, b = draws(3, 0.6, 0.05, rng=3), draws(3, 0.4, 0.05, rng=4)
    pairs = [SeedScores(x.values, PROMPTS, against=y.values) for x, y in zip(a, b, strict=True)]
    found = over_seeds(pairs)
    assert 0 < found.p_value < 1
    errors = [(0.02, 59.0), (0.03, 2.0)]
    p = _p_value(0.1, errors)
    margin = math.hypot(*(e * stats.clusters.t_quantile(1 - p, dof) for e, dof in errors))
    assert margin == pytest.approx(0.1, rel=1e-6)
    assert (found.p_value < 0.05) == (found.lo > 0 or found.hi < 0)


def test_figures_that_are_no_means_get_students_t_over_seeds():
    from scipy.stats import ttest_1samp

    found = of_values([1.0, 2.0, 4.0], is_difference=True)
    assert found.p_value == pytest.approx(ttest_1samp([1.0, 2.0, 4.0], 0).pvalue)
    assert of_values([2.0]).ci is None and math.isnan(of_values([2.0], is_difference=True).p_value)


def test_systems_that_never_differ_have_p_one_and_an_interval_around_zero():
    (seed,) = draws(1)
    same = SeedScores(seed.values, PROMPTS, against=seed.values)
    found = over_seeds([same, same])
    assert found.p_value == 1.0 and found.lo < 0 < found.hi


def test_seeds_needed_falls_with_the_difference_and_says_when_none_are_enough():
    few, many = (seeds_needed(d, sd_seeds=0.03, var_prompts=1e-5) for d in (0.1, 0.03))
    assert few is not None and many is not None and 2 <= few < many
    assert detectable_difference(many, sd_seeds=0.03, var_prompts=1e-5) <= 0.03
    assert detectable_difference(many - 1, sd_seeds=0.03, var_prompts=1e-5) > 0.03
    assert seeds_needed(0.01, sd_seeds=0.001, var_prompts=0.01) is None
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(0.0, sd_seeds=0.1)


def test_coverage_with_few_seeds():
    """400 sweeps of 3 seeds and 40 prompts, scores with a seed, a prompt and a joint part: at least 93 of 100 hold."""
    source, reps, held, found_something = np.random.default_rng(5), 400, 0, 0
    for _ in range(reps):
        prompt = source.normal(0, 0.2, 40)
        rows = [0.4 + source.normal(0, 0.05) + prompt + source.normal(0, 0.2, 40) for _ in range(3)]
        seeds = [SeedScores(row.tolist(), PROMPTS[:40], against=[0.4] * 40) for row in rows]
        found = over_seeds(seeds, bounded=False, n_resamples=200)
        held += found.lo <= 0 <= found.hi
        found_something += found.p_value < 0.05
    assert held / reps > 0.93 and found_something / reps < 0.07


@pytest.mark.parametrize(
    "seeds",
    [[], [SeedScores([], [])], [SeedScores([1.0], ["a"]), SeedScores([1.0], ["a"], against=[0.0])]],
)
def test_nothing_to_pool_is_refused(seeds):
    with pytest.raises(ValueError, match="seed"):
        over_seeds(seeds)


def test_each_source_of_chance_has_an_interval_of_its_own():
    from scipy.stats import t

    seeds = draws(4, sd=0.08)
    found, values = over_seeds(seeds), [float(np.mean(s.values)) for s in seeds]
    wanted = t.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert found.ci_seeds == pytest.approx(wanted)
    pooled = stats.mean([v for s in seeds for v in s.values], PROMPTS * 4)
    assert found.ci_prompts == pytest.approx((pooled.lo, pooled.hi))
    assert found.lo <= min(found.ci_seeds[0], found.ci_prompts[0])
    assert found.hi >= max(found.ci_seeds[1], found.ci_prompts[1])
    alone = over_seeds(seeds[:1])
    assert alone.ci_seeds is None and alone.ci_prompts == alone.ci
    assert of_values([1.0, 2.0]).ci_prompts is None


def test_a_contrast_of_two_designs_is_welchs_t_test():
    from scipy.stats import ttest_ind

    a, b = [0.61, 0.70, 0.66], [0.40, 0.58, 0.47, 0.51]
    error, dof = welch([1, -1], [a, b])
    wanted = ttest_ind(a, b, equal_var=False)
    assert dof == pytest.approx(wanted.df)
    assert (np.mean(a) - np.mean(b)) / error == pytest.approx(wanted.statistic)
    pairs = [x - y for x, y in zip(a, b[:3], strict=True)]
    found = of_values(pairs, is_difference=True, seeds_error=welch([1, -1], [a, b[:3]]))
    assert found.p_value == pytest.approx(ttest_ind(a, b[:3], equal_var=False).pvalue)
    with pytest.raises(ValueError, match="two seeds"):
        welch([1, -1], [a, [0.5]])


@pytest.mark.parametrize("sds", [(1, 1, 1, 1), (3, 1, 3, 1), (0.2, 1, 0.2, 1)])
def test_contrasts_of_four_designs_with_three_seeds_raise_few_false_alarms(sds):
    """20,000 studies without an effect, at 0.05 and at what Holm's first step asks of twelve tests."""
    from scipy.stats import t

    draws = np.random.default_rng(7).normal(0, np.array(sds)[:, None], (20_000, 4, 3))
    weights = np.array([-0.5, 0.5, -0.5, 0.5])
    v = weights**2 * draws.var(axis=2, ddof=1) / 3
    error, dof = welch(weights.tolist(), draws[0].tolist())
    assert (error, dof) == pytest.approx((math.sqrt(v[0].sum()), v[0].sum() ** 2 / (v[0] ** 2 / 2).sum()))
    dofs = v.sum(1) ** 2 / (v**2 / 2).sum(1)
    p = 2 * t.sf(np.abs((draws.mean(2) * weights).sum(1)) / np.sqrt(v.sum(1)), dofs)
    assert (p < 0.05).mean() < 0.055 and (p < 0.05 / 12).mean() < 0.006
