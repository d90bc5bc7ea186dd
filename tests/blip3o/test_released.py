"""The released checkpoints: names, sizes and loading, without their weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from blip3o import released
from blip3o.dit import DiTConfig
from blip3o.errors import ConfigError, WeightsError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny, released_config_values
from blip3o.storage import write_json
from blip3o.unified import Blip3oModel

# Inverse of the map: our prefix -> the released one.
TO_RELEASED = (
    ("backbone.vlm.model.visual.", "visual."),
    ("backbone.vlm.model.language_model.", "model."),
    ("backbone.vlm.lm_head.", "lm_head."),
    ("queries.latent_queries", "model.latent_queries"),
    ("dit.", "model.dit.model."),
)


def released_name(name: str) -> str:
    ours, theirs = next(pair for pair in TO_RELEASED if name.startswith(pair[0]))
    return theirs + name[len(ours) :]


@pytest.mark.parametrize(
    ("name", "dit_parameters", "hidden", "layers"),
    [("blip3o-4b", 1_362_257_824, 2048, 36), ("blip3o-8b", 1_365_010_336, 3584, 28)],
)
def test_models_of_the_real_sizes_take_the_released_names(name, dit_parameters, hidden, layers) -> None:
    config = released.config_from_released(released_config_values(name))
    with torch.device("meta"):
        model = Blip3oModel(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert sum(p.numel() for p in model.dit.parameters()) == dit_parameters
    theirs = {released_name(key): shape for key, shape in shapes.items()}
    assert sum(key.startswith("model.dit.model.") for key in theirs) == 642
    # The table of the published names and shapes.
    expected = {
        "model.latent_queries": (1, 64, hidden),
        "model.embed_tokens.weight": (151668, hidden),
        "model.norm.weight": (hidden,),
        "model.dit.model.caption_projection.linear_1.weight": (1792, hidden),
        "model.dit.model.patch_embedder.proj.weight": (1792, 1792),
        "model.dit.model.time_caption_embed.timestep_embedder.linear_1.weight": (1024, 256),
        "model.dit.model.time_caption_embed.caption_embedder.0.bias": (1792,),
        "model.dit.model.time_caption_embed.caption_embedder.1.weight": (1024, 1792),
        "model.dit.model.layers.23.gate": (28,),
        "model.dit.model.layers.23.attn1.norm_q.bias": (1792,),
        "model.dit.model.layers.23.attn2.to_out.0.weight": (1792, 1792),
        "model.dit.model.layers.23.feed_forward.linear_1.weight": (4864, 1792),
        "model.dit.model.layers.23.feed_forward.linear_2.weight": (1792, 4864),
        "model.dit.model.layers.23.norm1.linear.weight": (7168, 1024),
        "model.dit.model.layers.23.norm1.norm.weight": (1792,),
        "model.dit.model.layers.23.norm1_context.weight": (1792,),
        "model.dit.model.norm_out.linear_1.weight": (1792, 1024),
        "model.dit.model.norm_out.linear_2.bias": (1792,),
        f"model.layers.{layers - 1}.self_attn.q_proj.bias": (hidden,),
        "visual.merger.mlp.2.weight": (hidden, 5120),
        "visual.blocks.31.attn.qkv.weight": (3840, 1280),
    }
    for key, shape in expected.items():
        assert theirs[key] == shape, key
    assert "model.dit.model.layers.0.attn1.to_out.0.weight" not in theirs
    assert set(released.map_names(theirs).values()) == set(shapes)
    assert model.config.backbone_config["tie_word_embeddings"] is (name == "blip3o-4b")


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


@pytest.fixture
def released_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model written in the released layout, with a target encoder that was saved along."""
    tiny = build_tiny()
    config = tiny.model.config
    dit = {k: v for k, v in config.dit_config.items() if k not in ("in_channels", "condition_dim")}
    monkeypatch.setattr(released, "DiTConfig", partial(DiTConfig, **dit))
    monkeypatch.setattr(released, "TokenConfig", lambda: config.tokens)
    backbone = dict(config.backbone_config)
    text = backbone.pop("text_config")
    write_json(
        tmp_path / "config.json",
        {**backbone, **text, "model_type": "blip3o_qwen", "gen_vision_tower": "eva-clip-E-14-plus",
         "gen_hidden_size": config.dit.in_channels, "n_query": config.num_queries, "gen_pooling": "early_pool2d_4",
         "architectures": ["blip3oQwenForCausalLM"], "torch_dtype": "float32"},
    )  # fmt: skip
    state = {released_name(k): v.clone() for k, v in tiny.model.state_dict().items() if "lm_head" not in k}
    state["model.gen_vision_tower.vision_tower.model.cls_token"] = torch.zeros(1, 1, 4)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tiny.tokenizer.save_pretrained(tmp_path)
    tiny.decoder.save_pretrained(tmp_path / "diffusion-decoder")
    return tmp_path


def test_a_folder_of_the_released_layout_loads(released_folder: Path) -> None:
    tiny = build_tiny()
    loaded = Blip3oPipeline.from_pretrained(released_folder, dtype=torch.float32, compat="released")
    state = loaded.model.state_dict()
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert loaded.model.config.compat == "released" and not loaded.prompts.is_closed
    image = loaded("a dog", generator=[torch.Generator().manual_seed(0)], num_inference_steps=2).images[0]
    assert image.size == (32, 32)
    assert Blip3oPipeline.from_pretrained(released_folder, dtype=torch.float32).prompts.is_closed


def test_a_released_folder_that_lacks_a_tensor_is_refused(released_folder: Path) -> None:
    from safetensors.torch import load_file

    state = {k: v.clone() for k, v in load_file(released_folder / "model.safetensors").items()}
    del state["model.dit.model.layers.1.gate"]
    save_file(state, released_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lack dit.layers.1.gate"):
        Blip3oPipeline.from_pretrained(released_folder)
