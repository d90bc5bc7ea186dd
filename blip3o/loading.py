"""A folder of weights -> the parts of a pipeline."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from blip3o.card import PipelineCard, check_digests, read_card
from blip3o.config import Blip3oConfig, Compat, TokenConfig
from blip3o.decoder import PixelDecoder, load_decoder
from blip3o.errors import WeightsError
from blip3o.released import backbone_licence
from blip3o.storage import quiet_transformers
from blip3o.strict_loading import is_released, read_config
from blip3o.unified import Blip3oModel

logger = logging.getLogger(__name__)

# The tokens of image generation in the released tokenizer.
IMAGE_START, IMAGE_END, QUERY = "[IMG]", "[/IMG]", "<image>"


@dataclass
class Parts:
    """What a pipeline is made of. ``is_dispatched``: the model is spread over devices and must not be moved."""

    model: Blip3oModel
    tokenizer: PreTrainedTokenizerBase
    decoder: PixelDecoder | None
    card: PipelineCard
    is_dispatched: bool = False


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Raises: WeightsError."""
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"the tokenizer in {folder} cannot be loaded ({' '.join(str(error).split())}); fetch it again"
        ) from None


def token_config(tokenizer: PreTrainedTokenizerBase) -> TokenConfig:
    """Ids of the image tokens in a tokenizer of the released layout. Raises: WeightsError if it lacks them."""
    vocabulary = tokenizer.get_vocab()
    for token in (IMAGE_START, IMAGE_END, QUERY):
        if token not in vocabulary:
            raise WeightsError(
                f"the tokenizer lacks {token}: it is the backbone's own, not that of a BLIP3-o; fetch the "
                "tokenizer files of the same model"
            )
    return TokenConfig(
        image_start=vocabulary[IMAGE_START], image_end=vocabulary[IMAGE_END], query=vocabulary[QUERY]
    )


def load_parts(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    compat: Compat | None = None,
    device_map: Any = None,
    max_memory: dict[Any, Any] | None = None,
    offload_folder: str | Path | None = None,
) -> Parts:
    """All parts of a model folder, in one precision, of our layout or the released one.

    Args: dtype: precision of the weights (default: the card's, for released models float16). device_map,
        max_memory, offload_folder: as in transformers, for backbone and generation head; the pixel decoder goes to
        the device of the queries. Raises: WeightsError, ConfigError.
    """
    check_digests(folder)
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    if is_released(folder):
        config.token_config = vars(token_config(tokenizer)).copy()
        licence = backbone_licence(config)
        # Trained on captions only; the backbone answers as it did before.
        modes = ("ask", "generate")
        card = PipelineCard(
            dtype="float16", reconstruction_size_px=448, licence=licence, modes=modes
        )
    else:
        card = read_card(folder)
        card = replace(card, licence=card.licence or backbone_licence(config))
    if card.licence is not None:
        restricted = "no commercial use" in card.licence
        logger.log(logging.WARNING if restricted else logging.INFO, "%s: %s", folder, card.licence)
    if len(tokenizer) > (rows := vocabulary_size(config)):
        raise WeightsError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the backbone has embeddings for {rows}; "
            "the files are of different models"
        )
    if compat is not None:
        config.compat = compat
    dtype = dtype or getattr(torch, card.dtype)
    placement: dict[str, Any] = {"device_map": device_map, "max_memory": max_memory}
    if offload_folder is not None:
        placement["offload_folder"] = str(offload_folder)
    model = Blip3oModel.from_pretrained(
        folder, config=config, dtype=dtype, **{k: v for k, v in placement.items() if v is not None}
    )
    decoder = None
    for name in ("decoder", "diffusion-decoder"):
        if (folder / name).is_dir():
            decoder = load_decoder(folder / name, dtype)
            made = model.feature_shape[0]
            if decoder.feature_channels != made:
                raise WeightsError(
                    f"{folder / name} reads features of {decoder.feature_channels} channels, the model makes {made}; "
                    "the folders are of different models"
                )
    return Parts(model, tokenizer, decoder, card, is_dispatched=device_map is not None)


def vocabulary_size(config: Blip3oConfig) -> int:
    """Rows of the backbone's embedding table."""
    values = config.backbone_config
    return int((values.get("text_config") or values).get("vocab_size", 0))
