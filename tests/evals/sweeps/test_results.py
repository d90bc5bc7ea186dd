"""The table: pooled over seeds, compared with the baseline, and equal to what the harness says of each run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals import comparison
from evals.cli.main import main
from evals.errors import InputError, UnknownNameError
from evals.results import RunData, load
from evals.sweeps.folder import (
    Figure,
    SweepFolder,
    read_result,
    read_state,
    write_result,
    write_state,
)
from evals.sweeps.results import ONE_SEED, build, write_csv
from evals.sweeps.text import lines

GOOD, BAD = "model=dummy-size-16", "model=dummy-size-17"


@pytest.fixture(scope="module")
def folder(swept, tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Two models, two seeds, evaluated only."""
    root = tmp_path_factory.mktemp("sweep") / "s"
    axes = {"run.model": ["dummy:size=16", "dummy:size=17"]}
    swept(root, train=None, run={"limit": 12}, axes=axes, seeds=[0, 1], metrics=["geneval", "geneval/colors"])
    return SweepFolder(root)


@pytest.fixture
def copy(folder: SweepFolder, tmp_path: Path) -> SweepFolder:
    return SweepFolder(Path(shutil.copytree(folder.root, tmp_path / "s")))


@pytest.fixture
def run_of(folder: SweepFolder) -> Callable[..., RunData]:
    return lambda cell, seed: load(folder.eval_folder(f"{cell},seed={seed}", "final", "geneval"))


def test_values_are_means_over_seeds_and_differences_means_of_paired_differences(folder, run_of) -> None:
    table = build(folder)
    assert table.metrics == ("geneval/overall", "geneval/colors") and table.baseline == GOOD
    for name in ("overall", "colors"):
        first, second = table.of(f"geneval/{name}")
        values = [[run_of(cell, s).results["metrics"][name]["value"] for s in (0, 1)] for cell in (GOOD, BAD)]
        assert (first.value, second.value) == pytest.approx((sum(values[0]) / 2, sum(values[1]) / 2))
        assert first.difference is None and first.p_value is None
        single = [comparison.compare([run_of(GOOD, s), run_of(BAD, s)], only=[name]) for s in (0, 1)]
        parts = [one.against[0].rows[0].difference for one in single]
        assert second.difference == pytest.approx(sum(parts) / 2)
        assert second.ci_low <= second.value <= second.ci_high and second.method.endswith("+seeds")
        assert second.difference_low <= second.difference <= second.difference_high
        assert second.seeds == second.paired_seeds == (0, 1)
    assert table.is_test_double
    tested = [row for row in table.rows if row.p_value is not None]
    assert len(tested) == 2 and all(row.p_holm >= row.p_value for row in tested)


def test_one_seed_gives_the_harness_own_interval_and_says_what_it_leaves_out(copy, run_of) -> None:
    for cell in (GOOD, BAD):
        point = copy.point_folder(f"{cell},seed=1")
        write_state(point, replace(read_state(point), status="failed", error="no luck"))
    table = build(copy)
    _, row = table.of("geneval/overall")
    metric = run_of(BAD, 0).results["metrics"]["overall"]
    assert (row.value, [row.ci_low, row.ci_high], row.n) == (metric["value"], metric["ci95"], metric["n"])
    own = comparison.compare([run_of(GOOD, 0), run_of(BAD, 0)], only=["overall"]).against[0].rows[0]
    found = (row.difference, (row.difference_low, row.difference_high), row.p_value)
    assert found == (own.difference, own.ci95, own.p_value)
    assert ONE_SEED in table.notes and "2 of 4 points are missing here, 2 of them failed" in table.notes
    assert any("failed: model=dummy-size-17,seed=1: no luck" in line for line in lines(table))


def test_cells_without_a_common_seed_have_no_difference(copy) -> None:
    for point in (f"{GOOD},seed=0", f"{BAD},seed=1"):
        write_state(copy.point_folder(point), replace(read_state(copy.point_folder(point)), status="pending"))
    _, row = build(copy).of("geneval/overall")
    assert row.value is not None and row.difference is None
    assert row.difference_note == "the baseline has no finished seed in common"


def test_an_unfinished_cell_says_so(copy) -> None:
    for seed in (0, 1):
        write_state(copy.point_folder(f"{BAD},seed={seed}"), read_state(Path("nowhere")))
    first, row = build(copy).of("geneval/overall")
    assert first.value is not None and row.value is None and row.note == "not there yet"
    assert "-" in lines(build(copy))[5]


def test_figures_that_are_no_means_get_students_t_over_seeds(copy) -> None:
    values = {f"{GOOD},seed=0": 10.0, f"{GOOD},seed=1": 12.0, f"{BAD},seed=0": 15.0, f"{BAD},seed=1": 18.0}
    for point, value in values.items():
        result = read_result(copy.point_folder(point))
        figure = Figure(value, None, None, 48, "distance", False)
        write_result(copy.point_folder(point), replace(result, metrics={**result.metrics, "geneval/fid": figure}))
    first, row = build(copy, ["geneval/fid"]).of("geneval/fid")
    assert (first.value, row.value, row.difference) == (11.0, 16.5, 5.5)
    half = 12.706204736 * 0.5  # t of one degree of freedom times the standard error of (5, 6)
    assert (row.difference_low, row.difference_high) == pytest.approx((5.5 - half, 5.5 + half))
    assert row.p_value == pytest.approx(0.0577158, abs=1e-6) and not row.higher_is_better


def test_the_csv_has_a_line_per_cell_and_metric_and_pandas_the_same(folder) -> None:
    table = build(folder)
    write_csv(table)
    with open(folder.root / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["cell"], r["metric"]) for r in rows] == [(r.cell, r.metric) for r in table.rows]
    assert float(rows[1]["difference"]) == table.rows[1].difference and rows[0]["seeds"] == "0 1"
    frame = table.to_pandas()
    assert list(frame.columns) == list(rows[0]) and len(frame) == 4
    assert frame["value"].tolist() == [row.value for row in table.rows]
    assert json.loads(json.dumps(table.to_json(), allow_nan=False))["correction"] == {"method": "holm", "tests": 2}


def test_unknown_metrics_and_folders(folder, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown metric 'geneval/overal'. Did you mean: geneval/overall"):
        build(folder, ["geneval/overal"])
    with pytest.raises(InputError, match="is not a sweep folder: there is no sweep.json"):
        build(SweepFolder(tmp_path))


def test_compare_and_report_take_a_sweep(folder, run_of, tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["compare", str(folder.root), "--metric", "geneval/colors"])
    assert told.exit_code == 0 and "geneval/colors (fraction)" in told.stdout and "TEST DOUBLE" in told.stdout
    assert "geneval/overall" not in told.stdout
    body = json.loads(CliRunner().invoke(main, ["compare", str(folder.root), "--json"]).stdout)
    assert [row["cell"] for row in body["rows"]] == [GOOD, BAD] * 2
    both = CliRunner().invoke(main, ["compare", str(folder.root), str(run_of(GOOD, 0).root)])
    assert both.exit_code == 2 and "is a sweep, which has a baseline of its own: give it alone" in both.stderr


def test_status_tells_where_each_point_stands(copy) -> None:
    point = copy.point_folder(f"{BAD},seed=1")
    write_state(point, replace(read_state(point), status="running", doing="train", progress=0.4))
    told = CliRunner().invoke(main, ["sweep", "status", str(copy.root)])
    assert told.exit_code == 0
    assert "interrupted   model=dummy-size-17,seed=1" in told.stdout
    assert "4 points: 3 done, 1 interrupted; nobody works on it" in told.stdout
    rows = CliRunner().invoke(main, ["sweep", "status", str(copy.root), "--json"]).stdout.splitlines()
    assert [json.loads(row)["status"] for row in rows] == ["done"] * 3 + ["interrupted"]
