"""Training of the judge: resume, calibration, colour labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from blip3o.stickers import make_scene
from blip3o.stickers.detector import DetectorConfig, calibrate
from blip3o.stickers.judge_train import (
    ColorStage,
    DetectorStage,
    JudgeRecipe,
    best_cut,
    color_targets,
    loosen,
    operating_points,
    with_hard_classes,
    worlds,
)
from blip3o.train.loop import LoopConfig, fit

TINY = JudgeRecipe(
    detector=DetectorConfig(widths=(16, 16, 16, 16), depths=(1, 1, 1, 1), pyramid=16, head=32),
    batch=2,
    color_batch=8,
)


def loop(steps: int) -> LoopConfig:
    # a constant rate: the schedule must not depend on where the run is stopped
    return LoopConfig(
        steps=steps, lr=1e-3, warmup_steps=0, min_lr_ratio=1.0, bf16=False, log_every=1
    )


def test_four_steps_equal_two_and_two_after_a_restart(tmp_path):
    whole = fit(DetectorStage(TINY), loop(4), tmp_path / "whole")["detector"].state_dict()
    config = loop(4)
    stopped = DetectorStage(TINY)
    batches = stopped.batch
    stopped.batch = lambda step: batches(step) if step < 2 else pytest.fail("stopped here")
    with pytest.raises(pytest.fail.Exception):
        fit(stopped, replace(config, save_every_s=0.0), tmp_path / "parts")
    resumed = fit(DetectorStage(TINY), replace(config, save_every_s=0.0), tmp_path / "parts")
    for key, value in resumed["detector"].state_dict().items():
        assert torch.equal(value, whole[key]), key


def test_colours_are_learned_in_a_few_steps(tmp_path):
    stage = ColorStage(replace(TINY, color_batch=16))
    generator = torch.Generator().manual_seed(0)
    before = stage.loss(stage.batch(0), generator)[0].item()
    fit(stage, replace(loop(15), lr=3e-3), tmp_path)
    stage.color.train()
    assert stage.loss(stage.batch(0), generator)[0].item() < before - 0.3


def picture(true: list[int], found: list[tuple[int, float]]):
    labels = torch.tensor([c for c, _ in found])
    return Counter(true), torch.tensor([score for _, score in found]), labels


def test_a_cut_lies_in_the_middle_of_the_plateau_where_counts_are_right():
    rows = [
        picture([3], [(3, 0.8), (5, 0.2)]),
        picture([3, 3], [(3, 0.8), (3, 0.9)]),
        picture([], [(1, 0.2)]),
    ]
    middle = (torch.logit(torch.tensor(0.2)) + torch.logit(torch.tensor(0.8))) / 2
    assert best_cut(rows) == pytest.approx(middle.item(), abs=0.1)


def test_official_thresholds_fall_on_the_best_cuts():
    plain = [picture([3], [(3, 0.5), (5, 0.1)])]  # best cut at the geometric middle of the odds
    counting = [picture([3], [(3, 0.9), (3, 0.6)])]
    slope, offset = operating_points(plain, counting)
    cuts = torch.tensor([best_cut(plain), best_cut(counting)]).sigmoid()
    assert calibrate(cuts, slope, offset).tolist() == pytest.approx([0.3, 0.9], abs=1e-3)


def test_a_map_never_falls_or_jumps():
    upside_down = operating_points(
        [picture([3], [(3, 0.9), (3, 0.6)])], [picture([3], [(3, 0.5), (5, 0.1)])]
    )
    assert 0 < upside_down[0] <= 3.05 / 0.5


def test_tinted_objects_have_hard_labels_and_natural_ones_soft():
    distances = torch.full((2, 10), 40.0)
    distances[:, 3] = 2.0
    targets = color_targets(distances, torch.tensor([7, -1]))
    assert targets[0].tolist() == [0.0] * 7 + [1.0] + [0.0] * 2
    assert targets[1].argmax() == 3 and 0.9 < targets[1, 3] < 1


def test_loosened_masks_move_by_one_pixel_and_never_vanish():
    masks = torch.zeros(40, 32, 32, dtype=torch.bool)
    masks[:20, 10:20, 10:20] = True
    masks[20:, 5, 5] = True
    loose = loosen(masks, torch.Generator().manual_seed(0))
    sizes = set(loose[:20].flatten(1).sum(1).tolist())
    assert sizes == {64, 100, 144}
    assert loose[20:].flatten(1).any(1).all()


def test_batches_show_hard_classes_and_stay_pure():
    configs = worlds(("full", "full:counting", "easy"))
    indices = range(1000, 1030)
    chosen = with_hard_classes(indices, configs, ("dog", "cup"), 0.3)
    assert chosen == with_hard_classes(indices, configs, ("dog", "cup"), 0.3)
    replaced = [k for k, (a, b) in enumerate(zip(indices, chosen, strict=True)) if a != b]
    assert 8 <= len(replaced) <= 9 and {k % 3 for k in replaced} == {0, 1, 2}  # every world gets some
    for k in replaced:
        shown = {s.class_name for s in make_scene("judge", chosen[k], configs[k % 3]).stickers}
        assert shown & {"dog", "cup"}
    assert with_hard_classes(indices, configs, (), 0.3) == list(indices)


def test_a_level_can_be_narrowed_to_one_kind():
    (counting,) = worlds(("full:counting",))
    assert {make_scene("judge", i, counting).kind for i in range(20)} == {"counting"}
