"""The files of mPLUG's published VQA weights: what they say about sizes and search, and their tensors.

A folder as ModelScope hands it out (`iic/mplug_visual-question-answering_coco_large_en`, mirrored on the hub):
`config.yaml`, `config_bert.json`, `vocab.txt`, and `pytorch_model.bin` or `model.safetensors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import JudgeError, MissingRequirementError, UsageError, shown
from evals.io.digests import files_digest

if TYPE_CHECKING:
    from torch import Tensor

HUB_ID = "diffusion-bench/mplug_visual-question-answering_coco_large_en"
WANTED = ("config.yaml", "*.json", "vocab.txt", "model.safetensors", "pytorch_model.bin")
TASK = "visual-question-answering"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# The copies that distillation trains with, CLIP's side for texts, and tensors that stand for others.
_IDLE = re.compile(
    r"\w+_m\.|visual_encoder\.(?!visual\.)|visual_encoder\.visual\.proj$|.*\.position_ids$|"
    r"text_decoder\.cls\.predictions\.decoder\.bias$|.*\.pooler\."
)
_TIED = ("text_decoder.cls.predictions.decoder.weight", "text_decoder.bert.embeddings.word_embeddings.weight")


@dataclass(frozen=True)
class Sizes:
    """What `config.yaml` and `config_bert.json` say; the defaults are those of mPLUG-large."""

    image_size: int = 504
    patch_size: int = 14
    vision_width: int = 1024
    vision_layers: int = 24
    hidden_size: int = 768
    num_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_positions: int = 512
    token_types: int = 2
    eps: float = 1e-12
    memory_width: int = 768
    text_layers: int = 6
    bert_layers: int = 12
    fusion_layers: int = 6
    stride: int = 6
    decoder_layers: int = 12

    @property
    def image_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class MplugFiles:
    """A folder that has what is needed. ``beam_size``, ``min_length``, ``max_length``: of the answers."""

    folder: Path
    weights: Path
    sizes: Sizes
    beam_size: int
    min_length: int
    max_length: int

    def digest(self) -> str:
        """sha256 of weights, configurations and vocabulary."""
        names = ("config.yaml", "config_bert.json", "vocab.txt")
        return files_digest(self.folder, [self.weights, *(self.folder / name for name in names)])


def read_folder(folder: Path) -> MplugFiles:
    """Raises MissingRequirementError that names the files that are not there, UsageError for other models."""
    import yaml

    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    missing = [n for n in ("config.yaml", "config_bert.json", "vocab.txt") if not (folder / n).is_file()]
    if weights is None or missing:
        names = ", ".join([*missing, *([] if weights else [" or ".join(_WEIGHTS)])])
        raise MissingRequirementError(
            f"judge folder {folder} holds no mPLUG weights (missing: {names}): `hf download {HUB_ID}` fetches them"
        )
    try:
        top = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        bert = json.loads((folder / "config_bert.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{folder}: its configuration cannot be read ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(top, Mapping) or not isinstance(bert, Mapping):
        raise UsageError(f"{folder}: config.yaml and config_bert.json must hold a map each")
    if top.get("task", TASK) != TASK:
        raise UsageError(f"{folder} is mPLUG for {shown(top['task'])}; the judge needs the one for {TASK}")
    if bert.get("hidden_act", "gelu") != "gelu":
        raise UsageError(f"{folder}: hidden_act {shown(bert['hidden_act'])} is not supported, gelu is")
    default = Sizes()

    def number(source: Mapping[str, Any], key: str, otherwise: float) -> Any:
        value = source.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UsageError(f"{folder}: {key} = {shown(value)} must be a number above 0")
        return type(otherwise)(value)

    sizes = Sizes(
        image_size=number(top, "image_res", default.image_size),
        patch_size=number(top, "clip_vision_patch_size", default.patch_size),
        vision_width=number(top, "clip_vision_width", default.vision_width),
        vision_layers=number(top, "clip_vision_layers", default.vision_layers),
        hidden_size=number(bert, "hidden_size", default.hidden_size),
        num_heads=number(bert, "num_attention_heads", default.num_heads),
        intermediate_size=number(bert, "intermediate_size", default.intermediate_size),
        vocab_size=number(bert, "vocab_size", default.vocab_size),
        max_positions=number(bert, "max_position_embeddings", default.max_positions),
        token_types=number(bert, "type_vocab_size", default.token_types),
        eps=number(bert, "layer_norm_eps", default.eps),
        memory_width=number(bert, "encoder_width", default.memory_width),
        text_layers=number(bert, "text_encoder_layers", default.text_layers),
        bert_layers=number(bert, "num_hidden_layers", default.bert_layers),
        fusion_layers=number(bert, "fusion_layers", default.fusion_layers),
        # Without the key both never attend to each other, as upstream.
        stride=number(bert, "stride_layer", 100),
        decoder_layers=number(bert, "text_decode_layers", default.decoder_layers),
    )
    return MplugFiles(
        folder,
        weights,
        sizes,
        number(top, "beam_size", 5),
        number(top, "min_length", 1),
        number(top, "max_length", 10),
    )


def read_tensors(files: MplugFiles, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's tensors by its names. Raises JudgeError for weights that do not fit, naming the first."""
    source = files.weights
    if source.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content = load_file(source)
        except (SafetensorError, OSError) as error:
            raise JudgeError(f"{source} cannot be read ({' '.join(str(error).split())[:120]})") from None
    else:
        from evals.io.tensors import read_pickled_tensors

        content = read_pickled_tensors(source, ("model", "module"), f"fetch it with `hf download {HUB_ID}`")
    tensors = {re.sub(r"^(?:module\.|model\.)+", "", name): tensor for name, tensor in content.items()}
    if _TIED[0] not in tensors and _TIED[1] in tensors:
        tensors[_TIED[0]] = tensors[_TIED[1]]
    found = {name: tensor.float() for name, tensor in tensors.items() if name in expected}
    # Some tools store the words' bias under its second name only.
    bias = "text_decoder.cls.predictions.bias"
    if bias not in found and (other := tensors.get("text_decoder.cls.predictions.decoder.bias")) is not None:
        found[bias] = other.float()
    missing = sorted(set(expected) - set(found))
    if missing:
        raise JudgeError(f"{source} lacks {len(missing)} weights of mPLUG's VQA network, the first is {missing[0]}")
    strange = sorted(name for name in set(tensors) - set(expected) if not _IDLE.match(name))
    if strange:
        raise JudgeError(f"{source} holds {len(strange)} weights that mPLUG's VQA network does not have, the first is "
                         f"{strange[0]}")  # fmt: skip
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise JudgeError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, config.yaml and config_bert.json make it "
                f"{tuple(expected[name].shape)}"
            )
    return found
