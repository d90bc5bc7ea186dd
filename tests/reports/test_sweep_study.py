"""A sweep's answers: seeds and prompts apart, verdicts by the rule, the results file, and documents written from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evals.api import Terms
from evals.errors import InputError
from evals.io.files import write_json
from evals.sweeps.folder import Figure, PointResult, SweepFolder, read_json
from evals.sweeps.table import Cell, Row, SweepTable
from reports.sweep_blocks import BLOCKS
from reports.sweep_export import export
from reports.sweep_markdown import fill, filled, write_results
from reports.sweep_stats import Study
from reports.verdicts import agreement, verdict

DOCS = Path(__file__).resolve().parents[2] / "docs"
AXES = {"target": ["clip", "vae"], "objective": ["flow", "mse"], "schedule": ["sequential", "joint"]}
DESIGNS = [(t, o, s) for t, o in (("clip", "flow"), ("clip", "mse"), ("vae", "flow")) for s in AXES["schedule"]]


@pytest.fixture(scope="module")
def results(sweep) -> dict:
    return export(sweep)


@pytest.fixture
def small_sweep(templates, sweeps, tmp_path) -> Path:
    """Sequential and joint training of one design, two seeds each."""
    wanted = sweeps.Wanted(templates, cells=sweeps.CELLS[:2], seeds=(0, 1), checkpoints=(), set_figures=False)
    root = sweeps.make_sweep(tmp_path / "small", wanted)
    definition = read_json(root / "sweep.json")
    write_json(root / "sweep.json", definition | {"metrics": ["geneval/overall", "vqa_stickers/accuracy"]})
    return root


def study_page(folder: Path) -> Path:
    """The repository's page for a sweep that was not judged on dense prompts."""
    page = folder / "study.md"
    text = (DOCS / "study.md").read_text(encoding="utf-8")
    page.write_text(text.replace(" dpg_stickers-overall=worse", ""), encoding="utf-8")
    return page


# -- figures ----------------------------------------------------------------------------------------


def test_intervals_over_seeds_are_students_over_the_run_folders_values(sweep, results):
    from scipy.stats import t

    folder = SweepFolder(sweep)
    for cell in results["cells"]:
        points = folder.sweep()["cells"][",".join(f"{k}={v}" for k, v in cell["values"].items())]
        values = [folder.result(p).metrics["geneval/overall"].value for p in points]
        figure = cell["figures"]["geneval/overall"]
        assert figure["by_seed"] == pytest.approx(values, rel=1e-4)
        half = t.ppf(0.975, 1) * np.std(values, ddof=1) / np.sqrt(2)  # scipy's interval is NaN where seeds agree
        wanted = [max(np.mean(values) - half, 0), min(np.mean(values) + half, 1)]
        assert figure["seeds"] == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert figure["both"][0] <= figure["prompts"][0] and figure["prompts"][1] <= figure["both"][1]


def test_an_effect_has_students_interval_over_its_seeds(results):
    from scipy.stats import t

    for e in results["effects"]:
        assert e["value"] == pytest.approx(np.mean(e["by_seed"]), abs=1e-4)
        half = t.ppf(0.975, 1) * np.std(e["by_seed"], ddof=1) / np.sqrt(2)
        wanted = [np.mean(e["by_seed"]) - half, np.mean(e["by_seed"]) + half]
        assert e["ci_seeds"] == pytest.approx(wanted, rel=2e-3, abs=1e-3)
    assert {e["axis"] for e in results["effects"]} == set(AXES)


def test_seeds_of_one_backbone_are_one_training_and_get_no_verdict(small_sweep):
    """Sequential designs answer with the backbone of one shared phase: equal seeds are no replication."""
    folder = SweepFolder(small_sweep)
    for ids in folder.sweep()["cells"].values():
        if "sequential" in ids[0]:
            first, second = (folder.point_folder(i) / "eval/final/vqa_stickers" for i in ids)
            shutil.copy(first / "scores.jsonl", second / "scores.jsonl")
            one, other = (read_json(folder.point_folder(i) / "result.json") for i in ids)
            other["metrics"]["vqa_stickers/accuracy"] = one["metrics"]["vqa_stickers/accuracy"]
            shared, own = one["stages"][0], other["stages"]
            point = read_json(folder.point_folder(ids[1]) / "point.json")
            point["stages"] = other["stages"] = [shared, *own[1:]]
            write_json(folder.point_folder(ids[1]) / "point.json", point)
            write_json(folder.point_folder(ids[1]) / "result.json", other)
    found = export(small_sweep)
    assert found["shared_stages"] == {"understanding": 2}
    for cell in found["cells"]:
        figure = cell["figures"]["vqa_stickers/accuracy"]
        assert figure["one_training"] == ("sequential" in cell["name"]) == (figure["seeds"] is None)
        assert not cell["figures"]["geneval/overall"]["one_training"]
    effect = next(e for e in found["effects"] if (e["axis"], e["metric"]) == ("schedule", "vqa_stickers/accuracy"))
    assert effect["verdict"] == "one training" and effect["one_training"] == ["sequential"]
    text = BLOCKS["verdicts"](found, axis="schedule")
    assert "no verdict between joint and sequential" in text and "share the model that answers" in text


# -- the rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "ci", "p", "unit", "more", "word"),
    [
        (0.2, (0.1, 0.3), 0.01, "fraction", {}, "better"),
        (0.2, (0.1, 0.3), 0.01, "distance", {"higher_is_better": False}, "worse"),
        (0.2, (0.1, 0.3), 0.06, "fraction", {}, "undecided"),
        (0.01, (-0.02, 0.04), 0.9, "fraction", {}, "equal"),
        (0.01, (-0.02, 0.05), 0.9, "fraction", {}, "undecided"),
        (1.0, (-2.0, 4.0), 0.9, "percent", {}, "equal"),
        (0.001, (-0.002, 0.004), 0.9, "distance", {}, "undecided"),
        (0.2, (0.1, 0.3), 0.001, "fraction", {"trainings": 1}, "one training"),
        (0.0, (0.0, 0.0), 0.0, "fraction", {}, "equal"),
    ],
)
def test_the_rule_of_verdicts(value, ci, p, unit, more, word):
    assert verdict(value, ci, p, unit, **more) == word


def test_agreement_with_what_was_published():
    assert agreement("worse", "worse") == "agrees" and agreement("better", "worse") == "contradicts"
    assert agreement("undecided", "worse") == agreement("one training", "worse") == "does not decide"
    assert agreement("equal", "better") == "no difference where one was found"


# -- documents --------------------------------------------------------------------------------------


def test_tables_of_the_repositorys_documents_equal_their_results_files():
    pages = [path for path in DOCS.glob("*.md") if "<!-- sweep " in path.read_text(encoding="utf-8")]
    assert DOCS / "study.md" in pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert filled(text, path.parent) == text, f"{path.name}: write it anew with `sweep report --markdown`"
    for path in DOCS.glob("study/*.json"):
        found = json.loads(path.read_bytes())
        assert found["is_test_double"] is False and path.stat().st_size < 100_000


def test_a_document_without_results_says_so_at_its_top(tmp_path):
    text = filled(study_page(tmp_path).read_text(encoding="utf-8"), tmp_path)
    assert "**No results yet: `study/results.json` is not there.**" in "".join(text.splitlines(keepends=True)[:6])
    assert text.count("> **No results yet") == 1


def test_a_document_is_written_from_the_results_file_and_then_stays(results, tmp_path):
    write_results(results, tmp_path / "study" / "results.json")
    assert json.loads((tmp_path / "study" / "results.json").read_bytes()) == results
    page = study_page(tmp_path)
    assert fill(page) and not fill(page)
    text = page.read_text(encoding="utf-8")
    assert "No results yet" not in text and "12 of 12 points" in text
    cell = results["cells"][0]["figures"]["geneval/overall"]
    low, high = cell["both"]
    assert f"| clip, flow, sequential | 2 | {cell['value']:.3f} ({low:.3f} to {high:.3f})" in text
    assert text.count("The paper found vae") == 2
    changed = results | {"seeds": [7]}
    write_results(changed, tmp_path / "study" / "results.json")
    assert fill(page) and "seeds 7;" in page.read_text(encoding="utf-8")


def test_an_unfinished_sweep_has_tables_and_no_verdict(sweep_copy, sweeps, tmp_path):
    ids = SweepFolder(sweep_copy).point_ids()
    sweeps.set_state(sweep_copy, ids[1], "running")
    sweeps.set_state(sweep_copy, ids[4], "failed", "loss is not a number")
    found = export(sweep_copy)
    assert found["points"] == {"asked": 12, "done": 10, "running": 1, "failed": 1}
    assert "Not finished: 1 running, 1 failed" in BLOCKS["status"](found)
    for axis in AXES:
        assert "No verdict: 10 of 12" in BLOCKS["verdicts"](found, axis=axis)
        assert "better" not in BLOCKS["effects"](found, axis=axis)
    assert "1 of 2" in BLOCKS["cells"](found)
    for point in ids:
        sweeps.set_state(sweep_copy, point, "pending")
    write_results(export(sweep_copy), tmp_path / "study" / "results.json")
    page = study_page(tmp_path)
    assert fill(page)
    text = page.read_text(encoding="utf-8")
    assert "No verdict: 0 of 12" in text and "Nothing is finished" in text


def test_evaluations_by_another_judge_are_in_no_figure(sweep_copy):
    from reports.sweep_banners import sweep_banners
    from reports.sweep_data import SweepData

    ids = SweepFolder(sweep_copy).point_ids()
    for step in ("final", "step-200"):
        path = sweep_copy / "points" / ids[1] / "eval" / step / "geneval" / "manifest.json"
        manifest = read_json(path)
        manifest["judge"]["weights_sha256"] = "d" * 64
        write_json(path, manifest)
    found = export(sweep_copy)
    assert found["mixed"] == {f"{ids[1]} geneval": "judge weights"}
    figures = found["cells"][0]["figures"]
    kept = SweepFolder(sweep_copy).result(ids[0]).metrics["geneval/overall"].value
    assert figures["geneval/overall"]["by_seed"] == [pytest.approx(kept, rel=1e-4)]
    assert figures["geneval/overall"]["value"] == pytest.approx(kept, rel=1e-4)
    assert len(figures["vqa_stickers/accuracy"]["by_seed"]) == 2
    effects = [e for e in found["effects"] if (e["axis"], e["metric"]) == ("schedule", "geneval/overall")]
    assert [e["seeds"] for e in effects] == [[0]] and effects[0]["verdict"] == "one training"
    assert "some evaluations differ" in BLOCKS["verdicts"](found, axis="target")
    assert "geneval: judge weights" in next(
        b["text"] for b in sweep_banners(SweepData(sweep_copy)) if b["title"] == "Mixed sweep"
    )


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<!-- sweep r.json cells -->\n", "1 blocks begin"),
        ("<!-- sweep r.json cels -->\n<!-- /sweep -->\n", "unknown block 'cels'"),
        ("<!-- sweep r.json effects -->\n<!-- /sweep -->\n", "axis"),
        ("<!-- sweep r.json effects axis=size -->\n<!-- /sweep -->\n", "axis size is not among target"),
        ("<!-- sweep r.json curves metric=geneval/all -->\n<!-- /sweep -->\n", "geneval/all is not among"),
        ("<!-- sweep r.json cells now -->\n<!-- /sweep -->\n", "key=value"),
        ("<!-- sweep r.json verdicts axis=target geneval-overall=bad -->\n<!-- /sweep -->\n", "better or worse"),
        ("<!-- sweep broken.json cells -->\n<!-- /sweep -->\n", "broken.json: damaged"),
        ("<!-- sweep other.json cells -->\n<!-- /sweep -->\n", "not a results file"),
    ],
)
def test_mistakes_in_a_document_are_one_line(results, tmp_path, page, said):
    write_results(results, tmp_path / "r.json")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=said) as caught:
        filled(page, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_writes_both_files(small_sweep, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from evals.cli.sweep import command

    monkeypatch.setattr("reports.sweep.build", lambda root: Path(root) / "report.html")
    page = tmp_path / "page.md"
    page.write_text(
        "# Study\n\n<!-- sweep r.json needs -->\n<!-- /sweep -->\n<!-- sweep r.json diversity -->\n<!-- /sweep -->\n"
    )
    points = SweepFolder(small_sweep).point_ids()
    measured = {p: {"all": 0.8 + 0.1 * i, "right": None if i == 2 else 0.5} for i, p in enumerate(points)}
    text = json.dumps({"prompts": 60, "num_images": 4, "points": measured})
    (small_sweep / "diversity.json").write_text(text)
    arguments = ["report", str(small_sweep), "--results", str(tmp_path / "r.json"), "--markdown", str(page)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "| geneval: overall |" in page.read_text(encoding="utf-8")
    half = 12.7062 * 0.1 / 2  # Student's t with one degree of freedom, sd 0.1 / sqrt(2)
    assert f"| sequential | 0.80, 0.90 | 0.850 ({0.85 - half:.3f} to {0.85 + half:.3f}) | 0.500 (0.500 to 0.500) |" in (
        page.read_text(encoding="utf-8")
    )
    assert "| joint | 1.00, 1.10 |" in page.read_text(encoding="utf-8")
    (small_sweep / "diversity.json").write_text("{")
    done = CliRunner().invoke(command, arguments[:4])
    assert isinstance(done.exception, InputError) and "diversity.json: damaged" in str(done.exception)
    page.write_text("nothing to write into")
    done = CliRunner().invoke(command, [*arguments[:2], "--markdown", str(page)])
    assert isinstance(done.exception, InputError) and "has no block" in str(done.exception)


# -- known answers ----------------------------------------------------------------------------------


def study_of(source: np.random.Generator, effect: float, metrics: int, prompts: int = 120) -> Study:
    """Six designs, three seeds: a chance for each prompt, moved by the design and by the training (sd 0.03)."""
    cells = [
        Cell(name, dict(zip(AXES, design, strict=True)), tuple(f"{name},{s}" for s in range(3)), (0, 1, 2), {})
        for design in DESIGNS
        for name in [",".join(design)]
    ]
    keys = tuple((f"p{i}", 0) for i in range(prompts))
    clusters = tuple(f"p{i}" for i in range(prompts))
    names, terms, results = [f"task{m}/score" for m in range(metrics)], {}, {}
    chances = {name: np.clip(source.normal(0.5, 0.2, prompts), 0.02, 0.98) for name in names}
    for cell in cells:
        for point in cell.points:
            figures = {}
            for name in names:
                moved = source.normal(0, 0.03) - effect * (cell.values["target"] == "vae")
                values = (source.random(prompts) < np.clip(chances[name] + moved, 0, 1)).astype(float)
                terms[point, name] = Terms(keys, tuple(values), clusters)
                figures[name] = Figure(float(values.mean()), None, None, prompts, "fraction", True)
            results[point] = PointResult(figures, None, None, 0, None, 0.0, False, ())
    rows = tuple(Row(c.id, n, "fraction", True, value=0.5) for n in names for c in cells)
    table = SweepTable(None, "simulated", cells[0].id, tuple(names), tuple(cells), rows, False, (), terms)
    return Study(table, results, {p: int(p[-1]) for c in cells for p in c.points})


def test_a_known_effect_is_found_and_the_others_are_not():
    study = study_of(np.random.default_rng(2), 0.3, 1, prompts=200)
    effects = study.corrected(study.effects(["task0/score"], AXES), ["task0/score"])
    by_axis = {e.axis: e for e in effects}
    target = by_axis["target"]
    assert target.ci[0] < -0.3 < target.ci[1]
    assert verdict(target.value, target.ci, target.p_holm, "fraction") == "worse"
    assert by_axis["schedule"].p_holm > 0.05 and by_axis["objective"].p_holm > 0.05
    # Three differences alone have two degrees of freedom; the spread of the designs themselves has more.
    assert target.ci_seeds[1] - target.ci_seeds[0] > 0 and target.ci_prompts[0] > target.ci[0]


@pytest.mark.slow
def test_false_alarms_and_coverage_in_simulated_studies(capsys):
    """Studies of six designs, three seeds, two figures. Without an effect at most 5 of 100 studies may claim one
    anywhere among their six corrected tests; with one, its interval holds in at least 93 of 100. Thousands of studies,
    with Student's t in place of the bootstrap: tests/benchmarks/bench_seeds.py."""
    source, repeats = np.random.default_rng(11), 60
    names = [f"task{m}/score" for m in range(2)]
    alarms = held = found = 0
    for _ in range(repeats):
        study = study_of(source, 0.0, 2)
        effects = study.corrected(study.effects(names, AXES), names)
        assert len(effects) == 6
        alarms += any(e.p_holm < 0.05 for e in effects)
    for _ in range(repeats):
        study = study_of(source, 0.15, 1)
        effect = next(e for e in study.effects(names[:1], AXES) if e.axis == "target")
        held += effect.ci[0] <= -0.15 <= effect.ci[1]
        found += effect.p_value < 0.05
    with capsys.disabled():
        print(f"\nof {repeats} studies: false alarms {alarms}, intervals that hold {held}, effects found {found}")
    assert alarms <= 0.05 * repeats + 2 * (0.05 * 0.95 * repeats) ** 0.5
    assert held >= 0.93 * repeats - 2 * (0.93 * 0.07 * repeats) ** 0.5
