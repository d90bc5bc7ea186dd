import json
import math

import pytest

from evals import comparison, stats
from evals.errors import UsageError
from evals.results import load

GROUPS = ("cats", "dogs")


def write_run(root, values, *, model="nano", judge=None, metrics=None, **task):
    """A run folder with `values`: (sample id, index) -> value or None; ids start with their group."""
    root.mkdir()
    names = {"name": "geneval", "version": "1", "prompts_sha256": "p", "groups": list(GROUPS)}
    manifest = {
        "schema": 1,
        "status": "finished",
        "config_sha256": model * 8,
        "fingerprint": {"model.name": model, "seed": 42},
        "task": {**names, **task},
        "model": {"name": model},
        "judge": judge,
    }
    rows = [
        {"sample_id": s, "image_index": i, "group": s.split("-")[0], "value": v}
        | ({} if v is not None else {"unscored": "judge failed"})
        for (s, i), v in values.items()
    ]
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if metrics is None:
        means = []
        for group in GROUPS:
            scored = [r["value"] for r in rows if r["group"] == group and r["value"] is not None]
            means.append(sum(scored) / len(scored) if scored else math.nan)
        value = sum(means) / len(means)
        metrics = {"overall": None if math.isnan(value) else value}
    figures = {
        name: {"value": v, "n": len(rows), "unscored": 0, "unit": "fraction", "higher_is_better": True}
        for name, v in metrics.items()
    }  # fmt: skip
    (root / "results.json").write_text(json.dumps({"metrics": figures}))
    return load(root)


def grid(change=lambda key, value: value):
    """20 cat prompts and 5 dog prompts, two pictures each: unequal groups, so that means of means differ."""
    names = [f"{g}-{n:02d}" for g, size in (("cats", 20), ("dogs", 5)) for n in range(size)]
    keys = [(name, i) for name in names for i in (0, 1)]
    return {k: change(k, float((int(k[0][-2:]) + k[1]) % 3 == 0)) for k in keys}


def test_a_run_against_itself_differs_by_nothing(tmp_path):
    run = write_run(tmp_path / "a", grid())
    (found,) = comparison.paired_comparisons([run, run])
    assert [row.name for row in found.rows] == ["overall", *GROUPS]
    assert {row.paired.value for row in found.rows} == {0.0}
    assert {row.p_adjusted for row in found.rows} == {1.0}


def test_the_headline_difference_is_that_of_the_headlines(tmp_path):
    a = write_run(tmp_path / "a", grid())
    b = write_run(
        tmp_path / "b", grid(lambda k, v: 1.0 if k[0].startswith("dogs") else v), model="b"
    )
    (found,) = comparison.paired_comparisons([a, b])
    overall = found.rows[0]
    expected = b.metric_values()[0].value - a.metric_values()[0].value
    assert overall.paired.value == pytest.approx(expected, abs=1e-12)
    assert overall.paired.value > 0 and overall.p_adjusted >= overall.paired.p_value


def test_only_outputs_scored_in_both_runs_are_compared(tmp_path):
    a = write_run(tmp_path / "a", grid(lambda k, v: None if k == ("cats-00", 0) else v))
    b = write_run(tmp_path / "b", grid(lambda k, v: None if k == ("dogs-01", 1) else v), model="b")
    (found,) = comparison.paired_comparisons([a, b])
    assert {row.name: row.paired.n for row in found.rows} == {"overall": 48, "cats": 39, "dogs": 9}


def test_adjustment_counts_every_row_of_every_run(tmp_path):
    runs = [write_run(tmp_path / "a", grid())]
    for n in (3, 7):
        worse = grid(lambda k, v, n=n: v if int(k[0][-2:]) % n else 0.0)
        runs.append(write_run(tmp_path / str(n), worse, model=f"m{n}"))
    rows = [row for found in comparison.paired_comparisons(runs) for row in found.rows]
    assert [row.p_adjusted for row in rows] == stats.holm(row.paired.p_value for row in rows)
    assert len(rows) == 6


def test_a_headline_that_is_no_mean_of_the_scores_is_left_out(tmp_path):
    run = write_run(tmp_path / "a", grid(), metrics={"perception": 1500.0})
    (found,) = comparison.paired_comparisons([run, run])
    assert [row.name for row in found.rows] == list(GROUPS)


def test_a_pooled_headline_is_compared_pooled(tmp_path):
    values = grid()
    pooled = sum(values.values()) / len(values)
    run = write_run(tmp_path / "a", values, metrics={"accuracy": pooled})
    better = grid(lambda k, v: 1.0 if k[0].startswith("dogs") else v)
    other = write_run(tmp_path / "b", better, model="b")
    (found,) = comparison.paired_comparisons([run, other])
    assert found.rows[0].name == "accuracy"
    expected = sum(better.values()) / len(better) - pooled
    assert found.rows[0].paired.value == pytest.approx(expected)


def test_nothing_shared_gives_no_rows(tmp_path):
    a = write_run(tmp_path / "a", {("cats-00", 0): 1.0})
    b = write_run(tmp_path / "b", {("cats-01", 0): 1.0}, model="b")
    (found,) = comparison.paired_comparisons([a, b])
    assert (found.name, found.rows) == ("b", ())


def test_what_does_not_compare_is_named(tmp_path):
    judge = {"name": "stickers", "version": "1", "weights_sha256": "a" * 64}
    a = write_run(tmp_path / "a", grid(), judge=judge)
    b = write_run(tmp_path / "b", grid(), judge=judge | {"weights_sha256": "b" * 64})
    with pytest.raises(UsageError, match=r"judge: stickers 1 \(a{12}\) and stickers 1 \(b{12}\)"):
        comparison.check_comparable([a, b])
    c = write_run(tmp_path / "c", grid(), judge=judge, name="dpg", prompts_sha256="q")
    with pytest.raises(UsageError, match="task: geneval and dpg; prompts: p and q"):
        comparison.check_comparable([a, c])
    comparison.check_comparable([a, a])


def test_equal_names_are_told_apart_and_settings_that_differ_are_listed(tmp_path):
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), model="big")
    assert comparison.run_names([a, b]) == ["nano", "big"]
    assert comparison.run_names([a, a]) == ["nano nanonano", "nano nanonano (2)"]
    assert comparison.differing_settings([a, b]) == [("model.name", ["nano", "big"])]
