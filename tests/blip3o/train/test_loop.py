"""The loop on a model small enough to repeat bit for bit."""

from __future__ import annotations

import collections
import dataclasses
import json
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from blip3o.errors import ConfigError, WeightsError
from blip3o.train import checkpoint
from blip3o.train.checkpoint import TrainState
from blip3o.train.loop import (
    Hooks,
    LoopConfig,
    TrainingDiverged,
    fit,
    is_finished,
    learning_rate,
    to_device,
)


@dataclasses.dataclass
class Batch:
    ids: list[str]
    value: tuple


CONFIG = LoopConfig(
    steps=4, lr=1e-2, warmup_steps=2, weight_decay=0.1, bf16=False, log_every=1, save_every_s=1e9
)


class Regression:
    """y = 3x - 1 with noise from the step's generator, so that a wrong RNG after resuming shows."""

    name = "regression"

    def __init__(self, broken_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.modules = {"model": self.model}
        self.broken_at = broken_at

    def batch(self, step):
        return step, torch.linspace(-1, 1, 16)[:, None] * (1 + step % 3)

    def loss(self, batch, generator):
        step, x = batch
        target = 3 * x - 1 + 0.1 * torch.randn(x.shape, generator=generator)
        loss = (self.model(x) - target).square().mean()
        return (loss * float("nan") if step == self.broken_at else loss), {"seen": float(step)}


def weights(modules):
    return torch.cat([p.flatten() for p in modules["model"].parameters()])


def test_two_steps_saved_and_resumed_equal_four_in_one_go(tmp_path, monkeypatch):
    whole = weights(fit(Regression(), CONFIG, tmp_path / "whole"))
    interrupted = Regression()
    original = interrupted.loss

    def stop_at_two(batch, generator):
        if batch[0] == 2:
            raise KeyboardInterrupt
        return original(batch, generator)

    interrupted.loss = stop_at_two
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, dataclasses.replace(CONFIG, save_every_s=0.0), tmp_path / "parts")
    resumed = weights(
        fit(Regression(), dataclasses.replace(CONFIG, save_every_s=0.0), tmp_path / "parts")
    )
    assert torch.equal(whole, resumed)


def test_a_run_lowers_the_loss_and_logs_every_step(tmp_path):
    fit(Regression(), dataclasses.replace(CONFIG, steps=200), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 200
    assert losses[0] > 2 and losses[-1] < losses[0]


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path):
    with pytest.raises(TrainingDiverged, match="stage 'regression': loss nan at step 3"):
        fit(Regression(broken_at=3), CONFIG, tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_weights_or_checkpoint(tmp_path):
    """The loss is 0, its gradient infinity times 0."""

    class Rooted(Regression):
        def loss(self, batch, generator):
            step, _ = batch
            loss, numbers = super().loss(batch, generator)
            return ((loss * 0).sqrt() if step == 3 else loss), numbers

    stage = Rooted()
    with pytest.raises(TrainingDiverged, match="gradient norm nan at step 3"):
        fit(stage, dataclasses.replace(CONFIG, save_every_s=0.0), tmp_path)
    assert weights(stage.modules).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "state.safetensors").values())


def test_what_had_no_gradient_yet_resumes_to_the_same_weights(tmp_path):
    """One layer is used from step 2 on, another never: neither has moments in the checkpoint of step 1."""

    class Late(Regression):
        def __init__(self, stop_at=None):
            super().__init__()
            self.model = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("first", "late", "never")})
            self.modules, self.stop_at = {"model": self.model}, stop_at

        def loss(self, batch, generator):
            step, x = batch
            if step == self.stop_at:
                raise KeyboardInterrupt
            out = self.model["first"](x)
            return ((self.model["late"](out) if step >= 2 else out) - 3 * x).square().mean(), {}

    for optimizer in ("adamw", "muon"):
        config = dataclasses.replace(CONFIG, save_every_s=0.0, optimizer=optimizer)
        torch.manual_seed(0)
        start = Late().model.state_dict()
        runs = [Late(), Late(stop_at=1), Late()]
        for run in runs:
            run.model.load_state_dict(start)
        whole = weights(fit(runs[0], config, tmp_path / optimizer / "whole"))
        with pytest.raises(KeyboardInterrupt):
            fit(runs[1], config, tmp_path / optimizer / "parts")
        assert torch.equal(weights(fit(runs[2], config, tmp_path / optimizer / "parts")), whole)


def test_frozen_parts_train_in_evaluation_mode_also_after_an_evaluation(tmp_path):
    """Else frozen dropout would draw from the global stream, and frozen checkpointing drop the key/value cache."""

    class Partly(Regression):
        def __init__(self):
            super().__init__()
            first = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5)).requires_grad_(False)
            self.model = nn.Sequential(first, *self.model[1:])
            self.modules, self.seen = {"model": self.model}, []

        def loss(self, batch, generator):
            self.seen.append([part.training for part in self.model])
            return super().loss(batch, generator)

    stage = Partly()
    fit(stage, dataclasses.replace(CONFIG, evaluate_every=2), tmp_path, Hooks(evaluate=lambda step, modules: {}))
    assert stage.seen == [[False, True, True]] * 4


def test_other_settings_are_refused_by_name(tmp_path):
    fit(Regression(), CONFIG, tmp_path)
    with pytest.raises(ConfigError, match=r"made with other settings \(lr\)"):
        fit(Regression(), dataclasses.replace(CONFIG, lr=2e-2), tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    fit(Regression(), CONFIG, tmp_path)
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be read"):
        fit(Regression(), CONFIG, tmp_path)


def test_a_frozen_model_is_refused(tmp_path):
    stage = Regression()
    stage.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to learn"):
        fit(stage, CONFIG, tmp_path)


def test_the_rate_warms_up_then_falls_to_its_floor():
    config = LoopConfig(steps=100, lr=1.0e-3, warmup_steps=10, min_lr_ratio=0.1)
    rates = [learning_rate(config, TrainState(step=s)) for s in range(101)]
    assert rates[0] == pytest.approx(1e-4) and rates[9] == pytest.approx(1e-3)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[100] == pytest.approx(1e-4)


def test_a_time_budget_ends_the_stage_annealed():
    config = LoopConfig(steps=10_000, lr=1e-3, warmup_steps=0, min_lr_ratio=0.05, max_minutes=1)
    assert learning_rate(config, TrainState(step=50, seconds=60.0)) == pytest.approx(5e-5)
    assert is_finished(config, TrainState(step=50, seconds=60.0))
    assert not is_finished(config, TrainState(step=50, seconds=59.0))


def test_resumed_moments_keep_the_memory_layout_of_their_parameters(tmp_path):
    class Pictures(Regression):
        def __init__(self):
            super().__init__()
            self.model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
            self.modules = {"model": self.model}

        def batch(self, step):
            return step, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))

        def loss(self, batch, generator):
            return (self.model(batch[1]) - 1).square().mean(), {}

    short, long = dataclasses.replace(CONFIG, save_every_s=0.0), dataclasses.replace(CONFIG)
    whole = weights(fit(Pictures(), long, tmp_path / "whole"))
    first = Pictures()
    original = first.loss

    def stop_at_two(batch, generator):
        if batch[0] == 2:
            raise KeyboardInterrupt
        return original(batch, generator)

    first.loss = stop_at_two
    with pytest.raises(KeyboardInterrupt):
        fit(first, short, tmp_path / "parts")
    assert torch.equal(whole, weights(fit(Pictures(), short, tmp_path / "parts")))


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path):
    fit(Regression(), CONFIG, tmp_path)
    file = tmp_path / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        fit(Regression(), CONFIG, tmp_path)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    fit(Regression(), CONFIG, tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*args, **kwargs):
        args[1].write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(checkpoint.CheckpointNotSaved, match="No space left.*free space"):
        checkpoint.save_tensors(tmp_path / "state.safetensors", {"a": torch.zeros(1)})
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("moment", ["save_file", "os.replace", "write_json"])
def test_a_kill_at_any_moment_of_a_save_costs_no_step_that_was_saved(tmp_path, monkeypatch, moment):
    whole = weights(fit(Regression(), CONFIG, tmp_path / "whole"))
    parts, saves = tmp_path / "parts", []
    often = dataclasses.replace(CONFIG, save_every_s=0.0)
    target = checkpoint.os if moment == "os.replace" else checkpoint
    name = moment.removeprefix("os.")
    original = getattr(target, name)

    def killed(*args, **kwargs):
        saves.append(moment)
        if len(saves) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed)
        with pytest.raises(KeyboardInterrupt):
            fit(Regression(), often, parts)
    assert torch.equal(whole, weights(fit(Regression(), often, parts)))


class HalfFrozen(Regression):
    """The first layer stays as it is; running means are buffers that change."""

    def __init__(self, shift: float = 0.0, broken_at: int | None = None, learns: int = 2) -> None:
        super().__init__(broken_at)
        self.model.insert(1, nn.BatchNorm1d(8))
        self.model[0].weight.data += shift
        for layer in list(self.model)[: 3 - learns]:
            layer.requires_grad_(False)


OFTEN = dataclasses.replace(CONFIG, save_every_s=0.0)


def test_a_checkpoint_holds_what_learns_and_resumes_to_the_same_weights(tmp_path):
    whole = weights(fit(HalfFrozen(), OFTEN, tmp_path / "whole"))
    held = set(load_file(tmp_path / "whole/state.safetensors"))
    assert {name for name in held if name.startswith("weights.parts.model.0.")} == set()
    assert {"weights.parts.model.1.running_mean", "weights.parts.model.3.weight", "ema.model.3.bias"} <= held
    with pytest.raises(TrainingDiverged):
        fit(HalfFrozen(broken_at=2), OFTEN, tmp_path / "parts")
    assert torch.equal(whole, weights(fit(HalfFrozen(), OFTEN, tmp_path / "parts")))
    again = load_file(tmp_path / "parts/state.safetensors")
    for name, tensor in load_file(tmp_path / "whole/state.safetensors").items():
        assert torch.equal(tensor, again[name]), name


def test_a_run_does_not_go_on_with_other_frozen_weights(tmp_path):
    with pytest.raises(TrainingDiverged):
        fit(HalfFrozen(broken_at=2), OFTEN, tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="goes on from other frozen weights than this run starts with: start from"):
        fit(HalfFrozen(shift=1e-4), OFTEN, tmp_path)
    with pytest.raises(ConfigError, match=r"other parameters learn \(parts.model.1.bias, parts.model.1.weight\): use"):
        fit(HalfFrozen(learns=1), OFTEN, tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_checkpoints_that_hold_frozen_weights_too_still_resume(tmp_path):
    """As they were written until November 2026: every weight, and no digest of the frozen ones."""
    whole = weights(fit(HalfFrozen(), OFTEN, tmp_path / "whole"))
    old, stage = tmp_path / "old", HalfFrozen(broken_at=2)
    with pytest.raises(TrainingDiverged):
        fit(stage, OFTEN, old)
    file = old / "state.safetensors"
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["state"])
    tensors = load_file(file)
    del header["frozen"]
    for name, tensor in HalfFrozen().model[0].state_dict().items():
        tensors[f"weights.parts.model.0.{name}"] = tensor
    digest = checkpoint.digest(tensors)
    checkpoint.save_tensors(file, tensors, {"state": json.dumps(header), "digest": digest})
    assert torch.equal(whole, weights(fit(HalfFrozen(shift=1.0), OFTEN, old)))


def test_the_evaluation_hook_sees_the_averaged_weights_and_leaves_the_others_alone(tmp_path):
    seen, rows = {}, []

    def evaluate(step, modules):
        seen[step] = (weights(modules).clone(), modules["model"].training)
        return {"score": float(step)}

    config = dataclasses.replace(CONFIG, evaluate_every=2)
    with_hook = fit(Regression(), config, tmp_path / "a", Hooks(evaluate, [rows.append]))
    without = fit(Regression(), CONFIG, tmp_path / "b")
    assert torch.equal(weights(with_hook), weights(without))
    assert sorted(seen) == [2, 4] and not seen[2][1]
    assert torch.equal(seen[4][0], weights(with_hook))
    assert [row["score"] for row in rows if "score" in row] == [2.0, 4.0]


def test_a_resumed_log_holds_every_step_once(tmp_path):
    """Killed at step 3 with its last checkpoint at 2, whose log already told of step 3."""
    config = dataclasses.replace(CONFIG, steps=6, save_every_s=0.0)
    fit(Regression(), dataclasses.replace(config, save_every_s=1e9), tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(TrainingDiverged):
        fit(Regression(broken_at=2), config, parts)
    with (parts / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')
    fit(Regression(), config, parts)
    steps = [
        [row["step"] for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "loss" in row]
        for folder in (tmp_path / "whole", parts)
    ]
    assert steps[0] == steps[1] == [1, 2, 3, 4, 5, 6]


def test_what_changes_no_weights_may_change_when_a_run_is_resumed(tmp_path):
    fit(Regression(), CONFIG, tmp_path, identity={"batch_size": 4})
    other = dataclasses.replace(CONFIG, log_every=2, save_every_s=1.0, evaluate_every=2)
    fit(Regression(), other, tmp_path, identity={"batch_size": 4})
    with pytest.raises(ConfigError, match=r"made with other settings \(batch_size\)"):
        fit(Regression(), CONFIG, tmp_path, identity={"batch_size": 8})


def test_hooks_take_no_training_time(tmp_path):
    def slow(step, modules):
        time.sleep(0.3)
        return {"score": 1.0}

    rows = []
    config = dataclasses.replace(CONFIG, evaluate_every=1)
    fit(Regression(), config, tmp_path, Hooks(slow, [rows.append], evaluate_at_start=True))
    assert [row["step"] for row in rows if "score" in row] == [0, 1, 2, 3, 4]
    assert [row for row in rows if row.get("finished")][0]["seconds"] < 0.9
    assert sum(row.get("seconds_evaluate", 0) for row in rows) > 0.8


def test_every_step_says_where_its_time_went(tmp_path):
    rows = []
    fit(Regression(), CONFIG, tmp_path, Hooks(log=[rows.append]))
    steps = [row for row in rows if "loss" in row]
    for name in ("data", "forward", "backward", "optimizer"):
        assert all(row[f"seconds_{name}"] > 0 for row in steps)


def test_all_wrong_settings_are_listed_at_once():
    with pytest.raises(ConfigError, match=r"steps 0 .*; lr 2 .*; clip_norm 0.0 "):
        LoopConfig(steps=0, lr=2, clip_norm=0.0)


def test_a_contrastive_stage_is_not_cut_into_micro_batches(tmp_path):
    stage = Regression()
    stage.is_divisible = False
    with pytest.raises(ConfigError, match="micro-batches do not add up"):
        fit(stage, dataclasses.replace(CONFIG, accumulation=2), tmp_path)


def test_speed_and_share_of_the_peak_are_those_of_the_arithmetic(tmp_path):
    """Two linear layers of 16 rows, 1 -> 8 -> 1, forward and backward: the first has no input to differentiate."""

    class Named(Regression):
        def batch(self, step):
            return Batch([f"s{step}-{i}" for i in range(16)], super().batch(step))

        def loss(self, batch, generator):
            return super().loss(batch.value, generator)

    rows = []
    fit(Named(), CONFIG, tmp_path, Hooks(log=[rows.append], peak_tflops=1e-6))
    row = [row for row in rows if "loss" in row][-1]
    flops = 2 * 16 * 8 * (1 + 1) + 2 * 16 * 8 * (1 + 2)
    step_s = 16 / row["samples_per_s"]
    assert row["tflops_per_s"] * 1e12 * step_s == pytest.approx(flops, rel=0.01)
    assert row["share_of_peak"] == pytest.approx(row["tflops_per_s"] / 1e-6, rel=0.01)


def test_every_tensor_of_a_batch_is_moved():
    pair = collections.namedtuple("pair", "left right")
    batch = (Batch(["a"], (torch.ones(2), 3)), {"x": [torch.zeros(1)]}, pair(torch.ones(1), None))
    moved = to_device(batch, torch.device("meta"))
    assert moved[0].value[0].is_meta and moved[1]["x"][0].is_meta and moved[2].left.is_meta
    assert moved[0].ids == ["a"] and moved[0].value[1] == 3 and moved[2].right is None


class Shared(Regression):
    def rate_share(self, name):
        return 0.25 if name.startswith("model.0.") else 1.0


def test_a_share_of_the_rate_scales_what_its_parameters_move(tmp_path):
    """AdamW without decay: in the first step every weight moves by the rate, whatever its gradient."""
    config = dataclasses.replace(CONFIG, steps=1, warmup_steps=0, weight_decay=0.0, clip_norm=1e9, ema_decay=0.0)
    moved = {}
    for kind in (Regression, Shared):
        stage = kind()
        before = {key: value.clone() for key, value in stage.model.state_dict().items()}
        fit(stage, config, tmp_path / kind.__name__)
        after = stage.model.state_dict()
        moved[kind] = {key: (after[key] - before[key]).abs().mean().item() for key in before}
    for key, whole in moved[Regression].items():
        share = 0.25 if key.startswith("0.") else 1.0
        assert moved[Shared][key] == pytest.approx(share * whole, rel=1e-3) and whole > 0


def test_shares_of_the_rate_survive_a_kill(tmp_path):
    whole, cut = Shared(), Shared(broken_at=2)
    fit(whole, CONFIG, tmp_path / "whole")
    with pytest.raises(TrainingDiverged):
        fit(cut, dataclasses.replace(CONFIG, save_every_s=0.0), tmp_path / "cut")
    again = Shared()
    fit(again, dataclasses.replace(CONFIG, save_every_s=0.0), tmp_path / "cut")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
