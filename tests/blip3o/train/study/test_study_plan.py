"""Settings, matched budgets and stages of a point: all of it without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from blip3o.errors import ConfigError
from blip3o.train.study import compute
from blip3o.train.study.compute import budget, caption_flops, dit_shape, dit_values
from blip3o.train.study.plan import DIGESTS_NAME, PARTS, parts_digest, plan_point
from blip3o.train.study.settings import ImpossibleCombination, StudySettings, read_settings

CELLS = [("clip", "flow"), ("clip", "mse"), ("vae", "flow")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tagret": "clip"}, r"unknown key train\.tagret\. Did you mean: target\?"),
        ({"target": "clp"}, r"train\.target 'clp' is unknown\. Did you mean: clip\?"),
        ({"generator": {"stepps": 3}}, r"train\.generator\.stepps\. Did you mean: steps\?"),
        ({"generator": {"steps": True}}, "must be a whole number, got True"),
        ({"generator": 3}, "train.generator must hold settings by name, got 3"),
        ({"generator": {"steps": 0}}, "generator.steps 0 is out of range: at least 1"),
        ({"mixture": {"prompt": 0.9}}, "add up to 1"),
        ({"world": "hard"}, "easy or full"),
        ({"shared_seed": "x"}, "shared_seed must be a whole number"),
        ({"features": {"scenes": 100}}, "a multiple of 128"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_settings(values)
    assert not isinstance(error.value, ImpossibleCombination)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": "vae", "objective": "mse"}, "decodes to a blur"),
        ({"head": "linear"}, "head linear learns by mse only"),
        ({"head": "linear", "objective": "mse", "num_queries": 4}, "one of 16 patches"),
        ({"objective": "mse", "generator": {"draws": 3}}, "nothing is drawn"),
    ],
)
def test_combinations_that_cannot_be_are_told_apart_with_their_reason(values, message):
    with pytest.raises(ImpossibleCombination, match=message):
        read_settings(values)


def test_a_setting_that_changes_nothing_is_refused():
    with pytest.raises(ImpossibleCombination, match="changes nothing"):
        plan_point({"text_weight": 0.5}, 0)
    assert plan_point({"text_weight": 0.5, "schedule": "joint"}, 0)


@pytest.mark.parametrize("values", [{"match": "samples"}, {"texts": {"scenes": 9}}])
def test_what_is_set_for_joint_twins_leaves_a_sequential_point_as_it_is(values):
    assert plan_point(values, 0) == plan_point({}, 0)
    joint = {"schedule": "joint"}
    assert plan_point({**joint, **values}, 0) != plan_point(joint, 0)


def test_null_seed_is_the_points_own():
    shared = plan_point({"backbone": "fresh"}, 3)
    own = plan_point({"backbone": "fresh", "shared_seed": None}, 3)
    assert [s.seed for s in shared] == [0, 0, 0, 3]
    assert [s.seed for s in own] == [3, 3, 0, 3]


@pytest.mark.parametrize(("target", "objective"), CELLS)
def test_joint_has_the_arithmetic_of_its_sequential_twin(target, objective):
    cell = {"target": target, "objective": objective, "backbone": "fresh"}
    twin = budget(read_settings({**cell, "schedule": "sequential"}))
    joint = budget(read_settings({**cell, "schedule": "joint"}))
    assert joint.flops_total == pytest.approx(twin.flops_total, rel=2e-3)
    assert sum(joint.text_rows.values()) == 400 * (12 + 4 + 8 + 8)  # the texts of the understanding phase
    assert joint.images < twin.images  # a picture costs more where the backbone learns from it


def test_all_cells_of_a_schedule_have_one_budget():
    for schedule in ("sequential", "joint"):
        found = [
            budget(read_settings({"target": t, "objective": o, "schedule": schedule})).flops_total
            for t, o in CELLS
        ]
        assert found[0] == found[1]  # regression runs the same network
        assert found[2] == pytest.approx(found[0], rel=5e-3)  # VAE patches have half the channels


def test_equal_samples_instead_of_equal_arithmetic():
    twin = budget(StudySettings())
    joint = budget(StudySettings(schedule="joint", match="samples"))
    assert joint.images == twin.images and joint.flops_total > twin.flops_total


def test_on_a_pretrained_backbone_texts_count_in_the_joint_phase():
    values = {"backbone": "pretrained", "texts": {"scenes": 2, "texts": 3, "imagined": 0}}
    sequential = budget(read_settings({"backbone": "pretrained"}))
    joint = budget(read_settings({**values, "schedule": "joint"}))
    assert sequential.flops_before == 0 and sequential.text_rows == {}
    assert joint.flops_total == pytest.approx(sequential.flops_total, rel=2e-3)
    kinds = {"scenes": 2, "edits": 0, "texts": 3, "imagined": 0}
    assert joint.text_rows == {kind: count * joint.steps for kind, count in kinds.items()}
    one_step = sum(count * compute.row_flops(kind) for kind, count in kinds.items())
    settings = read_settings({**values, "schedule": "joint"})
    one_step += settings.generator.batch * caption_flops(settings, is_frozen=False)
    assert joint.flops == pytest.approx(joint.steps * one_step)
    more = budget(read_settings({**values, "schedule": "joint", "match": "samples"}))
    assert more.steps == sequential.steps and more.text_rows["texts"] == 3 * more.steps


def test_on_a_pretrained_backbone_both_schedules_start_from_it():
    stages = {
        schedule: {stage.name: stage for stage in plan_point({"backbone": "pretrained", "schedule": schedule}, 2)}
        for schedule in ("sequential", "joint")
    }
    for own in stages.values():
        assert list(own) == ["pretrained", "features", "generator"]
        assert own["generator"].parents == ("pretrained", "features")
        assert {"vision", "understanding"}.isdisjoint(own["generator"].settings)
    assert stages["sequential"]["pretrained"] == stages["joint"]["pretrained"]
    assert "texts" in stages["joint"]["generator"].settings
    assert "texts" not in stages["sequential"]["generator"].settings


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"backbone": "pretrained", "understanding": {"steps": 3}}, "understanding"),
        ({"backbone": "pretrained", "vision": {"steps": 3}}, "vision"),
        ({"backbone": "fresh", "texts": {"scenes": 3}, "schedule": "joint"}, "texts"),
    ],
)
def test_what_the_kind_of_backbone_leaves_unused_is_refused(values, key):
    with pytest.raises(ImpossibleCombination, match=f"{key} with .* changes nothing"):
        plan_point(values, 0)


def test_the_digest_of_parts_covers_the_backbone_where_it_is_taken(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    for name in PARTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    digests = []
    for backbone, dit in ((1.0, 1.0), (1.0, 2.0), (2.0, 2.0)):
        weights = {"backbone.x": np.full(3, backbone), "dit.y": np.full(2, dit)}
        save_file(weights, tmp_path / "model.safetensors")
        digests.append((parts_digest(str(tmp_path)), parts_digest(str(tmp_path), "pretrained")))
    assert len({plain for plain, _ in digests}) == 1
    assert digests[0][1] == digests[1][1] != digests[2][1]


def test_points_share_what_they_have_in_common():
    def names(**values):
        stages = plan_point({"backbone": "fresh", **values}, 1)
        return {stage.name: (stage.settings, stage.seed) for stage in stages}

    flow, mse = names(), names(objective="mse")
    joint, vae = names(schedule="joint"), names(target="vae")
    assert list(flow) == ["vision", "understanding", "features", "generator"]
    assert list(joint) == ["vision", "features", "generator"]
    assert list(vae) == ["vision", "understanding", "autoencoder", "features", "generator"]
    for name in ("vision", "understanding", "features"):
        assert flow[name] == mse[name]
    assert flow["vision"] == joint["vision"] and flow["understanding"] == vae["understanding"]
    assert flow["features"] != vae["features"] and flow["generator"] != mse["generator"]


def test_every_stages_settings_can_be_read_again():
    fresh = {"backbone": "fresh"}
    joint = {"schedule": "joint", "text_weight": 0.3}
    for cell in ({}, joint, {"target": "vae"}, fresh, {**fresh, **joint}):
        for stage in plan_point(cell, 0):
            again = read_settings(stage.settings)
            if stage.name == "generator":
                assert budget(again) == budget(read_settings(cell))


def test_planning_imports_no_torch():
    code = (
        "import sys; from blip3o.train.study.plan import plan_point; plan_point({'target': 'vae'}, 0); "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- against what torch and the tokenizer say --------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["clip", "vae"])
def test_the_sizes_are_those_of_the_transformer(target):
    from blip3o.dit import DiTConfig

    config, shape = DiTConfig(**dit_values(target)), dit_shape(target)
    for name in compute.DiTShape.__dataclass_fields__:
        assert getattr(shape, name) == getattr(config, name), name


def test_names_that_are_written_twice_agree():
    from blip3o import card
    from blip3o.train.autoencoder import VAE_CONFIG

    assert DIGESTS_NAME == card.DIGESTS_NAME
    assert compute.VAE_CHANNELS == VAE_CONFIG["latent_channels"]


def test_mean_tokens_are_as_counted():
    import numpy as np

    from blip3o.stickers import SceneConfig
    from blip3o.train.study.data import FORMS, TextRows, make_scene
    from blip3o.train.study.model import study_tokenizer
    from blip3o.train.world_data import PROMPTS

    tokenizer, world = study_tokenizer("nano"), SceneConfig.level("easy")
    scenes = [make_scene("train", i, world) for i in range(400)]
    for form, write in FORMS.items():
        found = tokenizer([PROMPTS.generation(write(s)) for s in scenes], add_special_tokens=False)
        mean = np.mean([len(ids) for ids in found["input_ids"]])
        assert compute.CAPTION_TOKENS[form] == pytest.approx(mean, rel=0.04)
    for kind in compute.ROW_TOKENS:
        batch = next(
            part for part in TextRows(world, tokenizer, 16, {kind: 64}, 1, 0)(0) if part is not None
        )
        tokens = (batch.segments >= 0).sum().item() / 64
        assert compute.ROW_TOKENS[kind] == pytest.approx(tokens, rel=0.08), kind
        learned = (batch.labels != -100).sum().item() / 64
        assert compute.LEARNED_TOKENS[kind] == pytest.approx(learned, rel=0.2), kind


@pytest.mark.parametrize("is_frozen", [True, False])
def test_the_formula_of_a_caption_is_near_torchs_own_count(is_frozen):
    """Independent truth: a counter over one real forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from blip3o.train.nano_parts import model_config
    from blip3o.train.stages import freeze
    from blip3o.train.study.model import study_tokenizer
    from blip3o.unified import Blip3oModel

    settings = StudySettings()
    model = Blip3oModel(model_config(study_tokenizer("nano")))
    if is_frozen:
        freeze(model.backbone)
    tokens = round(compute.prompt_tokens(settings)) - 1  # the image start token is counted in
    ids = torch.full((1, tokens), 20)
    with FlopCounterMode(display=False) as counter:
        model(ids, target=torch.zeros(1, 32, 8, 8)).loss.backward()
    counted = counter.get_total_flops()
    assert caption_flops(settings, is_frozen=is_frozen) == pytest.approx(counted, rel=0.1)
