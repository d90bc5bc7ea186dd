"""A new model around a pretrained backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig

from blip3o.assemble import assemble
from blip3o.cli import main
from blip3o.errors import ConfigError, WeightsError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny
from blip3o.train.tokenizer import train_tokenizer
from blip3o.unified import Blip3oModel

DIT = {"input_size": 4, "patch_size": 2, "in_channels": 6, "dim": 32, "num_layers": 1, "num_heads": 4}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A language model as its authors publish it: no word for images in its tokenizer."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a photo of a dog"], 300)
    tokenizer.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        for token, plain in (("[IMG]", "<a>"), ("[/IMG]", "<b>"), ("<image>", "<c>")):
            text = text.replace(token, plain)
        (folder / name).write_text(text)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_the_backbone_keeps_its_weights_and_gains_the_image_tokens(llama, tmp_path: Path) -> None:
    own = AutoModelForCausalLM.from_pretrained(llama)
    model, tokenizer = assemble(llama, num_queries=4, dit_config=DIT)
    rows = own.get_input_embeddings().weight
    assert len(tokenizer) == len(rows) + 3
    tokens = model.config.tokens
    assert [tokens.image_start, tokens.image_end, tokens.query] == tokenizer.convert_tokens_to_ids(
        ["[IMG]", "[/IMG]", "<image>"]
    )
    table = model.backbone.lm.get_input_embeddings().weight
    assert torch.equal(table[: len(rows)], rows)
    torch.testing.assert_close(table[len(rows) :], rows.mean(dim=0).expand(3, -1))
    ids = torch.randint(20, 200, (2, 6))
    with torch.no_grad():
        theirs = own(ids).logits
        ours = model.backbone.text_logits(ids, torch.ones_like(ids))[..., : len(rows)]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = Blip3oModel.from_pretrained(tmp_path)
    before, after = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.config.dit.condition_dim == 24


def test_any_design_can_be_assembled(llama) -> None:
    model, _ = assemble(llama, num_queries=4, dit_config=DIT, objective="mse", head="linear", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randint(20, 200, (1, 5)), None, torch.randn(1, 6, 4, 4)).loss.isfinite()


def test_backbones_that_cannot_be_used_are_refused(llama, tmp_path: Path) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'bert' is not supported; use one of qwen2_5_vl, llama"):
        assemble(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pytorch_model.bin is a pickle"):
        assemble(tmp_path)


def test_the_backbone_of_a_trained_model_is_kept(tmp_path: Path) -> None:
    """Another head on the same eyes and words: what a comparison of designs starts from."""
    tiny = build_tiny()
    tiny.save_pretrained(tmp_path / "model")
    tiny.decoder.save_pretrained(tmp_path / "decoder")
    arguments = ["assemble", str(tmp_path / "model"), str(tmp_path / "mse"), "--design", "clip-mse", "--head", "linear",
                 "--num-queries", "4", "--decoder", str(tmp_path / "decoder")]  # fmt: skip
    for key, value in DIT.items():
        arguments += ["--dit", f"{key}={value}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "clip-mse, 920 fresh parameters on qwen2_5_vl" in result.output
    made = Blip3oPipeline.from_pretrained(tmp_path / "mse")
    ours, theirs = made.model.backbone.state_dict(), tiny.model.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert made.model.config.tokens == tiny.model.config.tokens
    assert made.understanding == tiny.understanding and made.model.config.flow == tiny.model.config.flow
    assert made("a dog").images[0].size == (32, 32)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "is not an empty folder" in result.output
    result = CliRunner().invoke(main, [*arguments[:2], str(tmp_path / "x"), "--dit", "dim=wide"])
    assert result.exit_code == 2 and "'dim=wide' is no KEY=VALUE" in result.output
    result = CliRunner().invoke(main, [*arguments[:2], str(tmp_path / "x"), "--head", "linear"])
    assert result.exit_code == 1 and "does not serve objective 'flow'" in result.output
