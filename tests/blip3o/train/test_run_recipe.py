"""Recipes on real files: a tiny model learns from archives and conversations, resumes, and is saved as a pipeline."""

from __future__ import annotations

import dataclasses
import io
import json
import logging

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from blip3o.cli import main
from blip3o.data.records import RawRecord
from blip3o.data.sticker_table import StickerTable
from blip3o.errors import ConfigError, DataError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny
from blip3o.train.distributed import Processes
from blip3o.train.estimate import estimate
from blip3o.train.recipe import load_recipe, named_recipes, recipe_from_dict
from blip3o.train.recipe_cache import make_encoder
from blip3o.train.records_stage import learn_only, unusual_scale
from blip3o.train.run_recipe import (
    TargetCache,
    load_parts,
    make_stage,
    open_source,
    prepare,
    run_recipe,
)
from blip3o.vision.preprocess import fit_square


def changed(before, after):
    """Top-level parts whose parameters differ."""
    after = dict(after.named_parameters())
    return {
        name.split(".")[0]
        for name, value in before.named_parameters()
        if not torch.equal(value, after[name])
    }


@pytest.mark.parametrize(
    ("stage", "learned"),
    [
        ("generation", {"queries", "dit"}),
        ("joint", {"backbone", "queries", "dit"}),
        ("understanding", {"backbone"}),
    ],
)
def test_each_stage_learns_its_parts_and_no_other(folder, values, tmp_path, stage, learned):
    saved = run_recipe(recipe_from_dict(values(folder, stage)), tmp_path)
    before, after = (Blip3oPipeline.from_pretrained(f) for f in (folder / "model", saved))
    assert changed(before.model, after.model) == learned
    rows = [json.loads(line) for line in (tmp_path / "train/log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 4 and ("text" in steps[0]) == (stage != "generation")
    assert ("seconds_target_encoder" in steps[0]) == (stage != "understanding")
    assert after("a photo of a dog").images[0].size == (32, 32)
    tallies = json.loads((tmp_path / "data.json").read_text())
    assert all(tally["bad"] == 0 and tally["read"] > 0 for tally in tallies.values())


def test_an_interrupted_run_ends_where_an_undisturbed_one_does(folder, values, tmp_path, monkeypatch):
    recipe = recipe_from_dict(values(folder, "joint"))
    often = dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, save_every_s=0.0))
    whole = Blip3oPipeline.from_pretrained(run_recipe(recipe, tmp_path / "whole"))
    from blip3o.train.records_stage import RecordsStage

    original, calls = RecordsStage.loss, []

    def interrupted(self, batch, generator):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(RecordsStage, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(often, tmp_path / "parts")
    resumed = Blip3oPipeline.from_pretrained(run_recipe(often, tmp_path / "parts"))
    assert changed(whole.model, resumed.model) == set()


def losses(folder):
    rows = [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("learns", [None, ["{head}.*"]])
def test_cached_and_fresh_features_give_the_same_losses(folder, values, tmp_path, learns):
    """With frozen queries the query states are kept too. Rows are bfloat16, so losses agree to its precision."""
    fresh = recipe_from_dict(values(folder, learns=learns))
    cached = dataclasses.replace(fresh, cache=str(tmp_path / "cache"))
    run_recipe(fresh, tmp_path / "fresh")
    run_recipe(cached, tmp_path / "first")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    run_recipe(cached, tmp_path / "second")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    assert losses(tmp_path / "first") == pytest.approx(losses(tmp_path / "fresh"), rel=2e-2)
    rows = (tmp_path / "first/train/log.jsonl").read_text()
    assert "seconds_target_encoder" not in rows
    assert ("seconds_backbone" in rows) == (learns is None)


def test_a_stale_cache_is_refused(folder, values, tmp_path):
    recipe = recipe_from_dict(values(folder, cache=str(tmp_path / "cache")))
    run_recipe(recipe, tmp_path / "run")
    pipeline, target = load_parts(recipe)
    prepare(pipeline, recipe)
    cache = TargetCache(recipe, pipeline, target)
    data = recipe.data[0]
    source = cache.source(data, open_source(data))
    shard = source.shards()[0]
    assert len(list(source.read(shard))) == 6 and len(list(source.read(shard, 4))) == 2
    with torch.no_grad():
        next(target.parameters()).add_(1)
    other = TargetCache(recipe, pipeline, target).source(data, open_source(data))
    with pytest.raises(DataError, match="made by other weights or settings"):
        next(other.read(shard))
    with pytest.raises(DataError, match="changed since it was cached: record 0 is '3'"):
        next(dataclasses.replace(source, source=Shifted(open_source(data))).read(shard))
    with pytest.raises(DataError, match="is not in the cache"):
        next(dataclasses.replace(source, folder=tmp_path / "none").read(shard))


@dataclasses.dataclass
class Shifted:
    """The same shard without its first three records."""

    source: object
    name = "pictures"

    def read(self, shard, start=0):
        return self.source.read(shard, start + 3)


def test_the_sticker_world_is_a_data_set_like_any_other(folder, values, tmp_path):
    data = [
        {"name": "scenes", "layout": "stickers", "paths": ["easy:5000"]},
        {"name": "talk", "layout": "stickers", "paths": ["easy:5000:5000"], "kind": "conversations"},
    ]
    recipe = recipe_from_dict(values(folder, "joint", data=data, shuffle_block=64))
    run_recipe(recipe, tmp_path)
    tallies = json.loads((tmp_path / "data.json").read_text())
    assert tallies["scenes"]["read"] == 12 and tallies["talk"]["bad"] == 0
    row = StickerTable("easy", rows=9)[4]
    assert row == {**StickerTable("easy", rows=5, first=4)[0], "image": row["image"]}
    for text, message in (("easy:x", "is not level"), ("easy:0", "rows 0"), ("hard", "hard")):
        with pytest.raises(ConfigError, match=message):
            StickerTable.parse(text, "train", "captions")


def test_query_only_backward_gives_the_same_gradients(folder, values):
    """float64: the prompt without gradients against a key/value cache, and the whole graph."""
    pipeline, target = load_parts(recipe_from_dict(values(folder)))
    recipe = recipe_from_dict(values(folder))
    prepare(pipeline, recipe)
    stage = make_stage(recipe, pipeline, target, Processes())
    (batch,) = stage.batch(0)
    model = pipeline.model.double()
    gradients = []
    for short in (True, False):
        model.zero_grad()
        condition = model.encode_condition(
            batch.input_ids, batch.attention_mask, query_only_backward=short
        )
        features = target(batch.target).double()
        draws = {"u": torch.full((3,), 0.3).double(), "noise": torch.ones_like(features)}
        drop = torch.zeros(3, dtype=torch.bool)
        model(target=features, condition=condition, drop=drop, **draws).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and "queries.latent_queries" in gradients[0]
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-9, atol=1e-14), name


def test_activation_checkpointing_changes_no_gradient(folder, values):
    gradients = []
    for on in (False, True):
        recipe = recipe_from_dict(values(folder, "joint", activation_checkpointing=on))
        pipeline, target = load_parts(recipe)
        prepare(pipeline, recipe)
        stage = make_stage(recipe, pipeline, target, Processes())
        pipeline.model.train()
        assert on == any(getattr(m, "gradient_checkpointing", False) for m in pipeline.model.modules())
        terms, _ = stage.loss(stage.batch(0), torch.Generator().manual_seed(1))
        sum(terms.values()).backward()
        gradients.append({n: p.grad for n, p in pipeline.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7), name


def test_activation_checkpointing_of_a_frozen_backbone_changes_no_loss(folder, values, tmp_path):
    """The shipped recipes' case: the prompt passes a frozen backbone once, the queries read its keys and values."""
    losses = []
    for on in (False, True):
        run_recipe(recipe_from_dict(values(folder, activation_checkpointing=on)), tmp_path / str(on))
        rows = (tmp_path / str(on) / "train/log.jsonl").read_text().splitlines()
        losses.append([row["loss"] for row in map(json.loads, rows) if "loss" in row])
    assert losses[0] and losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_frozen_backbone_that_keeps_no_cache_is_refused(folder, values):
    recipe = recipe_from_dict(values(folder, activation_checkpointing=True))
    pipeline, target = load_parts(recipe)
    prepare(pipeline, recipe)
    stage = make_stage(recipe, pipeline, target, Processes())
    pipeline.model.train()
    with pytest.raises(ConfigError, match="kept no keys and values of the prompt"):
        stage.loss(stage.batch(0), torch.Generator().manual_seed(1))


def test_a_batch_without_pictures_passes_the_vision_tower_that_learns(folder, values):
    """Processes whose own records show none would leave the others waiting; one token times zero changes no number."""
    pipeline = Blip3oPipeline.from_pretrained(folder / "model")
    backbone, ids = pipeline.model.backbone, torch.tensor([[5, 6, 7]])
    plain = backbone.embed(ids)
    tower = backbone.vlm.model.visual
    tower.requires_grad_(True)
    backbone.train()
    seen = backbone.embed(ids)
    seen.sum().backward()
    assert torch.equal(seen, plain)
    assert all(p.grad is not None and not p.grad.any() for p in tower.parameters())
    tower.requires_grad_(False)
    assert torch.equal(backbone.embed(ids), plain)


def test_a_picture_to_reconstruct_is_shown_as_the_crop_that_is_its_target(folder, values):
    """Released models: 448 px of 1024 x 768 are 264 tokens; here 64 px of 200 x 100 are 16."""
    recipe = recipe_from_dict(values(folder))
    pipeline, target = load_parts(recipe)
    pipeline.card = dataclasses.replace(pipeline.card, reconstruction_size_px=64)
    spec = dataclasses.replace(recipe.data[0], kind="reconstruction")
    encoder = make_encoder(recipe, spec, pipeline, target)
    image = Image.effect_noise((200, 100), 80).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    encoded = encoder(RawRecord("a", {"png": buffer.getvalue(), "txt": b"noise"}))
    shown = pipeline.inputs.patches([fit_square(image, 64)], 64)
    assert torch.equal(encoded.patches.pixel_values, shown.pixel_values)
    assert torch.equal(encoded.target, target.preprocess([image])[0])


def test_conversations_are_written_as_the_chat_template_writes_them(folder, values):
    recipe = recipe_from_dict(values(folder, "understanding"))
    pipeline, target = load_parts(recipe)
    (batch,) = make_stage(recipe, pipeline, target, Processes()).batch(0)
    tokenizer = pipeline.tokenizer
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat is it? "}]},
        {"role": "assistant", "content": "a dog"},
    ]
    template = tokenizer.apply_chat_template(messages, tokenize=False)
    row = batch.input_ids[0][batch.attention_mask[0].bool()]
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert int((batch.input_ids == pad).sum()) == sum(batch.patches.tokens)
    text = tokenizer.decode(row).replace("<|image_pad|>" * batch.patches.tokens[0], "<|image_pad|>")
    # the user typed <|im_end|>: it is there as text and ends nothing
    assert text.replace("<|im_end|>", "") == template.replace("<|im_end|>", "")
    ends = int((row == tokenizer.convert_tokens_to_ids("<|im_end|>")).sum())
    assert ends == template.count("<|im_end|>")
    learned = batch.labels[0][batch.labels[0] != -100]
    assert tokenizer.decode(learned) == "a dog<|im_end|>"


def test_targets_that_drown_in_the_noise_are_said(folder, values, tmp_path, caplog):
    """A VAE without the scale of its latents trains to nothing, and its loss looks well doing so."""
    assert unusual_scale(torch.randn(2, 4, 8, 8)) is None
    assert "deviation of 0.05" in unusual_scale(0.05 * torch.tensor([-1.0, 1.0] * 64) * (127 / 128) ** 0.5)
    build_tiny(name="tiny-vae-flow").save_pretrained(tmp_path / "vae")  # a random VAE's latents have an sd of 0.05
    recipe = recipe_from_dict({**values(folder), "model": str(tmp_path / "vae")})
    with caplog.at_level(logging.WARNING):
        run_recipe(dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, steps=2)), tmp_path / "run")
    assert caplog.text.count("the noise of flow matching has 1") == 1 and "scaling_factor" in caplog.text


def test_records_that_are_too_long_are_counted_as_bad(folder, values, tmp_path):
    recipe = recipe_from_dict(values(folder, max_length=12))
    with pytest.raises(DataError, match=r"data set 'pictures': .* are bad.*at most 12"):
        run_recipe(
            dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, steps=400)), tmp_path
        )


def test_a_pattern_that_matches_nothing_is_refused(folder, values):
    with pytest.raises(ConfigError, match=r"pattern 'quries\.\*' matches no parameter"):
        learn_only(build_tiny().model, ["quries.*"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stge": 1}, "unknown key recipe.stge; did you mean stage"),
        ({"loop": {"steps": 1, "lr": 1e-3, "stps": 2}}, "did you mean steps"),
        ({"loop": {"steps": "many", "lr": 1e-3}}, "loop.steps must be a whole number, got 'many'"),
        ({"loop": {"steps": 1}}, "loop lacks lr"),
        ({"stage": "genration"}, "stage 'genration' is unknown: one of understanding"),
        ({"text_weight": 1.0}, "no data has conversations; text_batch_size 0"),
        ({"image_weight": 0.0}, "captions is unused: image_weight is 0"),
        ({"data": []}, "data is empty"),
        ({"data": [{"name": "a", "layout": "tar", "paths": ["x"]}]}, "'tar' is unknown: one of"),
        ({"data": [{"name": "a", "layout": "json", "paths": "x"}]}, "paths must be a list"),
        ({"data": [{"name": "a", "layout": "json", "paths": ["$NOT_SET/x"]}]}, "has no NOT_SET"),
    ],
)
def test_bad_recipes_are_refused_before_any_weight_loads(folder, values, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(values(folder, **changes))


def test_everything_that_is_wrong_is_listed_at_once(folder, values):
    loop = {"steps": 0, "lr": 1e-3, "stps": 2, "betas": [0.9], "seed": -1, "max_minutes": 0}
    changes = {"loop": loop, "batchsize": 3, "workers": "four", "stage": "joint", "evaluate": {"every": 0, "hook": "x"}}
    with pytest.raises(ConfigError) as error:
        recipe_from_dict({**values(folder), **changes})
    for part in (
        "loop.stps; did you mean steps?", "steps 0 is out of range", "betas (0.9,) is out of range: two numbers",
        "seed -1 is out of range", "max_minutes 0.0 is out of range", "recipe.batchsize; did you mean batch_size?",
        "recipe.workers must be a whole number, got 'four'", "no data has conversations", "evaluate.every 0",
        "'x' must be module:function", "text_batch_size 0",
    ):  # fmt: skip
        assert part in str(error.value), part
    assert "\n" not in str(error.value)


def test_the_command_trains_a_file_and_reports_mistakes_in_one_line(folder, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(folder)))
    database = f"sqlite:///{tmp_path}/curves.db"
    command = ["train", "mine.yaml", "--set", "loop.steps=2", "--tracking-uri", database]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "runs/train-mine/model/config.json").is_file()
    import mlflow

    (run,) = mlflow.MlflowClient(database).search_runs(["1"])
    assert run.info.status == "FINISHED" and run.data.params["lr"] == "0.001"
    assert len(mlflow.MlflowClient(database).get_metric_history(run.info.run_id, "loss")) == 2
    for command, message in (
        (["train", "nanoo"], "'nanoo' is neither a recipe nor a file"),
        (["train", "mine.yaml", "--set", "loop.lr"], "write it as key=value"),
        (["train", "mine.yaml", "--set", "data.3.name=x"], "there is no entry 3; entries 0 to 0"),
        (["train", "mine.yaml", "--stage", "clip"], "belong to nano"),
        (["train", "nano", "--set", "a=1"], "not to nano"),
    ):
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code != 0 and message in refused.output, refused.output


def test_released_recipes_hold_the_released_settings_and_are_estimated(monkeypatch):
    """Sizes: 1.36 billion learn (queries and DiT). Arithmetic: the frozen target tower's 9 TFLOP dominate."""
    monkeypatch.setenv("BLIP3O_DATA", "/data")
    names = ["blip3o-4b-pretrain", "blip3o-4b-sft", "blip3o-8b-pretrain", "blip3o-8b-sft"]
    assert named_recipes() == names
    pretrain, sft = (load_recipe(f"blip3o-4b-{kind}") for kind in ("pretrain", "sft"))
    assert pretrain.loop.lr == sft.loop.lr == 1e-4 and pretrain.loop.clip_norm == 1.0
    assert pretrain.loop.min_lr_ratio == 0.1 and sft.loop.min_lr_ratio == 0.0
    assert pretrain.max_length == 512 and pretrain.fresh_head and not sft.fresh_head
    for name in names:
        recipe, is_pretraining = load_recipe(name), name.endswith("pretrain")
        loop = recipe.loop
        assert (recipe.batch_size, recipe.max_length, loop.accumulation, loop.seed) == (16, 512, 1, 42)
        assert (loop.betas, loop.weight_decay, loop.schedule, loop.clip_norm) == ((0.9, 0.999), 0.0, "cosine", 1.0)
        assert loop.warmup_steps == 0.003 * loop.steps and loop.steps == (150_000 if is_pretraining else 10_000)
        assert loop.lr == 1e-4 and loop.lr * loop.min_lr_ratio == (1e-5 if is_pretraining else 0.0)
        assert loop.bf16 and recipe.activation_checkpointing and loop.ema_decay == 0.0
        assert recipe.spec.learns == ("queries.*", "{head}.*")
    found = estimate(pretrain, processes=32)
    assert found.samples == 150_000 * 512
    assert found.learned == pytest.approx(1.36e9, rel=0.01)
    assert 10e12 < found.flops_per_sample < 13e12
    alone = estimate(dataclasses.replace(pretrain), processes=1)
    assert alone.memory_gb_per_process > 4 * found.memory_gb_per_process / 2
    whole, turned = (
        estimate(dataclasses.replace(pretrain, loop=dataclasses.replace(pretrain.loop, optimizer=name, sharding="ddp")))
        for name in ("adamw", "muon")
    )
    saved = whole.memory_gb_per_process - turned.memory_gb_per_process  # one moment of what is linear, nearly all
    assert 0.99 * 4 * found.learned < saved * 1e9 < 4 * found.learned
