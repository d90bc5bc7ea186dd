"""How many seeds a difference needs: against statsmodels, scipy and simulated studies."""

import math

import numpy as np
import pytest

from evals.stats.replication import paired_power, paired_seeds_needed, sd_interval


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.5, 4.0])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_power_is_that_of_statsmodels(effect, n):
    from statsmodels.stats.power import TTestPower

    wanted = TTestPower().power(effect, n, 0.05, alternative="two-sided")
    wanted = 1.0 if math.isnan(wanted) else wanted  # scipy's noncentral t, far out
    assert paired_power(n, effect * 0.04, 0.04) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("effect", [0.4, 0.9, 2.0])
def test_seeds_needed_are_those_of_statsmodels_rounded_up(effect):
    from statsmodels.stats.power import TTestPower

    wanted = float(np.squeeze(TTestPower().solve_power(effect, power=0.8, alpha=0.05)))
    assert paired_seeds_needed(effect, 1.0) == math.ceil(wanted)


def test_a_shift_that_is_certain_and_one_that_no_number_finds():
    assert paired_power(50, 1.0, 0.01) == 1.0
    assert paired_seeds_needed(0.001, 1.0, limit=50) is None
    assert paired_seeds_needed(0.01, 0.0) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: paired_seeds_needed(0.0, 1.0), "difference 0.0 must be a number above 0"),
        (lambda: paired_seeds_needed(0.1, -1.0), "sd -1.0 must be a number of 0 or more"),
        (lambda: paired_power(1, 0.1, 1.0), "n_seeds 1"),
        (lambda: paired_power(3, 0.1, 0.0), "sd 0.0 must be"),
        (lambda: sd_interval(1.0, 0), "dof 0"),
    ],
)
def test_bad_input_is_one_line(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_the_interval_of_a_spread_is_chi_squareds():
    from scipy.stats import chi2

    low, high = sd_interval(0.03, 10)
    assert low == pytest.approx(0.03 * math.sqrt(10 / chi2.ppf(0.975, 10)))
    assert high == pytest.approx(0.03 * math.sqrt(10 / chi2.ppf(0.025, 10)))


def test_planned_seeds_find_what_they_promise_in_simulated_studies():
    """20,000 studies with as many seeds as were asked for: the t-test finds the difference in 8 of 10 or a few more."""
    from scipy.stats import ttest_1samp

    n = paired_seeds_needed(0.05, 0.04)
    assert n is not None
    draws = np.random.default_rng(3).normal(0.05, 0.04, (20_000, n))
    found = (ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(paired_power(n, 0.05, 0.04), abs=0.01)
    assert 0.8 - 0.01 <= found < paired_power(n + 1, 0.05, 0.04) + 0.01
