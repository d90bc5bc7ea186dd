"""A new model around a pretrained language or vision-language model: what training from a backbone starts with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
)

from blip3o.backbone import Backbone, QwenBackbone
from blip3o.backbone_attention import ATTENTION_NAME
from blip3o.checkpoint_files import folder_headers
from blip3o.config import Blip3oConfig
from blip3o.errors import ConfigError, WeightsError
from blip3o.loading import IMAGE_END, IMAGE_START, QUERY, load_tokenizer, token_config
from blip3o.released import MODEL_TYPES
from blip3o.storage import CONFIG_NAME, quiet_transformers, read_json
from blip3o.strict_loading import is_released, outside_launcher
from blip3o.text_backbone import TEXT_MODELS, TextBackbone
from blip3o.unified import Blip3oModel


def add_image_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give a backbone's tokenizer the tokens of image generation. Returns: how many were new."""
    vocabulary = tokenizer.get_vocab()
    new = [token for token in (IMAGE_START, IMAGE_END, QUERY) if token not in vocabulary]
    return int(tokenizer.add_special_tokens(
        {"additional_special_tokens": new}, replace_extra_special_tokens=False
    ))  # fmt: skip


@torch.no_grad()
def resize_embeddings(backbone: PreTrainedModel, rows: int) -> None:
    """Embedding table (and text head) with ``rows`` rows, as upstream does it: new ones are the mean of the others."""
    table: Any = backbone.get_input_embeddings()
    old = len(table.weight)
    backbone.resize_token_embeddings(rows, mean_resizing=False)
    for part in (backbone.get_input_embeddings(), backbone.get_output_embeddings()):
        if part is not None and rows > old:
            weight: Any = part.weight
            weight[old:] = weight[:old].mean(dim=0)


def assemble(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    num_queries: int = 64,
    dit_config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[Blip3oModel, PreTrainedTokenizerBase]:
    """A model with the backbone in ``folder``, fresh queries and a fresh head.

    Args: folder: a transformers folder of Qwen2.5-VL or of a language model (``llama``, ``qwen3``, ...), or a BLIP3-o,
        whose backbone and flow settings are taken; dtype: of all weights; dit_config: sizes of the transformer, its
        condition_dim follows the backbone; settings: of Blip3oConfig (target, objective, head, flow_config, ...).
    Returns: the model and its tokenizer, which has the image tokens. Raises: WeightsError, ConfigError.
    """
    folder = Path(folder)
    if read_json(folder / CONFIG_NAME).get("model_type") in (Blip3oConfig.model_type, *MODEL_TYPES):
        trained, tokenizer = Blip3oModel.from_pretrained(folder, dtype=dtype), load_tokenizer(folder)
        backbone, values = trained.backbone, trained.config.backbone_config
        tokens = token_config(tokenizer) if is_released(folder) else trained.config.tokens
        settings.setdefault("flow_config", trained.config.flow_config)
    else:
        backbone, values, tokenizer = _from_transformers(folder, dtype)
        tokens = token_config(tokenizer)
    config = Blip3oConfig(
        backbone_config=values,
        num_queries=num_queries,
        dit_config={**(dit_config or {}), "condition_dim": backbone.hidden_size},
        token_config=tokens,
        **settings,
    )
    model = Blip3oModel(config, backbone)
    return model.to(dtype), tokenizer


def _from_transformers(
    folder: Path, dtype: torch.dtype
) -> tuple[Backbone, dict[str, Any], PreTrainedTokenizerBase]:
    """A backbone as its authors publish it; its tokenizer and embeddings grow by the image tokens."""
    folder_headers(folder)  # complete, and no pickle
    try:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} cannot be read ({' '.join(str(error).split())})") from None
    kinds = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration} | dict.fromkeys(
        TEXT_MODELS, AutoModelForCausalLM
    )
    kind = found.model_type
    if kind not in kinds:
        raise ConfigError(f"backbone model_type {kind!r} is not supported; use one of {', '.join(kinds)}")
    tokenizer = load_tokenizer(folder)
    add_image_tokens(tokenizer)
    with quiet_transformers(), outside_launcher():
        pretrained: Any = kinds[kind].from_pretrained(
            folder, dtype=dtype, attn_implementation=ATTENTION_NAME, use_safetensors=True, local_files_only=True
        )  # fmt: skip
    resize_embeddings(pretrained, len(tokenizer))
    values = pretrained.config.to_dict()
    if kind == "qwen2_5_vl":
        return QwenBackbone(pretrained.config, vlm=pretrained), values, tokenizer
    return TextBackbone(values, lm=pretrained), values, tokenizer
