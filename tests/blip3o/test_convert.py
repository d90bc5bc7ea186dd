"""Weights from layout to layout and back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from blip3o.cli import main
from blip3o.convert import convert, read_plain_tensors
from blip3o.errors import ConfigError, WeightsError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny
from blip3o.vision.encoders import EvaConfig, EvaEncoder
from blip3o.vision.targets import load_target


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def picture(pipe: Blip3oPipeline) -> bytes:
    return pipe("17 18", generator=[torch.Generator().manual_seed(0)], decoder_steps=2).images[0].tobytes()


def test_released_to_ours_and_back_loses_nothing(write_released, tmp_path: Path) -> None:
    source = write_released(tmp_path / "source", has_eva=False)
    assert convert(source, tmp_path / "ours", "blip3o", shard_bytes=2_000_000) == []
    assert len(list((tmp_path / "ours").glob("model-*-of-*.safetensors"))) > 1
    assert not list((tmp_path / "ours").rglob("*.py"))  # code beside the decoder is left behind
    assert convert(tmp_path / "ours", tmp_path / "back", "released") == [
        "the transformer is not of the released size; upstream's code builds that size whatever the weights say"
    ]
    before, after = all_tensors(source), all_tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    kept = json.loads((tmp_path / "back" / "config.json").read_text())
    for key, value in json.loads((source / "config.json").read_text()).items():
        if key in ("hidden_size", "n_query", "gen_hidden_size", "model_type", "vocab_size", "vision_config"):
            assert kept[key] == value, key
    pipes = [Blip3oPipeline.from_pretrained(tmp_path / f, dtype=torch.float32) for f in ("source", "ours", "back")]
    assert len({picture(pipe) for pipe in pipes}) == 1
    assert pipes[1].card.reconstruction_size_px == 448


def test_the_new_names_are_those_of_current_transformers(write_released, tmp_path: Path) -> None:
    source = write_released(tmp_path / "source", has_decoder=False)
    notes = convert(source, tmp_path / "new", "released-new")
    assert notes[0].endswith("has no diffusion-decoder/")
    names = set(all_tensors(tmp_path / "new"))
    assert "model.language_model.layers.0.mlp.up_proj.weight" in names
    assert "model.visual.patch_embed.proj.weight" in names
    assert "model.gen_vision_tower.vision_tower.model.cls_token" in names  # what was saved along stays
    convert(tmp_path / "new", tmp_path / "old", "released")
    before, after = all_tensors(source), all_tensors(tmp_path / "old")
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def test_a_model_of_ours_becomes_a_released_folder(tmp_path: Path) -> None:
    tiny = build_tiny()
    tiny.save_pretrained(tmp_path / "ours")
    runner = CliRunner()
    arguments = ["convert", str(tmp_path / "ours"), str(tmp_path / "out"), "--layout", "released", "--dtype", "float16"]
    result = runner.invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "of a kind that only this package reads" in result.stderr
    assert "lm_head.weight" not in all_tensors(tmp_path / "out")  # tied
    assert {t.dtype for t in all_tensors(tmp_path / "out").values()} == {torch.float16}
    loaded = Blip3oPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert loaded.model.config.dit.to_dict() | {"ffn_dim": None, "multiple_of": 16, "temb_dim": None} == (
        tiny.model.config.dit.to_dict()
    )
    for name, tensor in tiny.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, atol=2e-3, rtol=1e-3)
    result = runner.invoke(main, arguments)  # the folder is there now
    assert result.exit_code == 1 and "is not an empty folder" in result.output


def test_variants_that_the_released_layout_cannot_hold_are_refused(tmp_path: Path) -> None:
    build_tiny(name="tiny-clip-mse").save_pretrained(tmp_path / "mse")
    with pytest.raises(ConfigError, match=r"a clip \+ mse model with head linear has no place"):
        convert(tmp_path / "mse", tmp_path / "out", "released")
    with pytest.raises(ConfigError, match="layout 'onnx' is unknown"):
        convert(tmp_path / "mse", tmp_path / "out", "onnx")
    with pytest.raises(WeightsError, match="nowhere does not exist"):
        convert(tmp_path / "nowhere", tmp_path / "out", "blip3o")


@pytest.fixture
def eva() -> EvaEncoder:
    torch.manual_seed(0)
    encoder = EvaEncoder(EvaConfig(image_size=32, patch_size=4, width=112, layers=2, mlp_ratio=1.5)).eval()
    torch.nn.init.normal_(encoder.pos_embed)
    return encoder


def test_eva_weights_become_a_target_encoder(eva, tmp_path: Path) -> None:
    torch.save(eva.state_dict(), tmp_path / "pytorch_model.bin")
    convert(tmp_path / "pytorch_model.bin", tmp_path / "target_encoder", "target-encoder")
    target = load_target(tmp_path / "target_encoder")
    pixels = torch.randn(2, 3, 32, 32)
    expected = torch.nn.functional.avg_pool2d(eva(pixels), 4)
    torch.testing.assert_close(target(pixels), expected, atol=1e-6, rtol=1e-6)
    assert target.preprocess.size_px == 32 and target.pooling == "early_pool2d_4"


def test_the_tower_inside_a_released_checkpoint_is_taken_along(eva, write_released, tmp_path: Path) -> None:
    source = write_released(tmp_path / "source", is_sharded=False, has_eva=False)
    prefix = "model.gen_vision_tower.vision_tower.model."
    tensors = all_tensors(source) | {prefix + k: v for k, v in eva.state_dict().items()}
    save_file({k: v.clone() for k, v in tensors.items()}, source / "model.safetensors", metadata={"format": "pt"})
    convert(source, tmp_path / "ours", "blip3o")
    pixels = torch.randn(1, 3, 32, 32)
    inside, beside = load_target(source), load_target(tmp_path / "ours" / "target_encoder")
    assert torch.equal(inside(pixels), beside(pixels))
    Blip3oPipeline.from_pretrained(tmp_path / "ours")


def test_pickles_with_more_than_tensors_are_refused_unread(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    (tmp_path / "bad.bin").write_bytes(pickle.dumps({"cls_token": Harm()}))
    with pytest.raises(WeightsError, match="bad.bin holds something else than tensors"):
        read_plain_tensors(tmp_path / "bad.bin")
    assert not (tmp_path / "harmed").exists()
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(WeightsError, match="must hold named tensors, got list"):
        read_plain_tensors(tmp_path / "list.bin")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.bin")
    with pytest.raises(WeightsError, match="it is no EVA-CLIP tower"):
        convert(tmp_path / "other.bin", tmp_path / "out", "target-encoder")


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    build_tiny().save_pretrained(tmp_path / "ours")
    weights = tmp_path / "ours" / "model.safetensors"
    good = load_file(weights)
    name = "queries.latent_queries"
    for value, dtype, message in (
        (float("nan"), None, f"not finite: {name}"),
        (1e6, torch.float16, f"{name} holds values beyond the range of float16"),
    ):
        changed = {**good, name: good[name].clone()}
        changed[name].view(-1)[0] = value
        save_file(changed, weights, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match="digests.json"):
            convert(tmp_path / "ours", tmp_path / "out", "released", dtype)
        (tmp_path / "kept.json").unlink(missing_ok=True)
        (tmp_path / "ours" / "digests.json").rename(tmp_path / "kept.json")
        with pytest.raises(WeightsError, match=message):
            convert(tmp_path / "ours", tmp_path / "out", "released", dtype)
        (tmp_path / "kept.json").rename(tmp_path / "ours" / "digests.json")
    save_file(good, weights, metadata={"format": "pt"})
    (tmp_path / "ours" / "digests.json").unlink()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("blip3o.convert.shutil.copyfile", full)
        with pytest.raises(WeightsError, match="out was not written .*No space left on device.*nothing of it was left"):
            convert(tmp_path / "ours", tmp_path / "out", "released")
    assert {path.name for path in tmp_path.iterdir()} == {"ours"}
    convert(tmp_path / "ours", tmp_path / "out", "released")
