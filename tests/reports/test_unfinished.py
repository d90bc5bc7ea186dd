import json
import re

import pytest

from evals.io.jsonl import read_rows
from evals.results import load
from reports.html import write_report
from reports.unfinished import load_any


def rows_of(path):
    return list(read_rows(path))


def write_rows(path, rows, end=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


@pytest.fixture
def unfinished(run_copy):
    """A run that was killed: 40 of 60 outputs, 30 of them scored, the last line torn."""
    (run_copy / "results.json").unlink()
    manifest = json.loads((run_copy / "manifest.json").read_text())
    manifest.pop("content_sha256", None)
    manifest["status"] = "running"
    (run_copy / "manifest.json").write_text(json.dumps(manifest))
    for name, n in (("outputs.jsonl", 40), ("scores.jsonl", 30)):
        write_rows(run_copy / name, rows_of(run_copy / name)[:n], end='{"sample_id": "00')
    return run_copy


def test_a_killed_run_gets_a_page_that_says_so_first(unfinished, tmp_path):
    text = write_report(unfinished, tmp_path / "r.html").read_text()
    words = re.sub(r"<[^>]+>", "", text)
    assert text.index("banner stop") < text.index("Unfinished run") < text.index('id="results"')
    scored = sum(r["value"] is not None for r in load_any(unfinished).scores())
    assert f"40 of 60 outputs were made and {scored} scored" in words
    assert "No overall figure is given" in words
    assert "data-headline" not in text and 'data-metric="overall"' not in text


def test_group_means_so_far_are_those_of_the_scores_that_are_there(unfinished):
    run = load_any(unfinished)
    assert not run.is_finished
    by_group = {}
    for row in run.scores():
        by_group.setdefault(row["group"], []).append(row["value"])
    for metric in run.metric_values():
        scored = [v for v in by_group.get(metric.name, []) if v is not None]
        assert metric.n == len(scored)
        assert metric.value == (pytest.approx(sum(scored) / len(scored)) if scored else None)
        assert "so far" in metric.note


def test_shards_are_read_together_and_nothing_twice(unfinished):
    rows = rows_of_torn(unfinished / "outputs.jsonl")
    (unfinished / "outputs.jsonl").unlink()
    write_rows(unfinished / "outputs.0-of-2.jsonl", rows[:25])
    write_rows(unfinished / "outputs.1-of-2.jsonl", rows[20:40])
    run = load_any(unfinished)
    keys = [(r["sample_id"], r["image_index"]) for r in run.outputs()]
    assert len(keys) == len(set(keys)) == 40


def rows_of_torn(path):
    return [json.loads(line) for line in path.read_text().splitlines()[:-1]]


def test_a_run_that_has_only_begun_has_a_page(unfinished, tmp_path):
    (unfinished / "outputs.jsonl").unlink()
    (unfinished / "scores.jsonl").unlink()
    text = write_report(unfinished, tmp_path / "r.html").read_text()
    assert "0 of 60 outputs were made and 0 scored" in text


def test_it_may_stand_beside_a_finished_one(unfinished, small_run, tmp_path):
    text = write_report([small_run, unfinished], tmp_path / "r.html").read_text()
    assert "Unfinished run" in text and "not finished:" in text
    assert load(small_run).is_finished


def test_nothing_scored_is_said_and_no_figure_is_shown(run_copy, tmp_path):
    rows = rows_of(run_copy / "scores.jsonl")
    for row in rows:
        row.update(value=None, reason="", details={}, unscored="the judge died")
    write_rows(run_copy / "scores.jsonl", rows)
    results = json.loads((run_copy / "results.json").read_text())
    results.pop("content_sha256", None)
    results["counts"].update(scored=0, unscored=60)
    for metric in results["metrics"].values():
        metric.update(value=None, ci95=None, n=0, note="nothing was scored")
    (run_copy / "results.json").write_text(json.dumps(results))
    text = write_report(run_copy, tmp_path / "r.html").read_text()
    assert "Nothing was scored" in text
    assert text.index("Nothing was scored") < text.index('id="results"')
