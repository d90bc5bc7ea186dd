"""The public face, on the tiny preset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from blip3o.answering.engine import Answers
from blip3o.cli import main
from blip3o.errors import ConfigError, WeightsError
from blip3o.pipeline import Blip3oPipeline, PipelineCard, write_digests
from blip3o.presets import build_tiny
from blip3o.prompts import Prompts


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained("tiny")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def distance(a: Image.Image, b: Image.Image) -> int:
    """Largest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_picture_depends_on_its_seed_and_prompt_whatever_the_batch(pipe, size: int) -> None:
    prompts = ["a dog", "a photo of two much longer cats", "a dog", "x", "?", "a bus", "a dog"]
    whole = pipe(prompts, generator=seeds(*range(7))).images
    parts = []
    for start in range(0, 7, size):
        stop = min(start + size, 7)
        parts += pipe(prompts[start:stop], generator=seeds(*range(start, stop))).images
    assert max(distance(a, b) for a, b in zip(whole, parts, strict=True)) <= 1
    assert distance(whole[0], whole[2]) > 20  # same prompt, other noise
    other = pipe("a photo of two much longer cats", generator=seeds(0)).images[0]
    assert distance(whole[0], other) > 0  # same noise, other prompt


def test_several_pictures_of_a_prompt_are_prefilled_once(pipe, monkeypatch) -> None:
    rows = []
    encode = type(pipe.model).encode_condition
    monkeypatch.setattr(
        type(pipe.model), "encode_condition",
        lambda self, ids, *a, **k: rows.append(len(ids)) or encode(self, ids, *a, **k),
    )  # fmt: skip
    assert len(pipe(["a dog", "a cat", "a dog"], num_images_per_prompt=2).images) == 6
    assert rows == [2]


def test_a_single_generator_numbers_its_pictures(pipe) -> None:
    three = pipe("a dog", num_images_per_prompt=3, generator=torch.Generator().manual_seed(5)).images
    one = pipe("a dog", generator=torch.Generator().manual_seed(5)).images
    assert distance(three[0], one[0]) <= 1
    assert distance(three[0], three[1]) > 20


def test_a_generator_carries_on_from_picture_to_picture(pipe) -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (pipe("a dog", generator=[generator]).images[0] for _ in range(2))
    assert distance(first, second) > 20


def test_settings_reach_the_sampler(pipe) -> None:
    base = pipe("a dog", generator=seeds(1)).images[0]
    for change in ({"num_inference_steps": 1}, {"guidance_scale": 8.0}, {"decoder_steps": 9}):
        assert distance(base, pipe("a dog", generator=seeds(1), **change).images[0]) > 0
    defaults = {"num_inference_steps": 4, "guidance_scale": 2.0, "decoder_steps": 2, "height": 32}
    assert distance(base, pipe("a dog", generator=seeds(1), **defaults).images[0]) == 0


def test_input_pictures_change_the_result(pipe, photo) -> None:
    white = Image.new("RGB", (20, 20), "white")
    made = pipe(["redraw it"] * 3, [photo, white, photo], generator=seeds(1, 1, 1)).images
    assert distance(made[0], made[2]) == 0
    assert distance(made[0], made[1]) > 0
    again = pipe.reconstruct([photo, white], through="backbone", generator=seeds(1, 1)).images
    assert len(again) == 2 and again[0].size == (32, 32)


def test_answers_do_not_depend_on_the_batch(pipe, photo, monkeypatch) -> None:
    # Special tokens are hidden in answers, so look at the ids of a random model.
    said: list[list[int]] = []
    text = Answers._text
    monkeypatch.setattr(Answers, "_text", lambda self, row: said.append(row.ids) or text(self, row))
    questions = ["what?", "how many dogs are there in this picture?", "why?"]
    images = [photo, None, [photo, Image.new("RGB", (9, 9), "red")]]
    together = pipe.ask_batch(images, questions, max_new_tokens=4)
    in_batch = sorted(said)
    said.clear()
    alone = [pipe.ask(i, q, max_new_tokens=4) for i, q in zip(images, questions, strict=True)]
    assert together == alone
    assert len(in_batch) == 3 and in_batch == sorted(said)


def test_prompt_texts_are_those_of_the_released_code() -> None:
    text = Prompts(is_closed=False).generation("a dog {x}")
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Please generate image based on the following caption: a dog {x}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert Prompts().generation("a dog {x}") == text + "<|im_end|>\n"


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_saved_is_loaded(pipe, tmp_path: Path, dtype) -> None:
    pipe.save_pretrained(tmp_path, dtype)
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    assert loaded.model.dtype == torch.float32
    before, after = (p("a dog", generator=seeds(1)).images[0] for p in (pipe, loaded))
    assert distance(before, after) <= (0 if dtype is None else 12)
    card = json.loads((tmp_path / "blip3o.json").read_text())
    expected = {"num_inference_steps": 4, "guidance_scale": 2.0, "height": 32, "is_random": True}
    assert {key: card[key] for key in expected} == expected
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o444 == (tmp_path / "config.json").stat().st_mode & 0o444
    assert loaded.understanding == pipe.understanding and loaded.prompts == pipe.prompts


def test_a_saved_tokenizer_does_not_tell_where_it_was_loaded_from(tmp_path):
    Blip3oPipeline.from_pretrained("nano").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only"} & set(saved) and saved["model_max_length"] == 512


def test_half_precision_makes_nearly_the_same_picture(pipe, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    low = Blip3oPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in low.model.parameters()} == {torch.bfloat16}
    exact, near = (np.asarray(p("a dog", generator=seeds(1)).images[0], dtype=int) for p in (pipe, low))
    assert np.abs(exact - near).mean() < 5


def test_damaged_and_changed_files_are_named(pipe, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(WeightsError, match="model.safetensors is damaged or was changed"):
        Blip3oPipeline.from_pretrained(tmp_path)
    weights.write_bytes(whole[:-8] + b"\x00" * 8)  # readable, but not the trained numbers
    with pytest.raises(WeightsError, match="is damaged or was changed"):
        Blip3oPipeline.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        Blip3oPipeline.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "tokenizer.json").write_text("{}")
    write_digests(tmp_path)
    with pytest.raises(WeightsError, match="tokenizer"):
        Blip3oPipeline.from_pretrained(tmp_path)


def test_a_folder_without_decoder_answers_but_does_not_draw(pipe, photo, tmp_path: Path) -> None:
    Blip3oPipeline(pipe.model, pipe.tokenizer, None).save_pretrained(tmp_path)
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no pixel decoder"):
        loaded("a dog")
    assert isinstance(loaded.ask(photo, "what?", max_new_tokens=1), str)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nanu", "'nanu' is no preset.*did you mean nano"),
        ("./nope", "model folder ./nope does not exist"),
        ("someone/some-model", "not on this machine; `hf download someone/some-model` fetches it"),
        ("blip3o-8b", "`hf download BLIP3o/BLIP3o-Model-8B`"),
        ("a//b", "model folder a//b does not exist"),
        ("owner/bad name!", "is no hub id"),
    ],
)
def test_models_that_are_not_here_are_named_with_the_next_step(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=message):
        Blip3oPipeline.from_pretrained(source)


def test_folders_of_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="config.json is missing"):
        Blip3oPipeline.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(WeightsError, match="'llama' model, not of a BLIP3-o"):
        Blip3oPipeline.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not valid JSON"):
        Blip3oPipeline.from_pretrained(tmp_path)


def test_sizes_and_precisions_of_others_are_refused(pipe) -> None:
    with pytest.raises(ConfigError, match="width must be 32.*got 64"):
        pipe("a", width=64)
    with pytest.raises(ConfigError, match="dtype 'float8' is unknown"):
        PipelineCard(dtype="float8")
    with pytest.raises(ConfigError, match="mode 'paint' is unknown; known: ask, generate"):
        PipelineCard(modes=("paint",))


def test_commands_write_pictures_and_answers(tmp_path: Path, photo) -> None:
    runner = CliRunner()
    out = tmp_path / "dog.png"
    result = runner.invoke(main, ["generate", "a dog", "--model", "tiny", "-o", str(out), "--num-images", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(tmp_path / "dog-0.png"), str(tmp_path / "dog-1.png")]
    first = Image.open(tmp_path / "dog-1.png")
    assert runner.invoke(main, ["generate", "a dog", "--model", "tiny", "-o", str(out), "--seed", "43"]).exit_code == 0
    assert distance(Image.open(out), first) <= 1  # the second picture has the next seed
    photo.save(tmp_path / "photo.png")
    result = runner.invoke(main, ["ask", str(tmp_path / "photo.png"), "what?", "--model", "tiny"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate", "a dog", "--model", "tinny"], 1, "did you mean tiny"),
        (["generate", "a dog", "--model", "tiny", "--steps", "0"], 2, "--steps"),
        (["generate", "a dog", "--model", "tiny", "--device", "warp"], 1, "device 'warp' cannot be used"),
        (["ask", "README-not-here.png", "what?"], 2, "does not exist"),
        (["ask", __file__, "what?", "--model", "tiny"], 1, "is not a readable picture"),
        (["paint"], 2, "No such command"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], code: int, message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output


def test_tables_of_positions_keep_their_precision(tmp_path: Path) -> None:
    """Rounded to half precision, rotary frequencies turn distant positions by up to a radian; from_pretrained of
    transformers leaves them in float32."""
    build_tiny().save_pretrained(tmp_path)
    pipelines = [Blip3oPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16), build_tiny().to(torch.float16)]
    for pipeline in pipelines:
        rotary = pipeline.model.backbone.vlm.model.language_model.rotary_emb
        exact = build_tiny().model.backbone.vlm.model.language_model.rotary_emb.inv_freq
        assert torch.equal(rotary.inv_freq, exact) and pipeline.model.dtype != torch.float32


def test_an_unknown_compat_is_refused() -> None:
    with pytest.raises(ConfigError, match="compat 'relased' is unknown; choose default or released"):
        Blip3oPipeline.from_pretrained("tiny", compat="relased")
