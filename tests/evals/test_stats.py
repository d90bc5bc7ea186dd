import math
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from evals import stats

GENEVAL_SIZES = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}


def correlated(rng, share, icc, n_clusters, size=4):
    """(n_clusters, size) zeros and ones with the given mean and intra-cluster correlation (beta-binomial)."""
    if icc == 0:
        chance = np.full(n_clusters, share)
    elif icc == 1:
        chance = (rng.random(n_clusters) < share).astype(float)
    else:
        k = (1 - icc) / icc
        chance = rng.beta(share * k, (1 - share) * k, n_clusters)
    return (rng.random((n_clusters, size)) < chance[:, None]).astype(float)


TAGS = [tag for tag, n in GENEVAL_SIZES.items() for _ in range(4 * n)]
PROMPTS = [f"{tag}-{i // 4}" for tag, n in GENEVAL_SIZES.items() for i in range(4 * n)]


def geneval_like(rng, shares, icc):
    sizes = GENEVAL_SIZES.values()
    values = [correlated(rng, p, icc, n).ravel() for n, p in zip(sizes, shares, strict=True)]
    return np.concatenate(values), TAGS, PROMPTS


# --- decided answers ---------------------------------------------------------------------------------------------


def test_no_values_have_no_mean_and_no_interval():
    for estimate in (stats.mean([]), stats.mean_of_strata([], [])):
        assert math.isnan(estimate.value)
        assert estimate.ci is None
        assert (estimate.n, estimate.n_clusters, estimate.method) == (0, 0, "empty")
    assert stats.by_stratum([], []) == {}
    assert stats.paired_difference([], []).method == "empty"


@pytest.mark.parametrize("k", [3, 8, 10])
def test_mirrored_values_have_the_mirrored_interval(k):
    for n in range(k + 1, 101):
        few = [0] * k + [1] * (n - k)
        many = [1 - value for value in few]
        halves = ["a", "b"] * (n // 2) + ["a"] * (n % 2)
        for of in (stats.mean, lambda values, tags=halves: stats.mean_of_strata(values, tags)):
            one, other = of(few), of(many)
            assert one.method == other.method, (n, k)
            if one.method != "bootstrap":  # which draws at random
                assert one.ci == pytest.approx([1 - bound for bound in reversed(other.ci)], abs=1e-9), (n, k)


def test_one_verdict_says_little():
    right, wrong = stats.mean([1]), stats.mean([0])
    assert right.value == 1 and right.method == "wilson"
    assert right.ci == pytest.approx(
        [0.05, 1.0], abs=0.01
    )  # Brown, Cai and DasGupta's limit for x = n = 1
    assert wrong.ci == pytest.approx([1 - right.hi, 1 - right.lo])


def test_one_unbounded_value_has_no_interval():
    estimate = stats.mean([3.5])
    assert (estimate.value, estimate.ci, estimate.method) == (3.5, None, "none")


def test_four_pictures_of_one_prompt_count_as_one():
    estimate = stats.mean([1, 0, 1, 0], ["p"] * 4)
    assert estimate.n == 4 and estimate.n_clusters == 1
    assert estimate.ci == pytest.approx(stats.wilson(0.5, 1), abs=0.06)
    assert estimate.hi - estimate.lo > 0.7


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_equal_verdicts_still_have_an_interval(value):
    estimate = stats.mean([value] * 320, [i // 4 for i in range(320)])
    assert estimate.method == "wilson"
    # Nothing shows that the pictures of a prompt are independent, so 80 prompts count as about 80.
    width = estimate.hi - estimate.lo
    assert stats.wilson(0, 320)[1] < width <= stats.wilson(0, 80)[1] + 1e-12
    assert value in (estimate.lo, estimate.hi)


def test_all_equal_unbounded_values_have_a_point_interval():
    estimate = stats.mean([2.5] * 12)
    assert estimate.ci == (2.5, 2.5)


def test_overall_of_nothing_right_has_an_upper_limit():
    estimate = stats.mean_of_strata(
        [0.0] * 48, ["a"] * 24 + ["b"] * 24, [i // 4 for i in range(48)]
    )
    assert estimate.value == 0 and estimate.lo == 0 and estimate.method == "mover"
    assert 0.1 < estimate.hi < 0.4


def test_overall_of_one_prompt_per_tag_is_wide_and_inside_the_unit_interval():
    estimate = stats.mean_of_strata([1, 0, 1, 1, 0, 0], list("abcdef"))
    assert estimate.value == 0.5
    assert 0 <= estimate.lo < 0.3 and 0.7 < estimate.hi <= 1


def test_overall_of_single_unbounded_values_has_no_interval():
    assert stats.mean_of_strata([2.0, 3.0], ["a", "b"]).method == "none"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(
        ValueError, match="1 of 3 values are NaN or infinite: mark these samples unscored"
    ):
        stats.mean([1.0, bad, 0.0])
    with pytest.raises(ValueError, match="NaN"):
        stats.paired_difference([1.0, bad], [0.0, 1.0])


def test_mistakes_of_use_are_named():
    with pytest.raises(ValueError, match="2 values but 1 labels"):
        stats.mean([1, 0], ["a"])
    with pytest.raises(ValueError, match="differ in length: 2 and 1"):
        stats.paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="cluster 'x' lies in more than one stratum"):
        stats.mean_of_strata([1, 0, 1], ["a", "b", "b"], ["x", "x", "y"])
    with pytest.raises(ValueError, match="level 95 "):
        stats.mean([1, 0], level=95)
    with pytest.raises(ValueError, match="bounded means"):
        stats.mean([1, 2], bounded=True)
    with pytest.raises(ValueError, match="5 successes of 3"):
        stats.wilson(5, 3)


# --- independent truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (7, 10), (320, 320), (33, 1000)])
def test_wilson_equals_scipy(successes, n):
    from scipy.stats import binomtest

    reference = binomtest(successes, n).proportion_ci(method="wilson")
    assert stats.wilson(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_t_interval_of_independent_values_equals_scipy():
    from scipy import stats as scipy_stats

    values = np.array([2.0, 3.5, 1.0, 4.0, 2.5])
    reference = scipy_stats.t.interval(0.95, 4, loc=values.mean(), scale=scipy_stats.sem(values))
    estimate = stats.mean(values)
    assert estimate.method == "t"
    assert estimate.ci == pytest.approx(list(reference), abs=1e-12)


def test_bootstrap_of_independent_values_agrees_with_the_t_interval():
    from scipy import stats as scipy_stats

    values = np.random.default_rng(0).normal(3, 1, 400)
    reference = scipy_stats.t.interval(0.95, 399, loc=values.mean(), scale=scipy_stats.sem(values))
    estimate = stats.mean(values)
    assert estimate.method == "bootstrap"
    assert estimate.ci == pytest.approx(list(reference), abs=0.006)


def test_bootstrap_of_clusters_agrees_with_the_interval_of_their_means():
    """With equal cluster sizes, the mean over samples is the mean of cluster means, which are independent."""
    from scipy import stats as scipy_stats

    values = correlated(np.random.default_rng(1), 0.5, 0.5, 100)
    means = values.mean(1)
    reference = scipy_stats.t.interval(0.95, 99, loc=means.mean(), scale=scipy_stats.sem(means))
    estimate = stats.mean(values.ravel(), np.repeat(np.arange(100), 4).tolist())
    assert estimate.value == pytest.approx(means.mean())
    assert estimate.ci == pytest.approx(list(reference), abs=0.006)


def test_both_ways_of_resampling_agree():
    """Few kinds of cluster are drawn as a multinomial, many by index: the distribution is the same."""
    rng = np.random.default_rng(2)
    values = correlated(rng, 0.4, 0.3, 200).ravel()
    prompts = np.repeat(np.arange(200), 4).tolist()
    few = stats.mean(values, prompts, bounded=False)
    many = stats.mean(values + rng.normal(0, 1e-9, values.size), prompts, bounded=False)
    assert few.ci == pytest.approx(many.ci, abs=0.004)


def test_sign_flips_equal_scipys_permutation_test():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(3)
    a, b = rng.normal(0.6, 1, 10), rng.normal(0, 1, 10)
    reference = permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert stats.paired_difference(a, b).p_value == pytest.approx(reference.pvalue, abs=1e-12)


def test_drawn_sign_flips_agree_with_the_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(4)
    a = rng.normal(0.25, 1, 100)
    b = rng.normal(0, 1, 100)
    assert stats.paired_difference(a, b).p_value == pytest.approx(ttest_rel(a, b).pvalue, abs=0.02)


def test_sign_flips_of_verdicts_equal_the_exact_binomial_test():
    """With one verdict per prompt the sign-flip test is McNemar's exact test."""
    from scipy.stats import binomtest

    a = [1] * 30 + [0] * 12 + [1] * 50
    b = [0] * 30 + [1] * 12 + [1] * 50
    expected = binomtest(30, 42, 0.5).pvalue
    assert stats.paired_difference(a, b).p_value == pytest.approx(expected, abs=0.003)


def test_holm_by_hand():
    # Holm's procedure on (0.01, 0.04, 0.03, 0.005): 0.02, 0.06, 0.06, 0.03 in the given order of tests.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []
    with pytest.raises(ValueError, match="p-values"):
        stats.holm([0.1, math.nan])


def test_wilson_holm_and_power_equal_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    power = pytest.importorskip("statsmodels.stats.power")
    for successes, n, alpha in ((0, 12, 0.05), (7, 10, 0.1), (320, 320, 0.05), (33, 1000, 0.01)):
        expected = proportion.proportion_confint(successes, n, alpha, method="wilson")
        assert stats.wilson(successes, n, level=1 - alpha) == pytest.approx(expected, abs=1e-12)
    for seed in range(20):
        p_values = np.random.default_rng(seed).random(1 + seed) ** 3
        expected = multitest.multipletests(p_values, method="holm")[1]
        assert stats.holm(p_values) == pytest.approx(expected.tolist(), abs=1e-15)
    for effect, nobs in ((0.0, 50), (0.2, 50), (-0.5, 30), (1.0, 9)):
        # normal_power: effect in units of sigma / sqrt(nobs), so the standard error is 1 / sqrt(nobs).
        expected = power.normal_power(effect, nobs, 0.05)
        found = stats.power_of_difference(effect, nobs**-0.5)
        assert found == pytest.approx(expected, abs=1e-12)
    needed = power.normal_sample_size_one_tail(0.2, 0.8, 0.025)
    assert stats.minimum_detectable_difference(needed**-0.5) == pytest.approx(0.2, abs=1e-9)


def test_clustered_standard_errors_equal_statsmodels():
    """The t interval of unbounded values is OLS on a constant with cluster-robust covariance."""
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    rng = np.random.default_rng(15)
    sizes = rng.integers(1, 6, 8)  # unequal clusters
    groups = np.repeat(np.arange(8), sizes)
    values = rng.normal(3, 1, groups.size) + rng.normal(0, 1, 8)[groups]
    fit = linear.OLS(values, np.ones(values.size)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True
    )
    # statsmodels multiplies by (N - 1) / (N - k) on top of C / (C - 1); k is 1 here, so they agree.
    estimate = stats.mean(values, groups.tolist(), bounded=False)
    assert estimate.method == "t"
    assert estimate.value == pytest.approx(fit.params[0])
    assert estimate.ci == pytest.approx(fit.conf_int()[0].tolist(), abs=1e-10)


def test_sign_flips_equal_mcnemars_exact_test_of_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    a = [1] * 3 + [0] * 7 + [1] * 20
    b = [0] * 3 + [1] * 7 + [1] * 20
    expected = tables.mcnemar([[20, 3], [7, 0]], exact=True).pvalue
    assert stats.paired_difference(a, b).p_value == pytest.approx(expected, abs=1e-12)


def test_bootstrap_agrees_with_scipys():
    from scipy.stats import bootstrap

    values = np.random.default_rng(16).gamma(2.0, 1.0, 300)
    reference = bootstrap((values,), np.mean, method="percentile", random_state=0, n_resamples=9999)
    low, high = reference.confidence_interval
    assert stats.mean(values).ci == pytest.approx([low, high], abs=0.012)


def test_planning_in_closed_form():
    design = stats.Design((100,), (0.3,), (0.4,), cluster_size=4, correlation=0.25)
    variance = 2 * 0.3 * 0.7 * (0.4 * 0.75 + 0.6 / 4) / 100
    assert design.standard_error() == pytest.approx(math.sqrt(variance))
    smallest = stats.minimum_detectable_difference(design.standard_error())
    assert stats.clusters_factor(design, smallest) == pytest.approx(1)
    assert stats.clusters_factor(design, smallest / 2) == pytest.approx(4)
    assert design.with_clusters(2.501).n_clusters == (251,)
    assert stats.cluster_size_needed(design, smallest) == 4
    endless = stats.minimum_detectable_difference(design.standard_error(math.inf))
    assert stats.cluster_size_needed(design, endless * 0.999) is None
    size = stats.cluster_size_needed(design, endless * 1.01)
    assert stats.minimum_detectable_difference(design.standard_error(size)) <= endless * 1.01
    assert stats.minimum_detectable_difference(design.standard_error(size - 1)) > endless * 1.01


def test_strata_of_a_plan_may_differ():
    error = stats.standard_error_of_difference(
        [80, 100], share=[0.9, 0.1], icc=[0.2, 0.6], cluster_size=1, correlation=0
    )
    by_hand = math.sqrt(2 * 0.09 / 80 + 2 * 0.09 / 100) / 2
    assert error == pytest.approx(by_hand)


@pytest.mark.parametrize("bad", [math.nan, -0.1, math.inf])
def test_plans_refuse_numbers_that_are_none(bad):
    with pytest.raises(ValueError, match="share"):
        stats.standard_error_of_difference(10, share=bad)
    with pytest.raises(ValueError, match="icc"):
        stats.standard_error_of_difference(10, icc=bad)
    with pytest.raises(ValueError, match="correlation"):
        stats.standard_error_of_difference(10, correlation=bad)
    with pytest.raises(ValueError, match="standard_error"):
        stats.minimum_detectable_difference(bad)
    with pytest.raises(ValueError, match="standard_error"):
        stats.power_of_difference(0.1, bad)
    with pytest.raises(ValueError, match="difference"):
        stats.clusters_factor(stats.Design((9,), (0.5,), (0.5,)), bad)
    with pytest.raises(ValueError, match="p-values|NaN"):
        stats.holm([0.1, bad if bad != math.inf else 2.0])


def test_plans_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one stratum"):
        stats.standard_error_of_difference([])
    with pytest.raises(ValueError, match="must be 1 or more"):
        stats.standard_error_of_difference(0)
    with pytest.raises(ValueError, match="must be 1 or more"):
        stats.standard_error_of_difference(5, cluster_size=0)
    with pytest.raises(ValueError, match="must lie between alpha"):
        stats.minimum_detectable_difference(0.1, power=0.01)
    assert stats.power_of_difference(0.1, 0) == 1 and stats.power_of_difference(0, 0) == 0.05


def test_a_pair_of_single_samples_and_of_one_cluster():
    """One prompt says nothing about prompts: p is 1, the interval as wide as caution makes it."""
    one = stats.paired_difference([1], [0])
    assert (one.value, one.p_value, one.method) == (1.0, 1.0, "t+2")
    assert one.lo < 0 < one.hi == 1.0
    cluster = stats.paired_difference([1, 1, 0, 1], [0, 1, 0, 0], ["p"] * 4)
    assert (cluster.value, cluster.n_clusters, cluster.p_value) == (0.5, 1, 1.0)
    assert cluster.lo < 0 < cluster.hi
    unbounded = stats.paired_difference([3.0], [1.0])
    assert (unbounded.value, unbounded.ci, unbounded.method) == (2.0, None, "none")
    assert stats.wilson(0, 0) == (0.0, 1.0)
    by_group = stats.by_stratum([1, 0], ["a", "b"])
    assert {name: e.n for name, e in by_group.items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_every_door_refuses_values_that_are_no_numbers(bad):
    for refused in (
        lambda: stats.mean_of_strata([1.0, bad], ["a", "b"]),
        lambda: stats.by_stratum([bad], ["a"]),
        lambda: stats.paired_difference([bad], [1.0]),
        lambda: stats.paired_difference([1.0], [bad]),
    ):
        with pytest.raises(ValueError, match="1 of . values are NaN or infinite"):
            refused()
    with pytest.raises(ValueError, match="successes of"):
        stats.wilson(bad, 3)


def test_power_in_closed_form():
    error = stats.standard_error_of_difference(100, share=0.5, cluster_size=1, icc=0, correlation=0)
    assert error == pytest.approx(math.sqrt(2 * 0.25 / 100))
    assert stats.power_of_difference(0, error) == pytest.approx(0.05)
    assert stats.power_of_difference(1.959964 * error, error) == pytest.approx(0.5, abs=1e-4)
    smallest = stats.minimum_detectable_difference(error, power=0.8)
    assert smallest == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)
    assert stats.power_of_difference(smallest, error) == pytest.approx(0.8, abs=1e-4)
    with pytest.raises(ValueError, match="share 2 is not in"):
        stats.standard_error_of_difference(100, share=2)


def test_power_agrees_with_simulated_comparisons():
    rng = np.random.default_rng(5)
    sizes = [80, 99, 80, 94, 100, 100]
    error = stats.standard_error_of_difference(
        sizes, share=0.5, cluster_size=4, icc=0.4, correlation=0
    )
    differences = [
        np.mean(
            [(correlated(rng, 0.5, 0.4, n) - correlated(rng, 0.5, 0.4, n)).mean() for n in sizes]
        )
        for _ in range(600)
    ]
    assert np.std(differences) == pytest.approx(error, rel=0.1)


# --- properties --------------------------------------------------------------------------------------------------


def test_same_values_in_another_order_give_the_same_interval():
    values, tags, prompts = geneval_like(
        np.random.default_rng(6), (0.8, 0.3, 0.5, 0.6, 0.2, 0.1), 0.4
    )
    other = np.random.default_rng(7).permutation(values.size)
    shuffled = (values[other], [tags[i] for i in other], [prompts[i] for i in other])
    assert stats.mean_of_strata(*shuffled) == stats.mean_of_strata(values, tags, prompts)
    assert stats.by_stratum(*shuffled) == stats.by_stratum(values, tags, prompts)


def test_renamed_tags_do_not_move_the_overall():
    values, tags, prompts = geneval_like(
        np.random.default_rng(8), (0.8, 0.3, 0.5, 0.6, 0.2, 0.1), 0.4
    )
    renamed = [tag[::-1] for tag in tags]
    assert stats.mean_of_strata(values, tags, prompts) == stats.mean_of_strata(
        values, renamed, prompts
    )


def test_seeds_matter_little_and_are_repeatable():
    values = correlated(np.random.default_rng(9), 0.5, 0.5, 100).ravel()
    prompts = [i // 4 for i in range(400)]
    first, again, other = (stats.mean(values, prompts, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.ci == pytest.approx(other.ci, abs=0.005)


def test_overall_is_the_plain_mean_of_tag_means():
    values = [1] * 10 + [0] * 90 + [1] * 10
    estimate = stats.mean_of_strata(values, ["big"] * 100 + ["small"] * 10)
    assert estimate.value == pytest.approx((0.1 + 1.0) / 2)


def test_verdicts_and_their_complement_mirror_each_other():
    for share in (0.03, 0.4):
        values = correlated(np.random.default_rng(10), share, 0.4, 80).ravel()
        prompts = [i // 4 for i in range(320)]
        estimate, mirrored = stats.mean(values, prompts), stats.mean(1 - values, prompts)
        assert [1 - mirrored.hi, 1 - mirrored.lo] == pytest.approx(estimate.ci, abs=0.005)


def test_identical_systems_differ_by_nothing_give_or_take_what_was_not_seen():
    values = correlated(np.random.default_rng(11), 0.5, 0.5, 80).ravel()
    result = stats.paired_difference(values, values, [i // 4 for i in range(320)])
    assert (result.value, result.p_value) == (0, 1)
    assert -0.05 < result.lo < 0 < result.hi < 0.05


def test_swapping_the_systems_mirrors_the_difference():
    rng = np.random.default_rng(12)
    a, b = correlated(rng, 0.6, 0.4, 100).ravel(), correlated(rng, 0.5, 0.4, 100).ravel()
    prompts = [i // 4 for i in range(400)]
    forward, backward = (
        stats.paired_difference(a, b, prompts),
        stats.paired_difference(b, a, prompts),
    )
    assert forward.value == -backward.value
    assert [-backward.hi, -backward.lo] == pytest.approx(forward.ci, abs=0.01)
    assert backward.p_value == pytest.approx(forward.p_value, abs=0.01)


def test_pairing_on_shared_prompts_is_sharper_than_two_intervals():
    rng = np.random.default_rng(13)
    chance = rng.beta(0.5, 0.5, 100)[:, None]
    a, b = ((rng.random((100, 4)) < chance).astype(float).ravel() for _ in range(2))
    prompts = [i // 4 for i in range(400)]
    paired = stats.paired_difference(a, b, prompts)
    unpaired = math.hypot(*(e.hi - e.lo for e in (stats.mean(a, prompts), stats.mean(b, prompts))))
    assert paired.hi - paired.lo < 0.7 * unpaired


def test_geneval_size_takes_well_under_a_second():
    values, tags, prompts = geneval_like(
        np.random.default_rng(14), (0.8, 0.3, 0.5, 0.6, 0.2, 0.1), 0.4
    )
    stats.mean_of_strata(
        values[:40], tags[:40], prompts[:40]
    )  # scipy's import is not what is timed
    start = time.process_time()
    stats.mean_of_strata(values, tags, prompts)
    stats.by_stratum(values, tags, prompts)
    assert time.process_time() - start < 1.0


def test_importing_statistics_does_not_import_scipy():
    code = "import sys, evals.stats; sys.exit('scipy' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_order_of_python_lists_and_arrays_does_not_matter():
    values = [random.Random(0).random() for _ in range(50)]
    assert stats.mean(values) == stats.mean(np.array(values))
