"""Two processes learn what one does: replicated, sharded, accumulated, resumed, and resumed by another number."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip3o.pipeline import Blip3oPipeline
from blip3o.train.loop import fit

SCRIPT = Path(__file__).with_name("two_processes.py")
_spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


def torchrun(script, folder):
    """Two gloo processes on this machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder and results of a run by two gloo processes."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(SCRIPT, folder)
    return folder, json.loads((folder / "results.json").read_text())


def one(folder, micro_batches):
    """The same samples in this process alone."""
    config = dataclasses.replace(script.CONFIG, accumulation=micro_batches)
    return script.weights(fit(script.Masked(), config, folder))


def close(a, b):
    return torch.allclose(torch.tensor(a), torch.tensor(b), rtol=0, atol=2e-6)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_learn_what_one_learns(two, tmp_path, sharding):
    _, results = two
    assert close(results[sharding], one(tmp_path / "2", 2))
    assert close(results[f"{sharding}-accumulated"], one(tmp_path / "4", 4))
    assert not close(results[sharding], results[f"{sharding}-accumulated"])


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_a_resumed_run_of_two_processes_is_the_same_bit_for_bit(two, sharding):
    _, results = two
    assert results[f"{sharding}-resumed"] == results[sharding]


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_one_process_goes_on_with_the_checkpoint_of_two(two, tmp_path, sharding):
    """The file of two processes at step 4 of 4 loads in one, which has nothing left to do."""
    folder, results = two
    config = dataclasses.replace(script.CONFIG, accumulation=2)
    modules = fit(script.Masked(), config, folder / sharding)
    assert close(script.weights(modules), results[sharding])


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_frozen_weights_are_not_saved_and_processes_resume_beside_them(two, tmp_path, sharding):
    folder, results = two
    config = dataclasses.replace(script.CONFIG, accumulation=2)
    alone = script.weights(fit(script.Masked(frozen=True), config, tmp_path))
    assert close(results[f"{sharding}-frozen"], alone)
    held = load_file(folder / f"{sharding}-frozen/state.safetensors")
    assert not any("model.0." in name for name in held) and "weights.parts.model.1.inner.weight" in held
    again = fit(script.Masked(frozen=True), config, folder / f"{sharding}-frozen")  # the same digest in one process
    assert close(results[f"{sharding}-frozen"], script.weights(again))


def test_all_processes_stop_when_the_loss_of_one_is_not_finite(two):
    _, results = two
    for sharding in ("ddp", "fsdp2"):
        assert "the loss of another process is not finite at step 1" in results[f"{sharding}-nan-0"]
        assert "loss nan at step 1" in results[f"{sharding}-nan-1"]


def test_a_recipe_is_sharded_scored_and_saved_as_the_replicated_one(folder, values, tmp_path):
    """Joint training: backbone, vision tower, queries and DiT, each in sharded blocks, with pictures drawn on the way.

    Both runs see the same batches in the same order, so they differ by rounding alone.
    """
    evaluate = {"every": 1, "prompts": ["a dog"]}
    for name in ("ddp", "fsdp2"):
        loop = {"steps": 2, "lr": 1e-3, "warmup_steps": 0, "bf16": False, "log_every": 1, "sharding": name}
        recipe = values(folder, "joint", loop=loop, evaluate=evaluate, fresh_head=True)
        (tmp_path / f"{name}.json").write_text(json.dumps(recipe))
    torchrun(SCRIPT.with_name("two_processes_recipe.py"), tmp_path)
    replicated, sharded = (
        Blip3oPipeline.from_pretrained(tmp_path / name / "model").model.state_dict() for name in ("ddp", "fsdp2")
    )
    assert replicated.keys() == sharded.keys()
    for name, tensor in replicated.items():
        assert torch.allclose(tensor, sharded[name], atol=1e-5), name
    start = Blip3oPipeline.from_pretrained(folder / "model").model.state_dict()
    learned = "backbone.vlm.model.visual.patch_embed.proj.weight"
    assert not torch.equal(start[learned], sharded[learned])
    for name in ("ddp", "fsdp2"):
        rows = [json.loads(line) for line in (tmp_path / name / "train/log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if row.get("evaluation")] == [1, 2]
        assert not any("samples_failed" in row for row in rows)
        assert all(row["seconds_communication"] > 0 and row["share_of_peak"] > 0 for row in rows if "loss" in row)
        tallies = json.loads((tmp_path / name / "data.json").read_text())
        assert tallies["pictures"]["read"] == 2 * 2 * 3 and tallies["talk"]["bad"] == 0


def test_accumulated_micro_batches_equal_one_large_batch(tmp_path):
    """Units differ between micro-batches, so a mean of their means would be another gradient."""

    class Large(script.Masked):
        def batch(self, index):
            rows = [super(Large, self).batch(2 * index + i)[1] for i in (0, 1)]
            return index, torch.cat(rows)

    large = script.weights(fit(Large(), script.CONFIG, tmp_path / "large"))
    assert close(large, one(tmp_path / "small", 2))
