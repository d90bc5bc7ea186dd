"""What a point trains with: equal data, equal starts, equal draws; and that an interrupted stage goes on exactly."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from blip3o.errors import ConfigError, DataError
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig
from blip3o.storage import read_tensors
from blip3o.train.autoencoder import build_vae, standardise
from blip3o.train.checkpoint import save_tensors
from blip3o.train.frozen_opening import FrozenOpening
from blip3o.train.nano_parts import build_backbone
from blip3o.train.stages import freeze
from blip3o.train.study import run
from blip3o.train.study.compute import budget
from blip3o.train.study.data import CaptionBatches, TextRows, features_key, write_features
from blip3o.train.study.losses import GeneratorPhase
from blip3o.train.study.model import count_parameters, fresh_model, study_tokenizer
from blip3o.train.study.plan import parts_folder
from blip3o.train.study.run import Job, run_stage
from blip3o.train.study.settings import read_settings

SMALL = {
    "compile": False,
    "backbone": "fresh",
    "understanding": {"steps": 2, "scenes": 1, "edits": 0, "texts": 1, "imagined": 0},
    "features": {"scenes": 128, "ceiling_scenes": 0},
    "generator": {"steps": 4, "batch": 4},
}
CELLS = [("clip", "flow"), ("clip", "mse"), ("vae", "flow")]
WORLD = SceneConfig.level("easy")


def settings(**values):
    return read_settings({**SMALL, **values})


@pytest.fixture(scope="module")
def tokenizer():
    return study_tokenizer("nano")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """What the stages before the generator leave, without their training: random backbone and VAE, pooled pictures as
    features."""
    root = tmp_path_factory.mktemp("stages")
    backbone = build_backbone(tokenizer, 0)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    for name in ("vision", "understanding"):
        (root / name).mkdir()
        save_tensors(root / name / run.BACKBONE, state)
    with torch.no_grad():
        standardise(build_vae(), torch.randn(4, 3, 64, 64)).save_pretrained(root / "autoencoder" / "vae")

    def pooled(channels):
        return lambda pixels: F.avg_pool2d(pixels, 8).repeat(1, 11, 1, 1)[:, :channels]

    for target, channels in (("clip", 32), ("vae", 16)):
        write_features(
            root / f"features-{target}" / "features", 128, WORLD, pooled(channels), tokenizer, key(target)
        )
    return root


def parents(folder, target, schedule):
    start = "vision" if schedule == "joint" else "understanding"
    found = {start: folder / start, "features": folder / f"features-{target}"}
    return found | ({"autoencoder": folder / "autoencoder"} if target == "vae" else {})


def key(target):
    return features_key(WORLD, f"features-{target}")


def batches(folder, target, seed=0, shares=(0.6, 0.15, 0.25), **values):
    files = folder / f"features-{target}" / "features"
    return CaptionBatches(files, key(target), 128, 8, seed, shares, 0, **values)


# -- data --------------------------------------------------------------------------------------------------------------


def test_every_target_sees_the_same_scenes_and_captions_in_the_same_order(folder):
    clip, vae = batches(folder, "clip"), batches(folder, "vae")
    for step in (0, 3, 17, 3):  # over the end of an epoch, and back
        a, b = clip(step), vae(step)
        assert a.ids == b.ids and torch.equal(a.input_ids, b.input_ids)
        assert a.features.shape[1] == 32 and b.features.shape[1] == 16
    assert clip(0).ids != batches(folder, "clip", seed=1)(0).ids


def test_an_epoch_shows_every_scene_once(folder):
    made = batches(folder, "clip")
    assert len({i for step in range(16) for i in made(step).ids}) == 128


def test_captions_have_the_shares_of_the_mixture_and_end_on_instruction_data(folder):
    lengths = {}
    for name, shares in (("prompt", (1.0, 0.0, 0.0)), ("long", (0.0, 0.0, 1.0))):
        lengths[name] = batches(folder, "clip", shares=shares)(0).attention_mask.sum(1).float().mean()
    assert lengths["long"] > 1.5 * lengths["prompt"]
    made = batches(folder, "clip", shares=(0.0, 0.0, 1.0), instruction_from=2)
    means = [made(step).attention_mask.sum(1).float().mean() for step in (1, 2)]
    assert means[0] > 1.5 * means[1]


def test_captions_are_those_of_their_scenes(folder, tokenizer):
    from blip3o.stickers import make_scene
    from blip3o.stickers.captions import prompt
    from blip3o.train.world_data import PROMPTS

    batch = batches(folder, "clip", shares=(1.0, 0.0, 0.0))(2)
    for name, ids, mask in zip(batch.ids, batch.input_ids, batch.attention_mask, strict=True):
        scene = make_scene("train", int(name.split("/")[1]), WORLD)
        assert tokenizer.decode(ids[mask.bool()]) == PROMPTS.generation(prompt(scene))


def test_missing_and_stale_features_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="0 of 1 shards"):
        CaptionBatches(tmp_path, "key", 128, 8, 0, (1.0, 0.0, 0.0), 0)
    with pytest.raises(DataError, match="other weights or scenes"):
        files = folder / "features-clip" / "features"
        CaptionBatches(files, key("vae"), 128, 8, 0, (1.0, 0.0, 0.0), 0)


def test_joint_training_reads_the_rows_of_the_understanding_phase(tokenizer):
    totals = {"scenes": 6, "edits": 2, "texts": 5, "imagined": 3}

    def rows(steps):
        made = TextRows(WORLD, tokenizer, 16, totals, steps, 0)
        return {
            kind: [made.row(kind, n)[0] for step in range(steps) for n in made.rows_of(kind, step)]
            for kind in totals
        }

    alone, beside = rows(2), rows(7)
    assert alone == beside
    assert {kind: len(found) for kind, found in alone.items()} == totals
    made = TextRows(WORLD, tokenizer, 16, {"scenes": 1}, 3, 0)
    assert [made(step)[0] is None for step in range(3)] == [True, True, False]


# -- starts and draws --------------------------------------------------------------------------------------------------


def test_all_cells_start_from_the_same_numbers(folder, tokenizer):
    state = read_tensors(folder / "vision" / run.BACKBONE)
    models = [
        fresh_model(settings(target=t, objective=o), 5, tokenizer, state).state_dict()
        for t, o in CELLS
    ]
    assert models[0].keys() == models[1].keys() == models[2].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    differing = {key for key in models[0] if not models[0][key].shape == models[2][key].shape}
    assert differing == {
        "dit.patch_embedder.proj.weight", "dit.norm_out.linear_2.weight", "dit.norm_out.linear_2.bias",
    }  # fmt: skip
    assert all(torch.equal(models[0][k], models[2][k]) for k in models[0] if k not in differing)
    other = fresh_model(settings(), 6, tokenizer, state).state_dict()
    assert not torch.equal(other["queries.latent_queries"], models[0]["queries.latent_queries"])


def test_parameters_of_the_cells_are_equal_but_for_the_patches(folder, tokenizer):
    state = read_tensors(folder / "vision" / run.BACKBONE)
    counts = [
        count_parameters(fresh_model(settings(target=t, objective=o), 0, tokenizer, state))
        for t, o in CELLS
    ]
    assert counts[0] == counts[1]
    assert counts[2]["generator"] == pytest.approx(counts[0]["generator"], rel=0.006)


def test_noise_levels_and_dropped_conditions_do_not_depend_on_the_target(folder, tokenizer):
    state = read_tensors(folder / "vision" / run.BACKBONE)
    seen = []
    for target, channels in (("clip", 32), ("vae", 16)):
        model = fresh_model(settings(target=target), 0, tokenizer, state)
        phase = GeneratorPhase(model, batches(folder, target), draws=2)
        model.forward = lambda **given: seen.append((given["u"], given["drop"])) or _Zero()
        clean = torch.zeros(8, channels, 8, 8)
        phase.image_loss(torch.zeros(8, 16, 256), clean, torch.Generator().manual_seed(3))
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])
    assert len(seen[0][0]) == 16


class _Zero:
    loss = torch.zeros(())


def test_the_opening_read_once_gives_the_same_states_and_gradients(folder, tokenizer):
    state = read_tensors(folder / "vision" / run.BACKBONE)
    model = fresh_model(settings(), 0, tokenizer, state)
    freeze(model.backbone)
    made = batches(folder, "clip")
    assert 15 < len(made.opening) < 40
    phase = GeneratorPhase(model, made, opening=FrozenOpening(model, made.opening))
    batch, found = made(1), []
    for condition in (
        phase.condition(batch),
        phase.condition(batch),  # the cache of the opening is not used up
        model.encode_condition(batch.input_ids, batch.attention_mask),
    ):
        model.queries.zero_grad()
        condition.square().sum().backward()
        found.append((condition.detach(), model.queries.latent_queries.grad.clone()))
    for states, gradient in found[:2]:
        assert torch.allclose(states, found[2][0], atol=1e-5)
        assert torch.allclose(gradient, found[2][1], atol=1e-3, rtol=1e-4)


# -- stages ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends the process as far as files are concerned: nothing is tidied up."""


@pytest.mark.parametrize(
    "schedule", ["sequential", pytest.param("joint", marks=pytest.mark.slow)]
)
def test_a_generator_that_was_killed_ends_in_the_same_weights(folder, tmp_path, monkeypatch, schedule):
    monkeypatch.setattr(run, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(run, "LOG_EVERY", 1)
    own = settings(schedule=schedule)
    steps = budget(own).steps
    job = Job(own, 1, tmp_path / "whole", parents(folder, "clip", schedule), export_at=(1,))
    whole = run_stage("generator", job)
    assert whole.steps == steps and set(whole.at) == {1} and whole.images == 4 * steps

    def kill(progress):
        if progress.step == 2:
            raise Killed

    with pytest.raises(Killed):
        run_stage("generator", replace(job, folder=tmp_path / "cut", report=kill))
    assert not (tmp_path / "cut" / run.EXPORT).exists()
    again = run_stage("generator", replace(job, folder=tmp_path / "cut"))
    assert again.weights == whole.weights
    files = [f"{name}/model.safetensors" for name in ("export", "export-step-1")]
    for name in files:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    learned = again.info["learned"], sum(again.info["parameters"].values())
    assert learned[0] == learned[1] if schedule == "joint" else learned[0] < learned[1]
    # finished: nothing is trained again
    stamp = (tmp_path / "cut" / "train" / "state.safetensors").stat().st_mtime_ns
    assert run_stage("generator", replace(job, folder=tmp_path / "cut")).weights == whole.weights
    assert (tmp_path / "cut" / "train" / "state.safetensors").stat().st_mtime_ns == stamp


def test_what_a_point_leaves_draws_and_answers(folder, tmp_path):
    own = settings(target="vae", generator={"steps": 1, "batch": 4})
    job = Job(own, 1, tmp_path, parents(folder, "vae", "sequential"))
    run_stage("generator", job)
    pipeline = Blip3oPipeline.from_pretrained(tmp_path / run.EXPORT)
    pictures = pipeline("a photo of a dog", generator=torch.Generator().manual_seed(0)).images
    assert pictures[0].size == (64, 64)
    assert isinstance(pipeline.ask(pictures[0], "What is it?", max_new_tokens=2), str)
    assert json.loads((tmp_path / run.DONE).read_text())["info"]["budget"]["steps"] == 1


@pytest.mark.parametrize("schedule", ["sequential", "joint"])
def test_a_pretrained_backbone_is_taken_as_it_is(folder, tmp_path, schedule):
    small = {key: value for key, value in SMALL.items() if key != "understanding"}
    texts = {"texts": {"scenes": 1, "texts": 0, "imagined": 1}} if schedule == "joint" else {}
    own = read_settings({**small, **texts, "backbone": "pretrained", "schedule": schedule})
    taken = run_stage("pretrained", Job(own, 0, tmp_path / "pretrained", {}))
    assert taken.steps == taken.learned == 0
    nano = Blip3oPipeline.from_pretrained("nano").model.backbone.vlm.state_dict()
    start = read_tensors(tmp_path / "pretrained" / run.BACKBONE)
    assert start.keys() == nano.keys() and all(torch.equal(start[key], nano[key]) for key in nano)
    before = {"pretrained": tmp_path / "pretrained", "features": folder / "features-clip"}
    run_stage("generator", Job(own, 1, tmp_path / "generator", before))
    state = read_tensors(tmp_path / "generator" / "train" / "state.safetensors")
    logged = (tmp_path / "generator" / "train" / "log.jsonl").read_text()
    assert ('"seen"' in logged and '"told"' in logged) == (schedule == "joint")
    assert any("backbone" in key for key in state) == (schedule == "joint")


def test_understanding_learns_all_of_the_backbone(folder, tmp_path):
    job = Job(settings(), 0, tmp_path, {"vision": folder / "vision"})
    finished = run_stage("understanding", job)
    before = read_tensors(folder / "vision" / run.BACKBONE)
    after = read_tensors(tmp_path / run.BACKBONE)
    assert finished.steps == 2 and before.keys() == after.keys()
    moved = [key for key in after if not torch.equal(before[key], after[key])]
    assert any("visual" in key for key in moved) and any("language_model" in key for key in moved)


def test_parts_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match="tokenizer.json is missing; name nano or a folder"):
        parts_folder(str(tmp_path))


@pytest.mark.slow
def test_the_stages_from_nothing(tmp_path):
    """Vision tower, autoencoder and both features with their ceilings; a few steps each."""
    own = settings(
        vision={"steps": 2, "batch": 4},
        autoencoder={"steps": 2, "batch": 4},
        features={"scenes": 128, "ceiling_scenes": 8},
    )
    assert run_stage("vision", Job(own, 0, tmp_path / "vision", {})).steps == 2
    run_stage("autoencoder", Job(own, 0, tmp_path / "autoencoder", {}))
    clip = run_stage("features", Job(own, 0, tmp_path / "clip", {})).info["ceiling"]
    vae_settings, beside = replace(own, target="vae"), {"autoencoder": tmp_path / "autoencoder"}
    vae = run_stage("features", Job(vae_settings, 0, tmp_path / "vae", beside)).info["ceiling"]
    assert clip["real"] == vae["real"] and clip["real"]["f1"] > 0.8
    assert clip["f1"] > 0.5 > vae["f1"] and clip["psnr_db"] > vae["psnr_db"]
