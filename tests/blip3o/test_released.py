"""The released checkpoints: names, sizes, loading and outputs, without their weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o import released
from blip3o.checkpoint_files import check_fit
from blip3o.dit import DiTConfig
from blip3o.errors import ConfigError, WeightsError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import released_config_values
from blip3o.strict_loading import read_config, read_shapes
from blip3o.unified import Blip3oModel

REAL = [("blip3o-4b", 1_362_257_824, 2048), ("blip3o-8b", 1_365_010_336, 3584)]


@pytest.mark.parametrize("is_new", [False, True], ids=["old names", "new names"])
@pytest.mark.parametrize(("name", "dit_parameters", "hidden"), REAL)
def test_models_of_the_real_sizes_take_the_documented_tensors(
    hollow_released, name, dit_parameters, hidden, is_new
) -> None:
    folder = hollow_released(name, is_new)
    config = read_config(folder)
    assert config.dit == DiTConfig(
        condition_dim=hidden, num_kv_heads=28, ffn_dim=4864, temb_dim=1024
    )
    with torch.device("meta"):
        model = Blip3oModel(config)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if name == "blip3o-4b":
        wanted.pop("backbone.vlm.lm_head.weight")  # tied
    check_fit(read_shapes(folder), wanted, folder)  # nothing missing, unknown or of another shape
    assert sum(p.numel() for p in model.dit.parameters()) == dit_parameters
    assert sum(key.startswith("dit.") for key in wanted) == 642


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dit_parameters", "hidden"), REAL)
def test_the_loader_takes_the_documented_tensors_whole(hollow_released, name, dit_parameters, hidden) -> None:
    model, info = Blip3oModel.from_pretrained(
        hollow_released(name), dtype=torch.float16, device_map="meta", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert sum(p.numel() for p in model.dit.parameters()) == dit_parameters


def test_sizes_without_weights_are_the_released_ones() -> None:
    for name, _, hidden in REAL:
        config = released.config_from_released(released_config_values(name))
        assert config.dit == DiTConfig(condition_dim=hidden) and config.dit.ffn_width == 4864
        assert config.num_queries == 64 and config.tokens.image_start == 151665


def test_a_width_that_differs_is_named_with_both_numbers(hollow_released) -> None:
    ffn = "model.dit.model.layers.7.feed_forward.linear_1.weight"
    folder = hollow_released("blip3o-4b", **{ffn: (7168, 1792)})
    with pytest.raises(
        WeightsError,
        match=r"wrong shape for dit.layers.7.feed_forward.linear_1.weight: \(7168, 1792\) in the file, \(4864, 1792\)",
    ):
        Blip3oModel.from_pretrained(folder)


def test_parts_of_different_models_are_told_apart(hollow_released) -> None:
    folder = hollow_released("blip3o-4b")
    (folder / "config.json").write_text(json.dumps(released_config_values("blip3o-8b")))
    with pytest.raises(ConfigError, match="hidden_size 3584, the weights .* are made for 2048; .*different models"):
        Blip3oModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "layout",
    [{}, {"is_sharded": False, "has_eva": False}, {"is_new": True, "has_decoder": False}],
    ids=["sharded", "single", "new names"],
)
def test_a_released_folder_gives_the_recorded_outputs(write_released, golden, tmp_path: Path, layout) -> None:
    folder = write_released(tmp_path / "BLIP3o-Model-tiny", **layout)
    pipe = Blip3oPipeline.from_pretrained(folder, dtype=torch.float32, compat="released")
    recorded = load_file(golden / "blip3o" / "generate_t2i.safetensors")
    condition = pipe.model.encode_condition(recorded["in.input_ids_before_img_token"])
    torch.testing.assert_close(condition, recorded["act.query_hidden"], atol=1e-5, rtol=0)
    features = pipe.model.sample_features(condition, noise=recorded["rng.init_noise"])
    torch.testing.assert_close(features, recorded["out.sample_nchw"], atol=1e-5, rtol=0)
    picture = load_file(golden / "blip3o" / "train_i2i.safetensors")
    ids, mask = picture["in.input_ids"], picture["in.attention_mask"]
    mask = mask * (torch.arange(ids.shape[1]) < picture["in.i_s_pos"][:, None] - 1)
    with torch.no_grad():
        seen = pipe.model.encode_condition(
            ids, mask, picture["in.und_image"].flatten(0, -2), picture["in.grid_thw"].reshape(-1, 3)
        )
    torch.testing.assert_close(seen, picture["aux.query_hidden"], atol=1e-5, rtol=0)
    assert (pipe.decoder is None) is (layout.get("has_decoder") is False)
    assert not pipe.prompts.is_closed and pipe.card.reconstruction_size_px == 448
    if pipe.decoder is not None:
        image = pipe("17 18", generator=[torch.Generator().manual_seed(0)], num_inference_steps=2).images[0]
        assert image.size == (16, 16)
        assert (pipe.decoder.config.sampling_steps, pipe.decoder.config.guidance_scale) == (50, 3.0)


def test_released_models_load_in_half_precision_unless_told_otherwise(write_released, tmp_path: Path) -> None:
    pipe = Blip3oPipeline.from_pretrained(write_released(tmp_path))
    assert {p.dtype for p in pipe.model.parameters()} == {torch.float16}
    # The VAE of this decoder overflows in float16.
    assert {p.dtype for p in pipe.decoder.parameters()} == {torch.bfloat16}
    assert pipe.prompts.is_closed  # the corrected behaviour is the default


def test_the_launcher_does_not_change_how_weights_load(write_released, tmp_path: Path, monkeypatch) -> None:
    folder = write_released(tmp_path, has_decoder=False)
    plain = Blip3oPipeline.from_pretrained(folder, dtype=torch.float32).model.state_dict()
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    under = Blip3oPipeline.from_pretrained(folder, dtype=torch.float32).model.state_dict()
    assert all(torch.equal(plain[name], under[name]) for name in plain) and plain.keys() == under.keys()
    import os

    assert os.environ["WORLD_SIZE"] == "4"


@pytest.mark.parametrize(
    "device_map", ["auto", {"": "cpu"}, {"backbone": "disk", "queries": "cpu", "dit": "cpu"}], ids=str
)
def test_spread_and_offloaded_models_give_the_same_features(
    write_released, golden, tmp_path: Path, device_map
) -> None:
    folder = write_released(tmp_path / "model")
    pipe = Blip3oPipeline.from_pretrained(
        folder, dtype=torch.float32, compat="released", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    recorded = load_file(golden / "blip3o" / "generate_t2i.safetensors")
    condition = pipe.model.encode_condition(recorded["in.input_ids_before_img_token"])
    features = pipe.model.sample_features(condition, noise=recorded["rng.init_noise"])
    torch.testing.assert_close(features, recorded["out.sample_nchw"], atol=1e-5, rtol=0)
    image = pipe("17 18", generator=[torch.Generator().manual_seed(0)], decoder_steps=1).images[0]
    assert image.size == (16, 16)
    with pytest.raises(ConfigError, match="not both"):
        Blip3oPipeline.from_pretrained(folder, device="cpu", device_map="auto")


def test_what_is_saved_from_a_released_folder_loads(write_released, tmp_path: Path) -> None:
    pipe = Blip3oPipeline.from_pretrained(write_released(tmp_path / "in"), dtype=torch.float32)
    pipe.save_pretrained(tmp_path / "out")
    again = Blip3oPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    before, after = pipe.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    pictures = [
        p("17", generator=[torch.Generator().manual_seed(1)], decoder_steps=1).images[0] for p in (pipe, again)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes()


@pytest.mark.parametrize("name", ["BLIP3o/BLIP3o-Model-4B", "blip3o-4b"])
def test_a_hub_id_is_found_on_this_machine(write_released, tmp_path: Path, monkeypatch, name) -> None:
    """The hub's own cache: snapshots of links to blobs, and the branch that names one."""
    cache = tmp_path / "hub" / "models--BLIP3o--BLIP3o-Model-4B"
    snapshot, blobs = cache / "snapshots" / "abc123", cache / "blobs"
    plain = write_released(tmp_path / "plain", has_decoder=False)
    for folder in (snapshot, blobs, cache / "refs"):
        folder.mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc123")
    for number, file in enumerate(sorted(plain.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("connects"))
    pipe = Blip3oPipeline.from_pretrained(name, dtype=torch.float32)
    assert pipe.model.config.dit.ffn_width == 96


def test_the_licence_of_the_backbone_is_said_when_it_loads(hollow_released, monkeypatch, caplog) -> None:
    from blip3o import loading

    folder = hollow_released("blip3o-4b")

    class Tokens(dict):
        def get_vocab(self) -> dict[str, int]:
            return self

    tokens = Tokens({"[IMG]": 0, "[/IMG]": 1, "<image>": 2})
    monkeypatch.setattr(loading, "load_tokenizer", lambda f: tokens)
    monkeypatch.setattr(loading.Blip3oModel, "from_pretrained", lambda *a, **k: None)
    card = loading.load_parts(folder).card  # without decoder, so nothing asks the model
    assert "no commercial use" in card.licence
    assert [r.levelname for r in caplog.records if "no commercial use" in r.message] == ["WARNING"]


def test_the_licence_of_the_backbone_travels_with_the_model() -> None:
    licences = [
        released.backbone_licence(released.config_from_released(released_config_values(name))) for name, *_ in REAL
    ]
    assert "Qwen2.5-VL-3B" in licences[0] and "no commercial use" in licences[0]
    assert "Qwen2.5-VL-7B" in licences[1] and "Apache-2.0" in licences[1]


# Bad input


def test_a_missing_shard_is_named(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match="shard .*model-00002-of-00003.safetensors is missing"):
        Blip3oPipeline.from_pretrained(folder)


def test_a_shard_of_another_model_is_named(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path)
    shard = folder / "model-00003-of-00003.safetensors"
    save_file({"some.other": torch.zeros(2)}, shard, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="00003-of-00003.safetensors lacks .* different models"):
        Blip3oPipeline.from_pretrained(folder)


def test_a_shard_cut_short_is_named(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path)
    shard = folder / "model-00001-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="model-00001-of-00003.safetensors is damaged or cut short"):
        Blip3oPipeline.from_pretrained(folder)


def test_the_decoder_of_another_model_is_refused(write_released, tmp_path: Path) -> None:
    from blip3o.presets import build_tiny

    folder = write_released(tmp_path, has_decoder=False)
    build_tiny().decoder.save_pretrained(folder / "diffusion-decoder")
    with pytest.raises(WeightsError, match="reads features of 6 channels, the model makes 16; .*different models"):
        Blip3oPipeline.from_pretrained(folder)


def test_two_sets_of_weights_in_a_folder_are_refused(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="holds both model.safetensors and model.safetensors.index.json"):
        Blip3oPipeline.from_pretrained(folder)


def test_pickled_weights_are_refused(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path, is_sharded=False)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pytorch_model.bin is a pickle.*not loaded; fetch the safetensors"):
        Blip3oPipeline.from_pretrained(folder)


def test_weights_that_are_not_finite_are_named(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path, is_sharded=False)
    tensors = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    for value in (float("nan"), float("-inf")):
        tensors["model.dit.model.layers.1.norm2.weight"][3] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match="not finite: dit.layers.1.norm2.weight"):
            Blip3oPipeline.from_pretrained(folder)


def test_a_tensor_too_few_and_one_too_many_are_named(write_released, tmp_path: Path) -> None:
    folder = write_released(tmp_path, is_sharded=False)
    path = folder / "model.safetensors"
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    gate = tensors.pop("model.dit.model.layers.1.gate")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lack dit.layers.1.gate"):
        Blip3oPipeline.from_pretrained(folder)
    save_file(tensors | {"model.dit.model.layers.1.gate": gate, "model.surprise": gate.clone()}, path)
    with pytest.raises(WeightsError, match="model.surprise is not a parameter of a released"):
        Blip3oPipeline.from_pretrained(folder)


def test_the_backbones_own_tokenizer_is_refused(write_released, tmp_path: Path) -> None:
    from blip3o.train.tokenizer import train_tokenizer

    folder = write_released(tmp_path, has_decoder=False)
    tokenizer = train_tokenizer(["a dog"], 300)
    tokenizer.save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text().replace("[/IMG]", "[/OTHER]")
    (folder / "tokenizer.json").write_text(text)
    (folder / "tokenizer_config.json").write_text(
        (folder / "tokenizer_config.json").read_text().replace("[/IMG]", "[/OTHER]")
    )
    with pytest.raises(WeightsError, match=r"the tokenizer lacks \[/IMG\]"):
        Blip3oPipeline.from_pretrained(folder)


def test_parts_that_are_not_used_are_left_out_and_others_refused() -> None:
    assert released.map_name("model.gen_vision_tower.vision_tower.model.cls_token") is None
    assert released.map_name("model.dit.model.pad_token") is None
    assert released.map_name("model.language_model.norm.weight") == "backbone.vlm.model.language_model.norm.weight"
    with pytest.raises(WeightsError, match="model.surprise is not a parameter"):
        released.map_name("model.surprise")


def test_configurations_of_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="'llama' is not a released BLIP3-o"):
        released.config_from_released({"model_type": "llama"})
    values = released_config_values("blip3o-4b")
    del values["gen_vision_tower"]
    with pytest.raises(ConfigError, match="names no gen_vision_tower"):
        released.config_from_released(values)
