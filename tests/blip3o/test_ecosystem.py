"""What people expect who come from transformers and diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoConfig, AutoModel

from blip3o.errors import ConfigError
from blip3o.pipeline import Blip3oPipeline
from blip3o.unified import Blip3oModel
from blip3o.vision.encoders import OpenClipEncoder
from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD, Preprocess
from blip3o.vision.targets import Target

TOWER = {
    "embed_dim": 6,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 6, "layers": 1, "head_width": 3},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 6, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    """The tiny preset with a target encoder."""
    tiny = Blip3oPipeline.from_pretrained("tiny")
    torch.manual_seed(3)
    encoder = OpenClipEncoder.from_config(TOWER, layer=-1)
    config = {"kind": "open_clip", "model": TOWER, "layer": -1}
    square = Preprocess(size_px=32, mean=UNIT_MEAN, std=UNIT_STD)
    return Blip3oPipeline(
        tiny.model, tiny.tokenizer, tiny.decoder, tiny.card, Target(encoder, square, config).eval()
    )


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def distance(a, b) -> int:
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


# Output and steps


def test_output_types_show_one_picture(pipe) -> None:
    made = {t: pipe("a dog", generator=seeds(1), output_type=t) for t in ("pil", "np", "pt", "latent")}
    pil, array, tensor = (made[t].images for t in ("pil", "np", "pt"))
    assert array.shape == (1, 32, 32, 3) and array.dtype == np.float32 and 0 <= array.min() <= array.max() <= 1
    assert tensor.shape == (1, 3, 32, 32) and np.array_equal(tensor[0].permute(1, 2, 0).numpy(), array[0])
    assert np.array_equal((array[0] * 255).round().astype(np.uint8), np.asarray(pil[0]))
    assert torch.equal(made["latent"].images, made["pil"].features)


def test_output_is_read_as_in_diffusers(pipe) -> None:
    made = pipe("a dog", generator=torch.Generator().manual_seed(1), output_type="np")
    images, features = pipe(
        "a dog", generator=torch.Generator().manual_seed(1), output_type="np", return_dict=False
    )
    assert np.array_equal(made.images, images) and torch.equal(made.features, features)
    assert made[0] is made.images and made["features"] is made.features


def test_a_callback_sees_every_step_and_may_change_it(pipe) -> None:
    seen = []

    def look(pipeline, step, timestep, tensors):
        seen.append((pipeline is pipe, step, float(timestep), tuple(tensors["latents"].shape)))
        return tensors

    plain = pipe("a dog", generator=seeds(1)).images[0]
    watched = pipe("a dog", generator=seeds(1), callback_on_step_end=look).images[0]
    assert distance(plain, watched) == 0
    assert seen == [(True, i, t, (1, 6, 4, 4)) for i, t in enumerate((1000.0, 750.0, 500.0, 250.0))]
    zero = pipe(
        "a dog", generator=seeds(1), output_type="latent",
        callback_on_step_end=lambda p, s, t, k: {"latents": torch.zeros_like(k["latents"])},
    )  # fmt: skip
    assert not zero.images.any()


def test_a_callback_may_stop_early(pipe) -> None:
    def stop(pipeline, step, timestep, tensors):
        pipeline._interrupt = step == 1
        kept.append(tensors["latents"])

    kept: list[torch.Tensor] = []
    stopped = pipe("a dog", generator=seeds(1), callback_on_step_end=stop, output_type="latent").images
    assert len(kept) == 2 and torch.equal(stopped, kept[-1])
    pipe("a dog")  # the next call is whole again
    assert not pipe.interrupt


def test_the_progress_bar_can_be_set(pipe, capsys) -> None:
    pipe("a dog")
    assert capsys.readouterr().err == ""  # stderr is no terminal here
    pipe.set_progress_bar_config(disable=False, desc="drawing")
    try:
        pipe("a dog")
    finally:
        pipe.set_progress_bar_config(disable=None)
    assert "drawing" in (err := capsys.readouterr().err) and "4/4" in err


# Devices


def test_to_takes_devices_and_precisions_and_returns_the_pipeline() -> None:
    pipe = Blip3oPipeline.from_pretrained("tiny")
    assert pipe.to("cpu", torch.bfloat16) is pipe and pipe.dtype == torch.bfloat16
    assert pipe.to(device="cpu", dtype=torch.float32).dtype == torch.float32
    assert {p.dtype for p in pipe.decoder.parameters()} == {torch.float32}
    assert set(pipe.components) == {"model", "tokenizer", "decoder"}


def test_precision_may_be_named_as_in_diffusers() -> None:
    assert Blip3oPipeline.from_pretrained("tiny", torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="give dtype .torch.float16. or torch_dtype .torch.float32., not both"):
        Blip3oPipeline.from_pretrained("tiny", dtype=torch.float16, torch_dtype=torch.float32)
    for wrong in ("bfloat16", torch.int64):
        with pytest.raises(ConfigError, match="dtype must be torch.float32, torch.float16 or torch.bfloat16, got"):
            Blip3oPipeline.from_pretrained("tiny", dtype=wrong)


def test_offload_brings_one_part_at_a_time_and_changes_no_picture(photo, pipe, monkeypatch) -> None:
    tiny = Blip3oPipeline(pipe.model, pipe.tokenizer, pipe.decoder, pipe.card)
    plain = tiny("a dog", generator=seeds(1)).images[0]
    order, use = [], Blip3oPipeline.use_part
    monkeypatch.setattr(Blip3oPipeline, "use_part", lambda self, name: order.append(name) or use(self, name))
    tiny.enable_model_cpu_offload("cpu")
    assert distance(tiny("a dog", generator=seeds(1)).images[0], plain) == 0
    assert order == ["backbone", "generator", "decoder"]
    tiny.ask(photo, "what?", max_new_tokens=1)
    assert order[3:] == ["backbone"]
    with pytest.raises(ConfigError, match="placed by enable_model_cpu_offload and cannot be moved to cuda"):
        tiny.to("cuda")


def test_offload_moves_the_other_parts_away(pipe, monkeypatch) -> None:
    tiny = Blip3oPipeline(pipe.model, pipe.tokenizer, pipe.decoder, pipe.card)
    tiny.enable_model_cpu_offload("meta")  # a device that every machine has
    where: dict[str, str] = {}
    for name, modules in tiny._parts().items():
        for module in modules:
            monkeypatch.setattr(module, "to", lambda device, _n=name: where.update({_n: str(device)}))
    tiny.use_part("generator")
    assert where == {"backbone": "cpu", "generator": "meta", "decoder": "cpu"}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator here")
def test_offload_without_an_accelerator_is_said() -> None:
    with pytest.raises(ConfigError, match="found no accelerator on this machine.*leave the call out"):
        Blip3oPipeline.from_pretrained("tiny").enable_model_cpu_offload()


# Files and the hub


def test_auto_classes_load_a_saved_pipeline(pipe, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert type(config).__name__ == "Blip3oConfig" and isinstance(model, Blip3oModel)
    state, other = pipe.model.state_dict(), model.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def test_a_saved_folder_is_ready_for_the_hub(pipe, photo, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert {p.rsplit(".", 1)[1] for p in files} <= {"safetensors", "json", "md", "txt", "jinja"}
    assert "README.md" in files and "target_encoder/model.safetensors" in files
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: blip3o-eval\n") and "Random weights" in card
    import yaml

    front = yaml.safe_load(card.split("---")[1])
    assert "text-to-image" in front["tags"] and front["pipeline_tag"] == "any-to-any"
    loaded = Blip3oPipeline.from_pretrained(tmp_path)
    again = tmp_path / "again"
    loaded.save_pretrained(again)  # the target encoder that was never used travels along
    one, two, three = (
        p.reconstruct(photo, generator=seeds(1)).images[0]
        for p in (pipe, loaded, Blip3oPipeline.from_pretrained(again))
    )
    assert distance(one, two) == 0 == distance(two, three)


def test_a_readme_that_somebody_wrote_is_kept(pipe, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.fixture
def hub(monkeypatch):
    """A hub that notes what it is sent."""
    sent: dict[str, list] = {"repos": [], "files": [], "commits": []}

    class Url:
        repo_id = "someone/tiny"

    def create_repo(repo_id, **kwargs):
        sent["repos"].append((repo_id, kwargs.get("private")))
        return Url

    def upload_folder(*, repo_id, folder_path, **kwargs):
        folder = Path(folder_path)
        sent["files"] += sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        sent["commits"].append((repo_id, kwargs["commit_message"]))
        return "https://hub.test/commit"

    monkeypatch.setattr("huggingface_hub.create_repo", create_repo)
    monkeypatch.setattr("diffusers.utils.hub_utils.upload_folder", upload_folder)
    return sent


def test_the_pipeline_is_pushed_whole(pipe, hub) -> None:
    assert pipe.push_to_hub("someone/tiny", private=True) == "https://hub.test/commit"
    assert hub["repos"] == [("someone/tiny", True)]
    assert hub["commits"] == [("someone/tiny", "Upload Blip3oPipeline")]
    for name in ("README.md", "model.safetensors", "decoder/model.safetensors", "blip3o.json", "digests.json"):
        assert name in hub["files"]


def test_the_model_is_pushed_by_transformers_mixin(pipe, monkeypatch) -> None:
    class Api:
        operations: list = []

        def create_repo(self, repo_id, **kwargs):
            return type("Url", (), {"repo_id": repo_id})

        def create_commit(self, *, operations, **kwargs):
            self.operations += [o.path_in_repo for o in operations]

    api = Api()
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda: api, raising=False)
    monkeypatch.setattr("transformers.modeling_utils.hf_api", lambda: api, raising=False)
    monkeypatch.setattr("transformers.utils.hub.create_repo", api.create_repo, raising=False)
    card = ModelCard("---\nlicense: other\n---\n")  # older ones look for the repository's own card
    for module in ("transformers.utils.hub", "transformers.modeling_utils"):
        monkeypatch.setattr(f"{module}.create_and_tag_model_card", lambda *a, **k: card, raising=False)
    pipe.model.push_to_hub("someone/tiny")
    assert {"config.json", "model.safetensors"} <= set(api.operations)


def test_the_card_says_how_a_regressor_is_sampled(tmp_path: Path) -> None:
    Blip3oPipeline.from_pretrained("tiny-clip-mse").save_pretrained(tmp_path)
    card = json.loads((tmp_path / "blip3o.json").read_text())
    assert (card["num_inference_steps"], card["guidance_scale"]) == (1, 1.0)
