"""Frechet and kernel distances, precision and recall, inception score: against closed forms and torch-fidelity."""

import numpy as np
import pytest

from evals.metrics import frechet, inception_score, kernel, manifold


def features(n, d=12, seed=0, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return (np.maximum(rng.normal(size=(n, d)) @ mixing * scale + shift, 0)).astype(np.float32)


def gaussian(mean, covariance):
    return frechet.Gaussian(100, np.array(mean, dtype=float), np.array(covariance, dtype=float))


def test_frechet_distance_of_gaussians_in_closed_form():
    one = gaussian([0, 0], [[4, 0], [0, 9]])
    two = gaussian([3, 4], [[1, 0], [0, 16]])
    # |m1 - m2|^2 + sum of (s1 - s2)^2 over independent axes
    assert frechet.frechet_distance(one, two) == pytest.approx(25 + (2 - 1) ** 2 + (3 - 4) ** 2, abs=1e-12)


def test_frechet_distance_does_not_change_under_a_rotation_and_is_symmetric():
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))
    a, b = features(80), features(70, seed=1, shift=0.4)
    d = frechet.frechet_distance(frechet.moments_of(a).compute(), frechet.moments_of(b).compute())
    turned = [frechet.moments_of(x.astype(float) @ turn).compute() for x in (b, a)]
    assert frechet.frechet_distance(*turned) == pytest.approx(d, rel=1e-10)


@pytest.mark.parametrize("n", [200, 7])  # 7 pictures in 12 dimensions: covariances without full rank
def test_frechet_distance_equals_torch_fidelity(n):
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = features(n), features(n + 3, seed=1, shift=0.3)
    stats = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    ours = frechet.frechet_distance(frechet.moments_of(a).compute(), frechet.moments_of(b).compute())
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_set_has_no_distance_to_itself_even_with_fewer_pictures_than_dimensions():
    for n in (5, 300):
        g = frechet.moments_of(features(n, d=40)).compute()
        assert frechet.frechet_distance(g, g) == pytest.approx(0, abs=1e-8)


def test_batch_size_and_order_do_not_matter():
    x = features(100)
    whole = frechet.moments_of(x).compute()
    shuffled = x[np.random.default_rng(0).permutation(100)]
    parts = frechet.Moments(12)
    for start in range(0, 100, 7):
        parts.update(shuffled[start : start + 7])
    got = parts.compute()
    assert got.n == 100
    np.testing.assert_allclose(got.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(got.covariance, whole.covariance, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(x.astype(float), rowvar=False), rtol=1e-10, atol=1e-12)


def test_a_part_can_be_taken_out_again():
    x = features(60)
    rest = frechet.moments_of(x).minus(frechet.moments_of(x[:20])).compute()
    np.testing.assert_allclose(rest.covariance, np.cov(x[20:].astype(float), rowvar=False), rtol=1e-9, atol=1e-10)


def test_one_picture_and_broken_features_are_refused():
    with pytest.raises(ValueError, match="needs 2 pictures or more, there are 1"):
        frechet.moments_of(features(1)).compute()
    with pytest.raises(ValueError, match="not finite"):
        frechet.Moments(2).update(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match=r"shape \(1, 3\) do not fit 2"):
        frechet.Moments(2).update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="have no distance"):
        frechet.frechet_distance(gaussian([0], [[1]]), gaussian([0, 0], np.eye(2)))


@pytest.mark.parametrize(("size", "subsets"), [(30, 20), (50, 3)])
def test_kernel_distance_equals_torch_fidelity(size, subsets):
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = features(60), features(50, seed=1, shift=0.3)
    theirs = kid_features_to_metric(
        torch.from_numpy(a).double(), torch.from_numpy(b).double(),
        kid_subsets=subsets, kid_subset_size=size, verbose=False,
    )["kernel_inception_distance_mean"]  # fmt: skip
    assert kernel.kernel_distance(a, b, subsets, size) == pytest.approx(theirs, rel=1e-10)


def test_kernel_distance_is_unbiased():
    """Two halves of one distribution: zero on average, at 4 pictures as at 40."""
    rng = np.random.default_rng(0)
    for n in (4, 40):
        values = [kernel.unbiased_mmd2(*rng.normal(size=(2, n, 3))) for _ in range(2000)]
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(2000)


def test_kernel_distance_by_hand():
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    # k(1, 2) = 27; k(0, 1) = 1; cross: k(1, 0) = 1, k(1, 1) = 8, k(2, 0) = 1, k(2, 1) = 27
    assert kernel.unbiased_mmd2(x, y) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)
    with pytest.raises(ValueError, match="there are 1 and 2"):
        kernel.unbiased_mmd2(x[:1], y)


def test_small_sets_make_the_subsets_smaller():
    a, b = features(20), features(30, seed=1)
    assert kernel.kernel_distance(a, b, 5) == kernel.kernel_distance(a, b, 5, 20)


def test_precision_and_recall_equal_torch_fidelity(monkeypatch):
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    monkeypatch.setattr(manifold, "_BLOCK", 16)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 3)) * 1.5 + 1, rng.normal(size=(50, 3)) * 0.6
    theirs = prc_features_to_metric(torch.from_numpy(a).double(), torch.from_numpy(b).double(), verbose=False)
    precision = manifold.is_within(a, b, manifold.radii(b)).mean()
    recall = manifold.is_within(b, a, manifold.radii(a)).mean()
    assert 0.1 < precision < 0.95 and 0.1 < recall <= 0.98
    assert precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall == pytest.approx(theirs["recall"], abs=1e-6)


def test_radii_by_hand_and_for_equal_pictures():
    line = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]])
    assert manifold.radii(line).tolist() == [36, 25, 9, 25, 81]
    assert manifold.radii(np.ones((4, 2))).tolist() == [0, 0, 0, 0]
    assert manifold.is_within(np.ones((1, 2)), np.ones((4, 2)), np.zeros(4)).all()
    with pytest.raises(ValueError, match="needs 4 pictures, there are 3"):
        manifold.radii(line[:3])


def test_inception_score_equals_torch_fidelity():
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = np.random.default_rng(5).normal(size=(103, 7)) * 3
    theirs = isc_features_to_metric(torch.from_numpy(logits))
    assert inception_score.inception_score(logits) == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    assert inception_score.scores_of_parts(logits).std() == pytest.approx(theirs["inception_score_std"], rel=1e-8)


def test_inception_score_of_sure_and_varied_answers_is_the_number_of_classes():
    sure = np.tile(1000 * np.eye(4), (5, 1))
    assert inception_score.inception_score(sure, splits=1) == pytest.approx(4)
    assert inception_score.inception_score(np.zeros((20, 4))) == pytest.approx(1)
    with pytest.raises(ValueError, match="there are 9"):
        inception_score.inception_score(np.zeros((9, 4)))
