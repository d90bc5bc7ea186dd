"""Planning from a finished run: what is measured agrees with what was simulated."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from evals import power, stats
from evals.cli.main import main
from evals.errors import UsageError

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@pytest.fixture
def write_run(folder_of_scores):
    """A GenEval run whose verdicts are drawn from `chances`, (tags, prompts)."""

    def write(root, chances, rng, size=4, tags=TAGS, **options):
        values = {
            (f"{tag}-{n}", i): float(rng.random() < chances[t, n])
            for t, tag in enumerate(tags)
            for n in range(chances.shape[1])
            for i in range(size)
        }
        return folder_of_scores(root, values, task={"name": "geneval"}, groups=tags, **options)

    return write


def chances(rng, share, icc, n):
    k = (1 - icc) / icc
    return rng.beta(share * k, (1 - share) * k, (len(TAGS), n))


def test_shares_and_correlations_are_those_of_the_simulation(write_run, tmp_path):
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "a", chances(rng, 0.4, 0.3, 300), rng)
    measured = power.design_of_run(run)
    design = measured.design
    assert (measured.metric, design.n_clusters, design.cluster_size) == ("overall", (300,) * 6, 4)
    assert design.shares == pytest.approx([0.4] * 6, abs=0.06)
    assert np.mean(design.iccs) == pytest.approx(0.3, abs=0.03)
    assert measured.value == pytest.approx(np.mean(design.shares), abs=0.001)
    assert power.design_of_run(run, "colors").design.n_clusters == (300,)


@pytest.mark.parametrize(("kept", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_a_second_run_measures_how_prompts_go_together(write_run, tmp_path, kept, expected):
    rng = np.random.default_rng(1)
    first = chances(rng, 0.5, 0.5, 400)
    second = np.where(rng.random(first.shape) < kept, first, chances(rng, 0.5, 0.5, 400))
    a, b = write_run(tmp_path / "a", first, rng), write_run(tmp_path / "b", second, rng)
    assert power.correlation_of_runs(a, b) == pytest.approx(expected, abs=0.1)


def test_the_planned_power_is_what_simulated_comparisons_reach():
    """Two systems whose chances differ by 0.08 everywhere, at the size that the plan calls enough."""
    rng = np.random.default_rng(2)
    n, size, gap = 60, 4, 0.08
    design = stats.Design((n,), (0.5,), (0.25,), size, 1.0)
    planned = stats.power_of_difference(gap, design.standard_error())
    found = 0
    for seed in range(300):
        chance = rng.beta(1.5, 1.5, n)  # icc 0.25
        other = np.clip(chance - gap, 0, 1)
        a, b = ((rng.random((n, size)) < c[:, None]).astype(float).ravel() for c in (chance, other))
        result = stats.paired_difference(
            a, b, np.repeat(np.arange(n), size).tolist(), seed=seed, n_resamples=500
        )
        found += result.p_value < 0.05
    assert found / 300 == pytest.approx(planned, abs=0.08)


def test_a_tag_without_spread_is_not_taken_to_be_certain(write_run, tmp_path):
    rng = np.random.default_rng(3)
    run = write_run(tmp_path / "a", np.ones((6, 20)), rng)
    found = power.plan(power.design_of_run(run))
    assert found.detectable > 0.01 and math.isfinite(found.detectable)


def test_one_picture_a_prompt_leaves_the_correlation_to_a_guess(write_run, tmp_path):
    rng = np.random.default_rng(4)
    run = write_run(tmp_path / "a", np.full((6, 20), 0.5), rng, size=1)
    found = power.plan(power.design_of_run(run)).to_json()
    assert found["icc_is_assumed"] and found["strata"][0]["icc"] == 0.5


def test_more_comparisons_need_more(write_run, tmp_path):
    rng = np.random.default_rng(5)
    measured = power.design_of_run(write_run(tmp_path / "a", np.full((6, 20), 0.5), rng))
    one, seven = (power.plan(measured, comparisons=k) for k in (1, 7))
    assert seven.detectable > one.detectable
    assert power.plan(measured, difference=0.5).power_of_difference > 0.99


def test_what_cannot_be_planned_is_refused(write_run, tmp_path):
    rng = np.random.default_rng(6)
    run = write_run(tmp_path / "a", np.full((6, 4), 0.5), rng)
    with pytest.raises(UsageError, match="has no metric 'x'; it has overall, single_object"):
        power.design_of_run(run, "x")
    with pytest.raises(UsageError, match="says nothing about 'seen_half'"):
        power.design_of_run(run, "seen_half")
    part = write_run(tmp_path / "b", np.full((2, 4), 0.5), rng, tags=TAGS[:2])
    with pytest.raises(UsageError, match="not given: no scores for counting"):
        power.design_of_run(part)
    with pytest.raises(UsageError, match="must lie between alpha"):
        power.plan(power.design_of_run(run), power=0.04)
    unfinished = write_run(tmp_path / "c", np.full((6, 4), 0.5), rng, status="running")
    with pytest.raises(UsageError, match="is not finished"):
        power.design_of_run(unfinished)


def call(*args):
    return CliRunner().invoke(main, ["power", *map(str, args)])


def test_the_command_answers_from_numbers_alone():
    data = json.loads(call("--share", 0.8, "--difference", 0.02, "--json").stdout)
    design = stats.Design((553,), (0.8,), (0.5,), 4, 0.5)
    assert data["standard_error"] == pytest.approx(design.standard_error())
    assert data["difference"]["prompts_needed"] == math.ceil(
        553 * stats.clusters_factor(design, 0.02)
    )
    assert data["difference"]["num_images_needed"] is None
    assert [row["num_images"] for row in data["by_num_images"]] == [1, 2, 4, 8, 16, 32]
    text = call("--share", 0.8, "--difference", 0.02).stdout
    assert "or no number of pictures of these prompts alone" in text
    assert "assumed (--against RUN2 measures it)" in text


def test_the_command_answers_from_runs(write_run, tmp_path):
    rng = np.random.default_rng(7)
    first = chances(rng, 0.5, 0.5, 40)
    write_run(tmp_path / "a", first, rng)
    write_run(tmp_path / "b", first, rng)
    plain = call(tmp_path / "a", "--num-images", 8, "--prompts", 553, "--comparisons", 7)
    assert plain.exit_code == 0 and "shared by 7 comparisons" in plain.stdout
    assert "x 8 pictures" in plain.stdout
    data = json.loads(call(tmp_path / "a", "--against", tmp_path / "b", "--json").stdout)
    assert data["source"]["correlation"] == "measured" and data["correlation"] > 0.7


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--icc", "2"), "2.0 is not in the range"),
        (("--difference", "0"), "0.0 is not in the range"),
        (("--comparisons", "0"), "0 is not in the range"),
        (("--against", "b"), "need a RUN to measure on"),
        (("nowhere",), "is not a run folder"),
        (("nowhere", "--share", "0.3"), "--share is measured on nowhere"),
        (("--power", "0.01"), "must lie between alpha"),
    ],
)
def test_bad_use_ends_in_one_line(args, said):
    result = call(*args)
    assert result.exit_code == 2 and result.stdout == "" and said in result.stderr
