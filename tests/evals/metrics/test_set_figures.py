"""Figures of two sets: names, intervals, caveats, and what small sets give."""

from dataclasses import replace

import numpy as np
import pytest

from evals.metrics import frechet, kernel, manifold
from evals.metrics.features import Recipe, collect
from evals.metrics.set_figures import (
    PictureSet,
    all_figures,
    frechet_figure,
    inception_score_figure,
    kernel_figure,
    name_of,
    recall_figure,
)

D = 4
RECIPE = Recipe("stickers", D, "clean", 8, "ab" * 32)


def reference(n=400, seed=1):
    values = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return collect([(values, [""] * n)], RECIPE, "real", "")


def pictures(n=200, seed=0, shift=0.0, per_prompt=1):
    values = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32) + np.float32(shift)
    return PictureSet(values, np.arange(n) // per_prompt)


def test_names_say_features_and_resize():
    assert name_of("kid", RECIPE) == "kid-stickers"
    assert name_of("fd", replace(RECIPE, features="effnetlite0", resize="legacy")) == "fd-effnetlite0-legacy"
    inception = replace(RECIPE, features="inception")
    assert [name_of(f, inception) for f in ("fd", "kid")] == ["fid-clean", "kid-clean"]
    assert name_of("fd", replace(inception, resize="legacy")) == "fid-legacy"


def test_values_are_those_of_the_estimators():
    found, other = pictures(shift=0.5), reference()
    figures = {figure.name: figure for figure in all_figures(found, other)}
    assert list(figures) == ["fd-stickers", "kid-stickers", "precision-stickers", "recall-stickers"]
    expected = frechet.frechet_distance(
        frechet.moments_of(found.features).compute(), frechet.moments_of(other.features).compute()
    )
    assert figures["fd-stickers"].value == pytest.approx(expected, rel=1e-9)
    assert figures["kid-stickers"].value == kernel.kernel_distance(found.features, other.features)
    within = manifold.is_within(found.features, other.features, manifold.radii(other.features))
    assert figures["precision-stickers"].value == pytest.approx(within.mean())
    for figure in figures.values():
        assert figure.ci95 is None or figure.ci95[0] <= figure.value <= figure.ci95[1]


def test_the_distance_warns_of_few_pictures():
    figure = frechet_figure(pictures(), reference())
    assert "200 pictures against 400: biased upwards" in figure.note


@pytest.mark.parametrize("figure", [frechet_figure, kernel_figure])
def test_intervals_cover_the_expected_value_about_as_often_as_they_say(figure):
    """Expectation over sets of this size, against one fixed reference; 200 sets, so 95 % is 0.915 to 0.985."""
    other = reference(300)
    found = [figure(pictures(120, seed=s + 10, shift=0.3), other) for s in range(120)]
    expected = np.mean([f.value for f in found])
    covered = np.mean([f.ci95[0] <= expected <= f.ci95[1] for f in found])
    assert covered >= 0.9


@pytest.mark.parametrize("figure", [frechet_figure, kernel_figure])
def test_the_bootstrap_covers_as_often_and_lies_around_the_value(figure):
    """Percentiles of the draws themselves would lie above the value: repeats move a set away."""
    other = reference(200)
    found = [figure(pictures(60, seed=s + 10, shift=0.3), other, draws=100) for s in range(40)]
    expected = np.mean([f.value for f in found])
    assert np.mean([f.ci95[0] <= expected <= f.ci95[1] for f in found]) >= 0.85  # 40 sets: two sd below 0.95 is 0.88
    assert all(f.ci95[0] < f.value < f.ci95[1] and f.method == "centred bootstrap" for f in found)
    once = figure(pictures(100, shift=0.3), other, draws=100)
    assert once.ci95 == figure(pictures(100, shift=0.3), other, draws=100).ci95
    four = PictureSet(np.repeat(pictures(100, shift=0.3).features, 4, axis=0), np.repeat(np.arange(100), 4))
    width = np.diff(figure(four, other, draws=100).ci95)[0]
    assert width == pytest.approx(np.diff(once.ci95)[0], rel=0.5)  # prompts are drawn, not pictures


def test_intervals_keep_the_pictures_of_a_prompt_together():
    """Four copies of each picture say no more than one."""
    other, one = reference(), pictures(100, shift=0.3)
    copies = PictureSet(np.repeat(one.features, 4, axis=0), np.repeat(one.clusters, 4))
    width = [np.diff(frechet_figure(found, other).ci95)[0] for found in (one, copies)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_small_and_empty_sets_have_decided_answers():
    other = reference()
    few = frechet_figure(pictures(10), other)
    assert few.value > 0 and few.ci95 is None
    one = pictures(1)
    assert frechet_figure(one, other).value is None
    assert "needs 2 pictures or more, there are 1" in frechet_figure(one, other).note
    assert "needs 2 pictures" in kernel_figure(one, other).note
    assert "needs 4 pictures, there are 1" in recall_figure(one, other).note
    assert "there are 0" in frechet_figure(pictures(0), other).note


def test_inception_score_needs_logits():
    found, other = pictures(), reference()
    assert inception_score_figure(found, other) is None
    sure = replace(found, logits=100 * np.eye(4)[np.arange(200) % 4])
    figure = inception_score_figure(sure, other)
    assert 3.5 < figure.value <= 4 and figure.higher_is_better
