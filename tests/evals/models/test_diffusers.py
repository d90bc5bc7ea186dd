"""`diffusers:ID` on tiny random pipelines: Stable Diffusion (UNet), PixArt (DiT), Stable Diffusion 3 (MM-DiT)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import evals
from evals.api import GenerationRequest, ModelOptions
from evals.errors import EvalError, MissingRequirementError, ModelError, UsageError
from evals.models.diffusers import DiffusersModel, create
from evals.results import load

# Arguments that each family needs at 32 pixels, or because a part is left out.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "sd": {},
    "pixart": {"call": {"use_resolution_binning": False, "clean_caption": False}},
    "sd3": {"without": ["text_encoder_3", "tokenizer_3"]},
}
SIZES = {"steps": 2, "height": 32, "width": 32}
PROMPTS = ("a red apple", "two dogs on a very long bench", "x")
TOLERANCE = 1  # of 255, between batch sizes
QUIET = {"quiet": True, "tracking__enabled": False}


def make(folder: Path, family: str = "sd", **options: Any) -> DiffusersModel:
    extra = {**ARGUMENTS[family], **options.pop("extra", {})}
    return create(str(folder), ModelOptions(**{**SIZES, **options}, extra=extra))


def requests(count: int = 3, **changes: Any) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"s{i}", 0, PROMPTS[i % 3], 100 + i, **{**SIZES, **changes})
        for i in range(count)
    ]


def distance(one: Sequence[Any], two: Sequence[Any]) -> int:
    return max(
        int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("family", ["sd", "pixart", "sd3"])
def test_a_picture_depends_on_its_request_alone(family, tiny_pipeline) -> None:
    model = make(tiny_pipeline(family), family)
    model.load()
    together = model.generate(requests())
    assert [p.size for p in together] == [(32, 32)] * 3
    assert distance(together, [model.generate([r])[0] for r in requests()]) <= TOLERANCE
    backwards = model.generate(requests()[::-1])[::-1]
    assert distance(together, backwards) <= TOLERANCE
    # Another seed is another picture; else the noise would come from somewhere else.
    other = [GenerationRequest("s0", 0, PROMPTS[0], 7, **SIZES)]
    assert distance(model.generate(other), together[:1]) > 20
    again = make(tiny_pipeline(family), family)
    again.load()
    assert distance(again.generate(requests()), together) == 0


def test_steps_guidance_and_further_arguments_reach_the_pipeline(tiny_pipeline) -> None:
    model = make(tiny_pipeline("sd"), extra={"call": {"negative_prompt": "blurry"}})
    model.load()
    calls = []
    real = model._pipeline

    class Spy(type(real)):  # type: ignore[misc]
        def __call__(self, **given: Any) -> Any:
            calls.append(given)
            return super().__call__(**given)

    real.__class__ = Spy
    model.generate(requests(2, guidance_scale=3.0))
    assert calls[0]["guidance_scale"] == 3.0 and calls[0]["num_inference_steps"] == 2
    assert calls[0]["negative_prompt"] == ["blurry", "blurry"]
    model.generate(requests(2, steps=None))
    assert not {"guidance_scale", "num_inference_steps"} & set(calls[1])  # the pipeline's own defaults


def test_upstream_seeds_draw_the_pictures_of_a_prompt_from_one_generator(tiny_pipeline) -> None:
    model = make(tiny_pipeline("sd"))
    model.load()
    series = [GenerationRequest("s", i, "a dog", 42, series=True, **SIZES) for i in range(2)]
    first, second = model.generate(series)
    assert distance([first], model.generate([GenerationRequest("s", 0, "a dog", 42, **SIZES)])) == 0
    assert distance([first], [second]) > 20


def test_identity_tells_what_decides_a_picture(tiny_pipeline, tmp_path) -> None:
    folder = tiny_pipeline("sd")
    identity = make(folder, guidance_scale=3.0).identity
    assert identity.name == "diffusers:sd" and identity.domain == "photos"
    assert identity.settings == {
        "pipeline": "StableDiffusionPipeline",
        "dtype": "float32",
        "guidance_scale": 3.0,
        "num_inference_steps": 2,
        "height": 32,
        "width": 32,
    }
    copy = tmp_path / "sd"
    shutil.copytree(folder, copy)
    assert make(copy).identity.digest == identity.digest
    (copy / "unet" / "notes.md").write_text("not read")
    assert make(copy).identity.digest == identity.digest
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert make(copy).identity.digest != identity.digest


def test_dtype_auto_is_that_of_the_weights(tiny_pipeline, tmp_path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"))
    pipeline.to(torch.bfloat16).save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(UsageError, match="holds weights of variant fp16 only: choose it with"):
        make(tmp_path / "half")
    model = make(tmp_path / "half", extra={"variant": "fp16"})
    assert model.identity.settings["dtype"] == "bfloat16"
    model.load()
    assert model._pipeline.unet.dtype == torch.bfloat16
    assert model.generate(requests(1))[0].size == (32, 32)


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _pickled(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )


def _no_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def _no_part(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def _torn(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10\0\0")


def _own_code(folder: Path) -> None:
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit")
    edit_index(folder, unet=["my_unet", "MyUNet"])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (_no_index, UsageError, "has no model_index.json: give a folder that"),
        (_pickled, UsageError, "pickles are never read: save the pipeline again with"),
        (_no_weights, MissingRequirementError, r"unet has no weights \(\*.safetensors\)"),
        (_no_part, MissingRequirementError, "lacks vae/, which its model_index.json names"),
        (_torn, ModelError, "is damaged or cut short"),
        (_own_code, UsageError, r"asks for code of its own \(my_unet.py\), which is never run"),
        (lambda f: edit_index(f, _class_name=["p.py", "P"]), UsageError, "its own code"),
        (lambda f: edit_index(f, unet=[1, 2, 3]), UsageError, r"is not \[library, class\]"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused_when_the_model_is_made(
    change: Callable[[Path], None], kind: type, message: str, tiny_pipeline, tmp_path
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_pipeline("sd"), folder)
    change(folder)
    with pytest.raises(kind, match=message) as caught:
        _ = make(folder).identity
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"_class_name": "NoSuchPipeline"}, {}, "NoSuchPipeline, which diffusers .* does not know"),
        ({"_class_name": "UNet2DModel"}, {}, "UNet2DModel, which diffusers .* does not know"),
        ({}, {"extra": {"call": {"negativ_prompt": "x"}}}, "Did you mean: negative_prompt"),
        ({}, {"extra": {"without": ["safety"]}}, "has no component 'safety'"),
        ({}, {"extra": {"offload": "model"}}, "has no use on the CPU"),
        ({}, {"device": "cuda"}, "no CUDA device is available here"),
    ],
)
def test_what_only_loading_can_tell_ends_in_one_line(
    changes, options, message: str, tiny_pipeline, tmp_path
) -> None:
    import torch

    if "device" in options and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    folder = tmp_path / "p"
    shutil.copytree(tiny_pipeline("sd"), folder)
    edit_index(folder, **changes)
    with pytest.raises(EvalError, match=message) as caught:
        make(folder, **{"device": "cpu", **options}).load()
    assert "\n" not in str(caught.value)


def test_a_pipeline_that_draws_no_pictures_from_prompts_is_refused(tmp_path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(UsageError, match="DDPMPipeline, which makes no pictures from a prompt"):
        create(str(tmp_path / "ddpm"), ModelOptions()).load()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("", {}, "needs a folder or a hub id"),
        ("./nowhere", {}, "model folder ./nowhere does not exist"),
        ("sd", {}, "model folder sd does not exist"),
        ("SD", {"revision": "main"}, "has no revisions, got --revision main"),
        ("SD", {"extra": {"wihtout": []}}, "unknown key 'model.args.wihtout'. Did you mean: without"),
        ("SD", {"extra": {"offload": "disk"}}, "give none, model, sequential"),
        ("SD", {"extra": {"variant": "../x"}}, "give a name such as fp16"),
        ("SD", {"extra": {"without": "x"}}, "give a list of components"),
        ("SD", {"extra": {"call": [1]}}, "give a map of names"),
        ("SD", {"extra": {"call": {"num_inference_steps": 3}}}, "give --steps"),
        ("SD", {"extra": {"call": {"generator": 3}}}, "the run sets it"),
    ],
)
def test_bad_use_is_refused(spec: str, options, message: str, tiny_pipeline) -> None:
    with pytest.raises(UsageError, match=message):
        create(str(tiny_pipeline("sd")) if spec == "SD" else spec, ModelOptions(**options))


def test_a_hub_id_that_is_not_here_is_said_at_once(monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRequirementError, match="`hf download nobody/nothing` fetches it"):
        create("nobody/nothing", ModelOptions())


def test_a_blanked_picture_is_that_samples_error(tiny_pipeline) -> None:
    model = make(tiny_pipeline("sd"))
    grey, black = Image.new("RGB", (8, 8), (9, 9, 9)), Image.new("RGB", (8, 8))
    model._pipeline = lambda **given: SimpleNamespace(
        images=[grey, grey, black], nsfw_content_detected=[False, True, False]
    )
    fine, flagged, overflowed = model.generate(requests(3))
    assert fine is grey
    assert type(flagged).__name__ == "SafetyFilterError" and "without=" in str(flagged)
    assert type(overflowed).__name__ == "BlackPictureError" and "float32" in str(overflowed)
    model._pipeline = lambda **given: SimpleNamespace(frames=[])
    with pytest.raises(ModelError, match="makes no pictures"):
        model.generate(requests(1))


def test_a_whole_run_is_the_same_in_other_batches_and_says_what_its_judge_is_worth(
    tiny_pipeline, tmp_path
) -> None:
    shared: dict[str, Any] = {
        "judge": "stickers",
        "limit": 6,
        "num_images": 1,
        "generation__steps": 1,
        "generation__height": 32,
        "generation__width": 32,
        **QUIET,
    }
    name = f"diffusers:{tiny_pipeline('sd')}"
    run = evals.evaluate("geneval", name, output=tmp_path / "a", batch_size=4, **shared)
    evals.evaluate("geneval", name, output=tmp_path / "b", batch_size=1, report=False, **shared)
    one, two = ([Image.open(r / o["path"]) for o in load(r).outputs()] for r in (tmp_path / "a", tmp_path / "b"))
    assert len(one) == 6 and distance(one, two) <= TOLERANCE
    assert run.results["counts"]["scored"] == 6 and run.problem is None
    warning = "was made for pictures of domain 'stickers', this model makes 'photos'"
    assert any(warning in text for text in run.results["warnings"])
    # The tiny tokenizer reads 24 letters; GenEval's prompts are longer.
    assert sum("read only the beginning" in text for text in run.results["warnings"]) == 1
    assert warning.replace("'", "&#39;") in (run.root / "report.html").read_text()


def test_a_pipeline_saved_for_pictures_draws_from_prompts_alone(tiny_pipeline, tmp_path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_pipeline("sd"), folder)
    edit_index(folder, _class_name="StableDiffusionImg2ImgPipeline")
    model = make(folder)
    model.load()
    plain = make(tiny_pipeline("sd"))
    plain.load()
    assert type(model._pipeline).__name__ == "StableDiffusionPipeline"
    assert distance(model.generate(requests(2)), plain.generate(requests(2))) == 0
