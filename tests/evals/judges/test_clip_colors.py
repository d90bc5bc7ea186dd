"""Colours: QuickGELU, the thirty texts of a class, crops shown as upstream shows them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from evals.errors import JudgeError, MissingRequirementError
from evals.judges.clip_colors import COLORS, ClipColors, find_clip


@pytest.fixture
def colors(clip_folder) -> ClipColors:
    return ClipColors.load(find_clip(str(clip_folder)), "cpu", "float32")


@pytest.fixture
def crops() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((40, 40), (20, 70), (90, 33))
    ]


def test_logits_equal_a_plain_reading(colors, clip_folder, crops):
    """One crop and one text at a time, through the pieces of Pillow, NumPy and open_clip."""
    import open_clip
    from open_clip.model import CLIP
    from safetensors.torch import load_file

    config = json.loads((clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    model = CLIP(**config, quick_gelu=True).eval()
    model.load_state_dict(load_file(clip_folder / "open_clip_model.safetensors"))
    names = ["traffic light", "car", "car"]
    got = colors.logits(crops, names)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    for crop, name, row in zip(crops, names, got, strict=True):
        short = min(crop.size)
        scaled = crop.resize([int(32 * side / short) for side in crop.size], Image.Resampling.BICUBIC)
        left, top = (round((side - 32) / 2) for side in scaled.size)
        pixels = np.asarray(scaled.crop((left, top, left + 32, top + 32)), np.float32) / 255
        pixels = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
        with torch.no_grad():
            image = model.encode_image(torch.from_numpy(pixels.transpose(2, 0, 1))[None])[0].numpy()
            image /= np.linalg.norm(image)
            for color, logit in zip(COLORS, row, strict=True):
                directions = []
                for text in (
                    f"a photo of a {color} {name}",
                    f"a photo of a {color}-colored {name}",
                    f"a photo of a {color} object",
                ):
                    direction = model.encode_text(open_clip.tokenize([text]))[0].numpy()
                    directions.append(direction / np.linalg.norm(direction))
                direction = np.mean(directions, axis=0)
                wanted = 100 * image @ (direction / np.linalg.norm(direction))
                assert logit == pytest.approx(wanted, abs=0.02)


def test_quick_gelu_is_used_whatever_the_config_says(colors, clip_folder, crops, tmp_path):
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    other = ClipColors.load(find_clip(str(tmp_path)), "cpu", "float32")
    assert other.logits(crops, ["car"] * 3) == colors.logits(crops, ["car"] * 3)


def test_the_default_architecture_is_vit_l_14_with_quick_gelu():
    from evals.judges.clip_colors import _model_config

    config = _model_config(None)
    assert config["quick_gelu"] is True
    assert (config["embed_dim"], config["vision_cfg"]["layers"]) == (768, 24)
    assert config["vision_cfg"]["patch_size"] == 14


def test_many_crops_in_parts_equal_each_alone(colors, crops):
    many = crops * 30
    together = colors.logits(many, ["dog"] * 90)
    assert np.allclose(together[:3], together[87:], atol=1e-3)
    assert np.allclose(together[0], colors.logits(crops[:1], ["dog"])[0], atol=1e-3)
    assert colors.logits([], []) == []


def test_colours_are_in_the_order_of_the_rules():
    from tasks.generation import geneval_rules

    assert COLORS == geneval_rules.COLORS


def test_damaged_and_missing_files_are_named(clip_folder, tmp_path):
    with pytest.raises(MissingRequirementError, match="holds no open_clip_model.safetensors: `hf download"):
        find_clip(str(tmp_path))
    data = (clip_folder / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(JudgeError, match="cannot be loaded"):
        ClipColors.load(find_clip(str(tmp_path)), "cpu", "float32")
