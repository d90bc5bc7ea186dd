"""The page of a sweep: its figures against the run folders, what is missing, and what readers see in Chromium."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.io.files import write_json
from evals.results import load
from evals.sweeps.folder import State, SweepFolder, read_json, write_state
from reports import sweep_data as sweep_data_module
from reports.sweep import build
from reports.sweep_compute import compute_section
from reports.sweep_curves import is_same_prompts, pareto_front, pooled
from reports.sweep_data import SweepData

BASE = "target=clip,objective=flow,schedule=sequential"


@pytest.fixture(scope="module", autouse=True)
def few_curves():
    """Headlines only: drawing is most of a page's time. The browser tests have a page with all."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep_data_module, "MAX_CURVES", 3)
        yield


@pytest.fixture(scope="module")
def sweep_data(sweep) -> SweepData:
    return SweepData(sweep)


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory) -> Path:
    return build(sweep, tmp_path_factory.mktemp("page") / "sweep.html")


def files_of(page: Path) -> dict[str, str]:
    """The files that the page carries: name -> text."""
    text = page.read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="files">(.*?)</script>', text, re.DOTALL)
    return {name: file["text"] for name, file in json.loads(block[1]).items()}


def rows_of(page: Path, end: str) -> list[dict[str, str]]:
    (name,) = [n for n in files_of(page) if n.endswith(end)]
    return list(csv.DictReader(io.StringIO(files_of(page)[name])))


def test_the_grid_holds_the_means_of_the_run_folders(sweep, page):
    folder = SweepFolder(sweep)
    for row in rows_of(page, "-table.csv"):
        task, _, metric = row["metric"].partition("/")
        if task == "fid_stickers":
            continue
        points = folder.sweep()["cells"][row["cell"]]
        values = [load(folder.eval_folder(p, "final", task)).results["metrics"][metric]["value"] for p in points]
        assert float(row["value"]) == pytest.approx(sum(values) / 2, abs=1e-12)
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
        assert row["seeds"] == "0 1"


def test_the_effect_of_an_axis_is_the_mean_of_its_pairs(sweep, page):
    table = {(r["cell"], r["metric"]): float(r["value"]) for r in rows_of(page, "-table.csv")}
    effects = {(r["axis"], r["metric"]): r for r in rows_of(page, "-effects.csv")}
    metric = "geneval/overall"
    pairs = [
        table[f"target=vae,objective=flow,schedule={s}", metric]
        - table[f"target=clip,objective=flow,schedule={s}", metric]
        for s in ("sequential", "joint")
    ]
    assert float(effects["target", metric]["effect"]) == pytest.approx(sum(pairs) / 2)
    assert effects["target", metric]["pairs_of_cells"] == "2"
    assert effects["schedule", metric]["pairs_of_cells"] == "3"
    kid = effects["target", "fid_stickers/kid-stickers"]
    assert kid["method"] == "t over seeds" and float(kid["effect"]) > 0


def test_each_family_of_tests_is_corrected_for_itself(page):
    from evals.stats import holm

    effects = [r for r in rows_of(page, "-effects.csv") if r["p"]]
    heads = {"geneval/overall", "vqa_stickers/accuracy", "fid_stickers/kid-stickers"}
    for family in (True, False):
        rows = [r for r in effects if (r["metric"] in heads) == family]
        assert [float(r["p_holm"]) for r in rows] == pytest.approx(holm([float(r["p"]) for r in rows]))


def test_curves_are_means_over_seeds_with_their_range(sweep, sweep_data):
    cell = next(c for c in sweep_data.cells if c.id == BASE)
    metric = "geneval/overall"
    points = pooled(sweep_data, cell, metric)
    assert [p.step for p in points] == [200, 400] and points[1].is_final
    rows = [[r.metrics[metric].value for r in SweepFolder(sweep).curve(i)] for i in cell.points]
    for i, point in enumerate(points):
        values = [row[i] for row in rows]
        assert point.value == pytest.approx(sum(values) / 2)
        assert (point.low, point.high) == (min(values), max(values))
    assert points[0].seconds == pytest.approx(300 + 1.1 * 200)  # the shared stage counts whole
    assert is_same_prompts(sweep_data, metric)


def test_a_seed_that_is_not_finished_does_not_bend_a_curve(sweep_copy, sweeps):
    point = f"{BASE},seed=1"
    sweeps.set_state(sweep_copy, point, "running")
    data = SweepData(sweep_copy)
    cell = next(c for c in data.cells if c.id == BASE)
    assert {p.seeds for p in pooled(data, cell, "geneval/overall")} == {(0,)}
    sweeps.set_state(sweep_copy, f"{BASE},seed=0", "failed", "no memory")
    data = SweepData(sweep_copy)
    both = pooled(data, next(c for c in data.cells if c.id == BASE), "geneval/overall")
    assert [(p.step, p.seeds) for p in both] == [(200, (0, 1))]  # none is finished: as far as both got


def test_the_front_holds_what_nothing_else_beats():
    assert pareto_front([(0, 3), (1, 1), (2, 2), (3, 0), (2, 1)]) == [0, 2, 3]
    assert pareto_front([(1, 1)]) == [0]
    assert pareto_front([(1, 1), (1, 1), (0, 0)]) == [0, 1]


def test_failed_running_skipped_and_damaged_points_are_said_and_left_out(sweep_copy, sweeps, tmp_path):
    ids = SweepFolder(sweep_copy).point_ids()
    sweeps.set_state(sweep_copy, ids[1], "failed", "loss is not a number at step 57 </script>")
    sweeps.set_state(sweep_copy, ids[3], "running")
    sweeps.set_state(sweep_copy, ids[5], "skipped", "the sweep stops at the first failure")
    (sweep_copy / "points" / ids[7] / "result.json").write_text('{"metrics": {')
    (sweep_copy / "points" / ids[9] / "point.json").write_text("")
    page = build(sweep_copy)
    text = page.read_text(encoding="utf-8")
    for said in ("1 of 12 points are not finished", "1 failed", "1 skipped", "Damaged points", "Unequal seeds",
                 "loss is not a number at step 57 &lt;/script&gt;", "point.json"):  # fmt: skip
        assert said in text, said
    assert str(tmp_path) not in text  # no folder of this machine
    rows = {(r["cell"], r["metric"]): r for r in rows_of(page, "-table.csv")}
    folder = SweepFolder(sweep_copy)
    for n in (1, 3, 5, 7, 9):
        cell, point = ids[n].rpartition(",")[0], ids[n - 1]
        value = load(folder.eval_folder(point, "final", "geneval")).results["metrics"]["overall"]["value"]
        assert float(rows[cell, "geneval/overall"]["value"]) == pytest.approx(value)
        assert rows[cell, "geneval/overall"]["seeds"] == "0"


def test_a_sweep_of_which_nothing_is_finished_has_a_page_without_figures(sweep_copy, sweeps):
    for point in SweepFolder(sweep_copy).point_ids():
        sweeps.set_state(sweep_copy, point, "pending")
    text = build(sweep_copy).read_text(encoding="utf-8")
    assert "None of 12 points has a result yet" in text and "No point is finished" in text and 'id="curves"' not in text


def test_one_point(templates, sweeps, tmp_path):
    root = sweeps.make_sweep(
        tmp_path / "one",
        sweeps.Wanted(templates, cells=sweeps.CELLS[:1], seeds=(0,), checkpoints=(), set_figures=False),
    )
    text = build(root).read_text(encoding="utf-8")
    assert "One seed" in text and "trained once" in text
    assert 'id="effects"' not in text and 'id="differences"' not in text


def test_arithmetic_stands_by_cell_and_by_stage(sweep, sweep_copy, page):
    cells = {row["cell"]: row for row in rows_of(page, "-compute.csv")}
    sequential, joint = cells["clip, flow, sequential"], cells["clip, flow, joint"]
    assert float(sequential["flops"]) == pytest.approx(5.01e14)  # mean over seeds 0 and 1
    assert float(sequential["flops_understanding"]) == 3e14 and float(joint["flops"]) == pytest.approx(2.01e14)
    stages = {row["stage"]: row for row in rows_of(page, "-stages.csv")}
    assert {row["status"] for row in stages.values()} == {"done"}
    assert {float(r["flops"]) for r in stages.values() if r["name"] == "understanding"} == {3e14}
    assert "201 TFLOP to 501 TFLOP" in page.read_text()
    shutil.rmtree(sweep_copy / "stages")  # a copy without its stages: nothing is claimed
    section = compute_section(SweepData(sweep_copy))
    assert section["phases"] == [] and not any("arithmetic" in row["name"] for row in section["matched"])


def test_a_stage_that_runs_is_shown_before_any_point_is_finished(sweep_copy, sweeps):
    folder = SweepFolder(sweep_copy)
    for point in folder.point_ids():
        sweeps.set_state(sweep_copy, point, "pending")
    shared = next(stage for stage, users in folder.stage_users().items() if len(users) > 1)
    (folder.stage_folder(shared) / "result.json").unlink(missing_ok=True)
    write_state(folder.stage_folder(shared), State("running", 1, doing="train understanding, step 3 of 9"))
    sweep = read_json(sweep_copy / "sweep.json")
    write_json(sweep_copy / "sweep.json", {**sweep, "description": "Runs `a < b`, and \u0060x.\n"})
    text = build(sweep_copy).read_text()
    assert "train understanding, step 3 of 9" in text
    assert "Runs <code>a &lt; b</code>, and `x. <strong>" in text


def test_an_axis_of_numbers_and_one_seed_without_training(templates, sweeps, tmp_path):
    cells = [{"guidance_scale": scale} for scale in (1, 1.5, 3, 5)]
    root = sweeps.make_sweep(
        tmp_path / "guidance",
        sweeps.Wanted(
            {"geneval": templates["geneval"]}, cells=cells, seeds=(7,), checkpoints=(), set_figures=False, ceiling=False
        ),
    )
    page = build(root)
    text = page.read_text(encoding="utf-8")
    assert "along guidance scale" in text and 'id="pareto"' not in text
    effects = rows_of(page, "-effects.csv")
    assert {r["to"] for r in effects} == {"1.5", "3", "5"} and all(r["p"] for r in effects)
    assert "Two finished seeds" in text  # what a difference needs cannot be told


def test_damaged_scores_missing_pictures_and_hostile_texts(sweep_copy):
    points = sorted((sweep_copy / "points").iterdir())
    (points[0] / "eval/final/geneval/scores.jsonl").write_text("{ torn\n")
    shutil.rmtree(points[1] / "eval/final/geneval/images")
    shutil.rmtree(points[2] / "eval")
    evil = "</script><img src=x onerror=alert(1)>{{7*7}}"
    sweep = read_json(sweep_copy / "sweep.json")
    sweep["description"], sweep["left_out"] = evil, {evil: evil}
    write_json(sweep_copy / "sweep.json", sweep)
    text = build(sweep_copy).read_text(encoding="utf-8")
    assert "scores.jsonl" in text and "picture files are missing or damaged" in text
    assert "<img src=x" not in text and "{{7*7}}" in text and "&lt;/script&gt;" in text


def test_no_sweep_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="sweep.json"):
        build(tmp_path)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        build(tmp_path)


def test_everything_is_inside_the_page(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "default-src &#39;none&#39;" in text
    names = set(files_of(page))
    for file in re.findall(r'data-csv="([^"]+)"', text):
        assert file in names, file


def test_a_sweep_without_training_has_a_page(sweep_copy):
    definition = read_json(sweep_copy / "sweep.json")
    definition["definition"]["base"]["train"], definition["stages"] = None, {}
    write_json(sweep_copy / "sweep.json", definition)
    shutil.rmtree(sweep_copy / "stages")
    for path in sweep_copy.glob("points/*/point.json"):
        write_json(path, {**read_json(path), "stages": []})
    text = build(sweep_copy).read_text(encoding="utf-8")
    assert "Contact sheets" in text and "Over training" not in text
