"""mmdet's weights under transformers' names: an inverse written here, equal outputs, the documented names and sizes.

The inverse and the list of names follow the modules of mmdet 2.x and mmcv 1.x (`SwinTransformer`, `WindowMSA`, `FFN`,
`ConvModule`, `BaseTransformerLayer`, `Mask2FormerHead`), not the converter.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from evals.errors import InputError, UsageError
from evals.mmdet.convert import config_of, convert_file
from evals.mmdet.names import convert

PIXEL_DECODER = "panoptic_head.pixel_decoder."


def tiny_model(seed: int = 0):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 2, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone.to_dict(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=40,
        encoder_layers=2,
        decoder_layers=4,
        num_attention_heads=4,
        num_queries=7,
        num_labels=80,
    )
    torch.manual_seed(seed)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():  # no two tensors alike, norms and biases included
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def window_index(side: int) -> torch.Tensor:
    """mmdet's buffer, as `WindowMSA` computes it."""
    rows = torch.arange(0, (2 * side - 1) * side, 2 * side - 1)
    steps = (rows[:, None] + torch.arange(side)[None, :]).reshape(1, -1)
    return (steps + steps.T).flip(1).contiguous()


def unfold_order(tensor: torch.Tensor) -> torch.Tensor:
    """Last axis from Swin's four stacked positions (0,0), (1,0), (0,1), (1,1) to nn.Unfold's channel by channel."""
    channels = tensor.shape[-1] // 4
    positions = {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3}
    places = [
        positions[(row, column)] * channels + c
        for c in range(channels)
        for row in range(2)
        for column in range(2)
    ]
    return tensor[..., places]


def to_mmdet(state: dict[str, torch.Tensor], config) -> dict[str, torch.Tensor]:
    """transformers (module names of 5.2x) -> mmdet 2.x, written out module by module."""
    out: dict[str, torch.Tensor] = {}

    def both(target: str, source: str) -> None:
        for end in ("weight", "bias"):
            if f"{source}.{end}" in state:
                out[f"{target}.{end}"] = state[f"{source}.{end}"]

    swin = "model.pixel_level_module.encoder.swin."
    both("backbone.patch_embed.projection", swin + "embeddings.patch_embeddings.projection")
    both("backbone.patch_embed.norm", swin + "embeddings.norm")
    depths = config.backbone_config.depths
    for stage, depth in enumerate(depths):
        for block in range(depth):
            here, there = f"backbone.stages.{stage}.blocks.{block}.", f"{swin}encoder.layers.{stage}.blocks.{block}."
            both(here + "norm1", there + "layernorm_before")
            both(here + "norm2", there + "layernorm_after")
            both(here + "attn.w_msa.proj", there + "attention.o_proj")
            both(here + "ffn.layers.0.0", there + "mlp.fc1")
            both(here + "ffn.layers.1", there + "mlp.fc2")
            for end in ("weight", "bias"):
                out[f"{here}attn.w_msa.qkv.{end}"] = torch.cat(
                    [state[f"{there}attention.{p}_proj.{end}"] for p in "qkv"]
                )
            table = "relative_position_bias_table"
            out[f"{here}attn.w_msa.{table}"] = state[f"{there}attention.relative_position_bias.{table}"]
            out[f"{here}attn.w_msa.relative_position_index"] = window_index(config.backbone_config.window_size)
        if stage < len(depths) - 1:
            for name in ("reduction.weight", "norm.weight", "norm.bias"):
                tensor = state[f"{swin}encoder.layers.{stage}.downsample.{name}"]
                out[f"backbone.stages.{stage}.downsample.{name}"] = unfold_order(tensor)
        both(f"backbone.norm{stage}", f"model.pixel_level_module.encoder.hidden_states_norms.stage{stage + 1}")
    here, there = "panoptic_head.pixel_decoder.", "model.pixel_level_module.decoder."
    for i in range(3):
        both(f"{here}input_convs.{i}.conv", f"{there}input_projections.{i}.0")
        both(f"{here}input_convs.{i}.gn", f"{there}input_projections.{i}.1")
    both(here + "lateral_convs.0.conv", there + "adapter_1.0")
    both(here + "lateral_convs.0.gn", there + "adapter_1.1")
    both(here + "output_convs.0.conv", there + "layer_1.0")
    both(here + "output_convs.0.gn", there + "layer_1.1")
    both(here + "mask_feature", there + "mask_projection")
    out[here + "level_encoding.weight"] = state[there + "level_embed"]
    for i in range(config.encoder_layers):
        mine, theirs = f"{here}encoder.layers.{i}.", f"{there}encoder.layers.{i}."
        for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
            both(f"{mine}attentions.0.{name}", f"{theirs}self_attn.{name}")
        both(mine + "ffns.0.layers.0.0", theirs + "fc1")
        both(mine + "ffns.0.layers.1", theirs + "fc2")
        both(mine + "norms.0", theirs + "self_attn_layer_norm")
        both(mine + "norms.1", theirs + "final_layer_norm")
    there = "model.transformer_module."
    for i in range(config.decoder_layers - 1):
        mine, theirs = f"panoptic_head.transformer_decoder.layers.{i}.", f"{there}decoder.layers.{i}."
        for end in ("weight", "bias"):
            out[f"{mine}attentions.0.attn.in_proj_{end}"] = state[f"{theirs}cross_attn.in_proj_{end}"]
            out[f"{mine}attentions.1.attn.in_proj_{end}"] = torch.cat(
                [state[f"{theirs}self_attn.{p}_proj.{end}"] for p in "qkv"]
            )
        both(mine + "attentions.0.attn.out_proj", theirs + "cross_attn.out_proj")
        both(mine + "attentions.1.attn.out_proj", theirs + "self_attn.out_proj")
        both(mine + "ffns.0.layers.0.0", theirs + "fc1")
        both(mine + "ffns.0.layers.1", theirs + "fc2")
        for k, norm in enumerate(("cross_attn_layer_norm", "self_attn_layer_norm", "final_layer_norm")):
            both(f"{mine}norms.{k}", theirs + norm)
    both("panoptic_head.transformer_decoder.post_norm", there + "decoder.layernorm")
    for name, source in (("query_embed", "queries_embedder"), ("query_feat", "queries_features")):
        both(f"panoptic_head.{name}", there + source)
    both("panoptic_head.level_embed", there + "level_embed")
    both("panoptic_head.cls_embed", "class_predictor")
    for i in range(3):
        both(f"panoptic_head.mask_embed.{2 * i}", f"{there}decoder.mask_predictor.mask_embedder.{i}.0")
    return {name: tensor.clone() for name, tensor in out.items()}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    """As mmdet publishes it: notes on the training beside the tensors."""
    import numpy as np

    path = tmp_path_factory.mktemp("mmdet") / "tiny.pth"
    meta = {"mmdet_version": "2.24.1", "CLASSES": ("person", "bicycle"), "epoch": 50, "lr": np.float64(1e-4)}
    torch.save({"meta": meta, "state_dict": to_mmdet(model.state_dict(), model.config)}, path)
    return path


def outputs(model, pixels):
    with torch.no_grad():
        out = model(pixel_values=pixels)
    return out.class_queries_logits, out.masks_queries_logits


def test_converted_weights_give_equal_outputs(model, checkpoint, tmp_path):
    from transformers import Mask2FormerForUniversalSegmentation

    done = convert_file(checkpoint, tmp_path / "out")
    again = Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(outputs(again, pixels), outputs(model, pixels), strict=True):
        assert mine.std() > 0.01 and torch.equal(mine, theirs)
    mine, theirs = again.state_dict(), model.state_dict()
    idle = {name for name in theirs if ".swin.layernorm." in name}  # mmdet has none, and no output passes it
    assert len(idle) == 2
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs if name not in idle)
    assert done.label.startswith("mmdet-") and done.label.endswith(done.source_sha256[:8])


def test_patch_merging_equals_mmdets_own(model, checkpoint):
    """mmdet's forward (nn.Unfold, norm, linear) on its weights, transformers' on the converted ones."""
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    converted = convert(state)
    name = "backbone.stages.1.downsample."
    x = torch.randn(2, 6, 10, 16, generator=torch.Generator().manual_seed(0))  # (B, H, W, C)
    patches = torch.nn.Unfold(2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)
    patches = torch.nn.functional.layer_norm(
        patches, (64,), state[name + "norm.weight"], state[name + "norm.bias"]
    )
    wanted = patches @ state[name + "reduction.weight"].T
    merging = model.model.pixel_level_module.encoder.swin.encoder.layers[1].downsample
    there = "model.pixel_level_module.encoder.encoder.layers.1.downsample."
    with torch.no_grad():
        got = torch.func.functional_call(
            merging,
            {key: converted[there + key] for key in merging.state_dict()},
            (x.reshape(2, 60, 16), (6, 10)),
        )
    assert torch.allclose(got, wanted, atol=1e-5)


def swin_s_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco, from its configuration."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int, bias: bool = True) -> None:
        shapes[name + ".weight"] = shape
        if bias:
            shapes[name + ".bias"] = shape[:1]

    def norm(name: str, width: int) -> None:
        linear(name, width)

    linear("backbone.patch_embed.projection", 96, 3, 4, 4)
    norm("backbone.patch_embed.norm", 96)
    for stage, (depth, heads) in enumerate(zip((2, 2, 18, 2), (3, 6, 12, 24), strict=True)):
        width = 96 * 2**stage
        for block in range(depth):
            here = f"backbone.stages.{stage}.blocks.{block}."
            norm(here + "norm1", width)
            norm(here + "norm2", width)
            shapes[here + "attn.w_msa.relative_position_bias_table"] = (169, heads)
            linear(here + "attn.w_msa.qkv", 3 * width, width)
            linear(here + "attn.w_msa.proj", width, width)
            linear(here + "ffn.layers.0.0", 4 * width, width)
            linear(here + "ffn.layers.1", width, 4 * width)
        if stage < 3:
            norm(f"backbone.stages.{stage}.downsample.norm", 4 * width)
            linear(f"backbone.stages.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
        norm(f"backbone.norm{stage}", width)
    here = "panoptic_head.pixel_decoder."
    for i, width in enumerate((768, 384, 192)):  # from low to high resolution
        linear(f"{here}input_convs.{i}.conv", 256, width, 1, 1)
        norm(f"{here}input_convs.{i}.gn", 256)
    linear(here + "lateral_convs.0.conv", 256, 96, 1, 1, bias=False)
    norm(here + "lateral_convs.0.gn", 256)
    linear(here + "output_convs.0.conv", 256, 256, 3, 3, bias=False)
    norm(here + "output_convs.0.gn", 256)
    linear(here + "mask_feature", 256, 256, 1, 1)
    shapes[here + "level_encoding.weight"] = (3, 256)
    for i in range(6):
        layer = f"{here}encoder.layers.{i}."
        linear(layer + "attentions.0.sampling_offsets", 8 * 3 * 4 * 2, 256)
        linear(layer + "attentions.0.attention_weights", 8 * 3 * 4, 256)
        linear(layer + "attentions.0.value_proj", 256, 256)
        linear(layer + "attentions.0.output_proj", 256, 256)
        linear(layer + "ffns.0.layers.0.0", 1024, 256)
        linear(layer + "ffns.0.layers.1", 256, 1024)
        norm(layer + "norms.0", 256)
        norm(layer + "norms.1", 256)
    for i in range(9):
        layer = f"panoptic_head.transformer_decoder.layers.{i}."
        for k in range(2):
            shapes[f"{layer}attentions.{k}.attn.in_proj_weight"] = (768, 256)
            shapes[f"{layer}attentions.{k}.attn.in_proj_bias"] = (768,)
            linear(f"{layer}attentions.{k}.attn.out_proj", 256, 256)
        linear(layer + "ffns.0.layers.0.0", 2048, 256)
        linear(layer + "ffns.0.layers.1", 256, 2048)
        for k in range(3):
            norm(f"{layer}norms.{k}", 256)
    norm("panoptic_head.transformer_decoder.post_norm", 256)
    for name in ("query_embed", "query_feat"):
        shapes[f"panoptic_head.{name}.weight"] = (100, 256)
    shapes["panoptic_head.level_embed.weight"] = (3, 256)
    linear("panoptic_head.cls_embed", 81, 256)
    for i in (0, 2, 4):
        linear(f"panoptic_head.mask_embed.{i}", 256, 256)
    return shapes


def published_name(name: str) -> str:
    """Module names of transformers 5.2x -> those of published checkpoints."""
    name = name.replace("encoder.swin.", "encoder.")
    if "pixel_level_module.encoder.encoder" in name:
        for new, old in (
            ("attention.q_proj", "attention.self.query"), ("attention.k_proj", "attention.self.key"),
            ("attention.v_proj", "attention.self.value"), ("attention.o_proj", "attention.output.dense"),
            ("attention.relative_position_bias.", "attention.self."), ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):  # fmt: skip
            name = name.replace(new, old)
    return name


def test_documented_names_and_shapes_fill_the_released_architecture():
    """On the meta device: the sizes of the 68.7 M network without its memory."""
    from transformers import Mask2FormerForUniversalSegmentation

    tensors = {name: torch.empty(shape, device="meta") for name, shape in swin_s_names().items()}
    tensors["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"] = window_index(7)
    config = config_of(tensors)
    backbone = config.backbone_config
    assert (backbone.depths, backbone.num_heads, backbone.window_size) == ([2, 2, 18, 2], [3, 6, 12, 24], 7)
    assert (config.num_queries, config.encoder_layers, config.decoder_layers) == (100, 6, 10)
    assert (config.num_attention_heads, config.dim_feedforward, config.encoder_feedforward_dim) == (8, 2048, 1024)
    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(config)
    wanted = {published_name(name): tuple(t.shape) for name, t in model.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in convert(tensors).items()}
    left = {name for name in wanted if name not in got}
    assert left == {
        "criterion.empty_weight",
        "model.pixel_level_module.encoder.layernorm.weight",
        "model.pixel_level_module.encoder.layernorm.bias",
    }
    assert got == {name: shape for name, shape in wanted.items() if name not in left}
    parameters = sum(t.numel() for t in model.parameters())
    assert round(parameters / 1e6, 1) == 68.7


def test_command_makes_a_folder_that_the_judge_takes(checkpoint, clip_folder, tmp_path):
    from evals.api import ModelOptions
    from evals.cli.main import main
    from evals.judges.detector import create

    out = tmp_path / "sub" / "converted"
    result = CliRunner().invoke(main, ["convert-mmdet", str(checkpoint), str(out), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said["source_sha256"] == digest and said["label"] == f"mmdet-{digest[:8]}"
    judge = create(f"{out},clip={clip_folder},self_test=false", ModelOptions(device="cpu"))
    assert judge.identity.settings["detector"] == said["label"]
    assert sorted(p.name for p in out.parent.iterdir()) == ["converted"]
    again = CliRunner().invoke(main, ["convert-mmdet", str(checkpoint), str(out)])
    assert again.exit_code == 2 and "exists and is not empty" in again.output


def test_official_is_told_by_the_digest_alone(checkpoint, clip_folder, tmp_path, monkeypatch):
    import evals.mmdet.convert as converter
    from evals.api import ModelOptions
    from evals.judges.detector import create

    assert converter.OFFICIAL_SHA256_START == "743b7d99"
    start = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(converter, "OFFICIAL_SHA256_START", start)
    assert convert_file(checkpoint, tmp_path / "o").label == "official"
    options = ModelOptions(device="cpu")
    judge = create(f"{tmp_path / 'o'},clip={clip_folder}", options)
    assert judge.identity.settings["detector"] == "official"
    weights = (tmp_path / "o" / "model.safetensors").read_bytes()
    (tmp_path / "o" / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    with pytest.raises(UsageError, match="is of other weights than model.safetensors beside it"):
        create(f"{tmp_path / 'o'},clip={clip_folder}", options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("panoptic_head.query_feat.weight"), "lacks panoptic_head.query_feat.weight"),
        (lambda s: s.pop("backbone.norm2.weight"), "is not the Mask2Former that it looks like"),
        (lambda s: s.update({"rpn_head.conv.weight": torch.zeros(1)}), "holds 'rpn_head.conv.weight' that"),
        (
            lambda s: s.update({f"{PIXEL_DECODER}encoder.layers.0.self_attn.value_proj.bias": torch.zeros(1)}),
            "these are the names of mmdet 3",
        ),
        (lambda s: s.update({"panoptic_head.cls_embed.weight": torch.zeros(134, 32)}), "knows 133 classes"),
        (
            lambda s: s.update({"backbone.stages.0.blocks.0.attn.w_msa.relative_position_index": window_index(3).T}),
            "in an unknown order",
        ),
    ],
)  # fmt: skip
def test_other_checkpoints_are_refused_and_leave_nothing(model, tmp_path, change, message):
    state = to_mmdet(model.state_dict(), model.config)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        convert_file(tmp_path / "x.pth", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_objects_in_the_file_are_never_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "meta": Harmful()}, "x.pth")
    with pytest.raises(InputError, match="is not a checkpoint of plain tensors"):
        convert_file(Path("x.pth"), Path("out"))
    assert not Path("harmed").exists()
    Path("cut.pth").write_bytes(Path("x.pth").read_bytes()[:100])
    with pytest.raises(InputError, match="is not a checkpoint"):
        convert_file(Path("cut.pth"), Path("out"))
    with pytest.raises(InputError, match="does not exist: fetch https://download.openmmlab.com"):
        convert_file(Path("none.pth"), Path("out"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A file of the right name is enough for the identity."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_model.safetensors").write_bytes(b"x")
    return folder
