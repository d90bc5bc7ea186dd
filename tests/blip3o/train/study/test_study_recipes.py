"""Points at any size: planned by formulas, trained as recipes."""

from __future__ import annotations

import pytest

from blip3o.errors import ConfigError
from blip3o.train.study.plan import plan_point
from blip3o.train.study.recipes import RecipeStudySettings, recipe_budget
from blip3o.train.study.settings import ImpossibleCombination, read_settings

PICTURES = {"name": "long", "layout": "webdataset", "paths": ["/data/*.tar"], "weight": 27}
SHORT = {"name": "short", "layout": "webdataset", "paths": ["/short/*.tar"]}
TALKS = {"name": "talks", "layout": "jsonl", "kind": "conversations", "paths": ["/data/llava.jsonl"]}
LARGE = {"model": "BLIP3o/BLIP3o-Model-4B", "data": [PICTURES, SHORT], "text_data": [TALKS], "vae": "/vae"}


def recipe_settings(**values):
    return read_settings({**LARGE, **values}, RecipeStudySettings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": []}, "data is empty"),
        ({"data": [{"name": "x"}]}, "needs name, layout and paths"),
        ({"text_data": [], "schedule": "joint"}, "joint training needs conversations"),
        ({"target": "vae", "vae": None}, "needs the folder of a VAE"),
        ({"mixture": {"lnog": 1.0}}, "mixture.lnog: no data set has this name; there are long, short"),
        ({"instruction_share": 0.1}, "needs instruction_data"),
        ({"generator": {"batches": 3}}, "Did you mean: batch"),
        ({"data": "files"}, "must be a list"),
        ({"model": "no/such/folder"}, "neither a released model"),
    ],
)
def test_wrong_settings_are_refused_in_the_plan(values, message):
    with pytest.raises(ConfigError, match=message):
        plan_point({**LARGE, **values}, 0)


def test_settings_without_data_are_refused():
    with pytest.raises(ConfigError, match="train lacks data"):
        plan_point({"model": "blip3o-4b"}, 0)


def test_impossible_cells_have_their_reason():
    with pytest.raises(ImpossibleCombination, match="is not studied"):
        recipe_settings(target="vae", objective="mse")
    with pytest.raises(ImpossibleCombination, match="changes nothing"):
        plan_point({**LARGE, "text_weight": 0.5}, 0)


def test_joint_points_have_the_arithmetic_of_their_sequential_twins():
    for target in ("clip", "vae"):
        twin = recipe_budget(recipe_settings(target=target))
        joint = recipe_budget(recipe_settings(target=target, schedule="joint"))
        assert joint.steps < twin.steps
        assert joint.steps * joint.step_flops == pytest.approx(twin.steps * twin.step_flops, rel=1e-4)


def test_a_mixture_weighs_data_sets_by_name_and_leaves_out_what_weighs_nothing():
    mixed = recipe_settings(mixture={"long": 0, "short": 0.5}).mixed_data
    assert [(entry["name"], entry["weight"]) for entry in mixed] == [("short", 0.5)]


def test_instruction_data_ends_a_point_with_a_stage_of_its_own():
    values = {"instruction_share": 0.25, "instruction_data": [SHORT], "generator": {"steps": 100}}
    stages = plan_point({**LARGE, **values}, 0)
    assert [(s.name, s.steps, s.parents) for s in stages] == [
        ("generator", 75, ()), ("instruction", 25, ("generator",)),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_estimate_is_that_of_a_dry_run_on_the_meta_device():
    """Independent truth: torch's counter over the model of the real size."""
    from blip3o.train.estimate import estimate
    from blip3o.train.recipe import recipe_from_dict

    own = {"steps": 1000, "batch": 16}
    stage = plan_point({**LARGE, "generator": own}, 0)[-1]
    recipe = recipe_from_dict(
        {"model": LARGE["model"], "stage": "generation", "data": [PICTURES], "batch_size": 16, "loop": {
            "steps": 1000, "lr": 1e-4,
        }}
    )  # fmt: skip
    counted = estimate(recipe, processes=32)
    assert stage.images == counted.samples
    assert stage.seconds / 3600 == pytest.approx(counted.hours, rel=0.03)
