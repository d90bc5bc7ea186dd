"""BLIP3-o as what sweeps train: stages planned without torch, errors in the harness's words, the sweeps that ship."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evals.errors import ConfigError
from evals.io.files import write_json
from evals.sweeps import training
from evals.sweeps.api import Compute, ImpossibleError
from evals.sweeps.plan import plan_sweep
from evals.sweeps.plan_text import lines
from evals.sweeps.sweepfile import shipped

NAMES = (
    "ablation", "ablation-smoke", "guidance", "instruction", "mixture", "queries", "steps",
    "text-loss-weight",
)  # fmt: skip


def ids(values, seed=0):
    return {spec.name: spec.id for spec in training.plan_stages(values, seed)}


def test_stages_are_shared_between_points_and_seeds():
    fresh = {"backbone": "fresh"}
    flow, mse, vae = ids(fresh), ids({**fresh, "objective": "mse"}), ids({**fresh, "target": "vae"})
    assert flow["understanding"] == mse["understanding"] == vae["understanding"]
    assert flow["features"] == mse["features"] != vae["features"]
    assert len({flow["generator"], mse["generator"], vae["generator"]}) == 3
    other = ids(fresh, seed=1)
    assert other["understanding"] == flow["understanding"]
    assert other["generator"] != flow["generator"]
    longer = ids({**fresh, "understanding": {"steps": 7}})
    assert longer["vision"] == flow["vision"] and longer["generator"] != flow["generator"]


def test_parents_stand_before_their_children():
    seen = set()
    for spec in training.plan_stages({"target": "vae"}, 0):
        assert set(spec.parents) <= seen
        seen.add(spec.id)
        assert spec.estimate.seconds > 0 and spec.estimate.bytes > 0
        assert spec == spec.from_json(spec.to_json())
    assert spec.name == "generator" and spec.estimate.export_bytes > 0


def test_errors_are_those_of_the_harness():
    with pytest.raises(ConfigError, match="Did you mean: target"):
        training.plan_stages({"tagret": "clip"}, 0)
    with pytest.raises(ImpossibleError, match="decodes to a blur"):
        training.plan_stages({"target": "vae", "objective": "mse"}, 0)
    with pytest.raises(ConfigError, match="tokenizer.json is missing"):
        training.plan_stages({"parts": "no/such/folder"}, 0)


def test_a_regression_head_has_no_use_for_guidance():
    for key, value in (("guidance_scale", 3.0), ("steps", 20)):
        with pytest.raises(ImpossibleError, match="answers in one step and without guidance"):
            training.check_run({"objective": "mse"}, {"generation": {key: value}})
    training.check_run({"objective": "mse"}, {"generation": {"guidance_scale": 1.0, "steps": None}})
    training.check_run({"objective": "flow"}, {"generation": {"guidance_scale": 3.0}})


def test_planning_imports_no_torch():
    code = (
        "import sys; from evals.sweeps.training import plan_stages; plan_stages({}, 0); "
        "sys.exit(bool({'torch', 'transformers', 'pandas', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_arithmetic_of_a_point_is_what_its_last_stage_recorded(tmp_path):
    from blip3o.train.study.compute import budget
    from blip3o.train.study.settings import StudySettings, read_settings

    assert training.flops_of(tmp_path) == {}
    totals = {}
    for schedule in ("sequential", "joint"):
        plan = budget(read_settings({"schedule": schedule, "backbone": "fresh"}, StudySettings))
        write_json(tmp_path / training.DONE, {"info": {"budget": plan.to_dict()}})
        phases = training.flops_of(tmp_path)
        assert set(phases) == ({"generator"} if schedule == "joint" else {"understanding", "generator"})
        assert sum(phases.values()) == plan.flops_total
        totals[schedule] = plan.flops_total
    assert totals["joint"] == pytest.approx(totals["sequential"], rel=0.01)  # matched
    (tmp_path / training.DONE).write_text("{")
    assert training.flops_of(tmp_path) == {}


def test_changed_parts_are_refused_before_training(tmp_path):
    spec = training.plan_stages({}, 0)[0]
    spoilt = replace(spec, settings={**spec.settings, training.PARTS_KEY: "0" * 64})
    with pytest.raises(ConfigError, match="changed since the sweep was planned"):
        training.train_stage(spoilt, tmp_path / spec.id, tmp_path, lambda checkpoint: None)
    assert not list(tmp_path.iterdir())


def test_a_stage_reports_while_it_runs_and_is_read_when_it_is_done(tmp_path):
    spec = training.plan_stages({"backbone": "fresh", "vision": {"steps": 2, "batch": 2}}, 0)[0]
    seen = []
    result = training.train_stage(spec, tmp_path / spec.id, tmp_path, seen.append)
    assert result.compute.steps == 2 and result.compute.images == 4 and result.parameters > 0
    assert seen[-1].compute.steps == seen[-1].total_steps == 2
    assert seen[-1].compute.seconds == result.compute.seconds > 0
    assert isinstance(seen[-1].compute, Compute)
    again = training.train_stage(spec, tmp_path / spec.id, tmp_path, lambda c: pytest.fail("trained"))
    assert again == result


# -- the sweeps that ship ----------------------------------------------------------------------------------------------


def test_all_of_them_are_there():
    assert set(NAMES) <= set(shipped())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_sweep_can_be_planned(name):
    plan = plan_sweep(name)
    assert plan.points and not plan.left_out
    if name == "ablation":
        assert len(plan.points) == 18 and len(plan.stages) == 1 + 1 + 2 + 18
    if name.startswith("ablation"):
        cells = {tuple(point.values.values()) for point in plan.points}
        assert len(cells) == 6


def test_the_command_for_larger_models_in_the_docs_can_be_planned():
    text = (Path(__file__).parents[3] / "docs" / "study-design.md").read_text(encoding="utf-8")
    block = text.split("```bash")[1].split("```")[0]
    words = shlex.split(block.replace("\\\n", " "))
    assert words[:4] == ["blip3o-eval", "sweep", "plan", "ablation"]
    plan = plan_sweep("ablation", [w for w in words[4:] if w != "--set"])
    assert len(plan.points) == 18 and len(plan.stages) == 18
    steps = {p.values["schedule"]: plan.stages[p.stages[-1]].spec.estimate.steps for p in plan.points}
    assert steps["sequential"] == 50_000 > steps["joint"]
    assert any("of training (on 32 devices at 40% of 989 TFLOP/s)" in line for line in lines(plan))


def test_a_grid_with_an_impossible_cell_says_why(tmp_path):
    text = """
name: full
base: {train: {}, evaluate: {tasks: [geneval]}}
axes: {train.target: [clip, vae], train.objective: [flow, mse]}
"""
    path = tmp_path / "full.yaml"
    path.write_text(text)
    plan = plan_sweep(path)
    assert len(plan.points) == 3
    assert ["decodes to a blur" in reason for reason in plan.left_out.values()] == [True]


@pytest.mark.slow
def test_a_point_at_another_size_trains_as_recipes_and_leaves_models(tmp_path):
    """Joint training, and generator with instruction data after it, on nano's backbone and tower."""
    from blip3o.pipeline import Blip3oPipeline

    small = {
        "model": "nano",
        "data": [{"name": "s", "layout": "stickers", "paths": ["easy:500"]}],
        "num_queries": 4,
        "dit": {"patch_size": 2, "in_channels": 32, "dim": 32, "num_layers": 1, "num_heads": 4, "ffn_dim": 32},
        "devices": 1,
        "generator": {"steps": 4, "batch": 2, "text_batch": 1, "workers": 0, "sharding": "ddp", "warmup_steps": 1},
    }
    talks = {"name": "t", "layout": "stickers", "kind": "conversations", "paths": ["easy:500:5000"]}
    for values in (
        {"schedule": "joint", "match": "samples", "text_data": [talks]},
        {"instruction_share": 0.5, "instruction_data": [{**small["data"][0], "name": "i"}]},
    ):
        for spec in training.plan_stages({**small, **values}, 0):
            spec = replace(spec, export_at=(1,))
            result = training.train_stage(spec, tmp_path / spec.id, tmp_path, lambda checkpoint: None)
            assert result.compute.steps == spec.estimate.steps and set(result.at) == {1}
            for name in ("export", "export-step-1"):
                assert Blip3oPipeline.from_pretrained(tmp_path / spec.id / name).model.config.num_queries == 4
            assert training.train_stage(spec, tmp_path / spec.id, tmp_path, pytest.fail) == result


@pytest.mark.slow
def test_all_six_cells_train_evaluate_and_stand_in_one_table(tmp_path):
    """`ablation-smoke` as it ships: 12 minutes of one busy core."""
    from evals.sweeps.door import sweep

    found = sweep("ablation-smoke", tmp_path / "sweep", tracking={"enabled": False}, quiet=True)
    assert found.problem is None and len(found.run.done) == 6
    assert found.page is not None and found.page.is_file()
    ceilings = list((tmp_path / "sweep" / "stages").glob("features-*/ceiling.json"))
    assert len(ceilings) == 2
    again = sweep("ablation-smoke", tmp_path / "sweep", tracking={"enabled": False}, quiet=True)
    assert again.run.done == found.run.done
