"""A tiny model with its target encoder, archives of captions and conversations, and recipes on them."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from blip3o.card import write_digests
from blip3o.presets import build_tiny
from blip3o.vision.encoders import OpenClipEncoder
from blip3o.vision.feature_space import FeatureSpace
from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD, Preprocess
from blip3o.vision.targets import Target

TOWER = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 36), (number * 29 % 256, 90, 200)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny model with its target encoder, two archives of captions, and conversations."""
    folder = tmp_path_factory.mktemp("recipe")
    build_tiny().save_pretrained(folder / "model")
    torch.manual_seed(0)
    encoder = OpenClipEncoder.from_config(TOWER, layer=-2)
    pixels = torch.randn(16, 3, 32, 32)
    space = FeatureSpace.fit(encoder(pixels), 6)
    size = Preprocess(size_px=32, mean=UNIT_MEAN, std=UNIT_STD)
    target = Target(encoder, size, {"kind": "open_clip", "model": TOWER, "layer": -2}, space)
    target.save_pretrained(folder / "model" / "target_encoder")
    # as folders may be that name no preparation of pictures: what is saved after training then differs
    config = folder / "model" / "target_encoder" / "config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "pooling"}))
    write_digests(folder / "model")
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(6):
                for name, content in ((f"{i}.png", png(6 * shard + i)), (f"{i}.txt", b"a photo of a dog")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    (folder / "pictures").mkdir()
    rows = []
    for i in range(6):
        (folder / "pictures" / f"{i}.png").write_bytes(png(i))
        turns = [
            {"from": "human", "value": "<image>\nWhat is it? <|im_end|>"},
            {"from": "gpt", "value": "a dog"},
        ]
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": turns})
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def recipe_values(folder, stage="generation", **changes):
    data = [{"name": "pictures", "layout": "webdataset", "paths": [str(folder / "*.tar")]}]
    if stage in ("joint", "understanding"):
        talk = {
            "name": "talk",
            "layout": "jsonl",
            "paths": [str(folder / "talk.jsonl")],
            "kind": "conversations",
            "root": str(folder / "pictures"),
        }
        data = [*data, talk] if stage == "joint" else [talk]
    return {
        "model": str(folder / "model"),
        "stage": stage,
        "data": data,
        "batch_size": 3,
        "text_batch_size": 2 if stage != "generation" else 0,
        "workers": 0,
        "frozen_dtype": "float32",
        "loop": {"steps": 4, "lr": 1e-3, "warmup_steps": 0, "bf16": False, "log_every": 1},
        **changes,
    }


@pytest.fixture(scope="session")
def values():
    """(folder, stage, **changes) -> settings of a recipe."""
    return recipe_values
