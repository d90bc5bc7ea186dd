"""What the stages of ``nano`` share, and the parts that come before generation: tokenizer, target encoder and pixel
decoder, vision tower and language side."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from blip3o.stickers import SceneConfig, make_scene
from blip3o.stickers.captions import long_caption, prompt, short_caption
from blip3o.stickers.questions import questions
from blip3o.storage import load_strict, read_tensors
from blip3o.train.autoencoder import AutoencoderStage, build_vae, standardise
from blip3o.train.checkpoint import save_tensors
from blip3o.train.features import TargetFeatures, fold_into_decoder, learned_space
from blip3o.train.loop import LoopConfig, TrainStage, fit
from blip3o.train.nano_config import (
    CLIP_CONFIG,
    CLIP_VOCAB_SIZE,
    DECODER_CONFIG,
    DIT_CONFIG,
    FEATURE_CHANNELS,
    FOLDED_CHANNELS,
    IMAGE_TOKENS,
    VOCAB_SIZE,
)
from blip3o.train.nano_parts import (
    build_backbone,
    compile_layers,
    patches_for,
    scale_picture_tokens,
)
from blip3o.train.nano_recipe import NanoRecipe
from blip3o.train.packed_chats import PackedUnderstandingStage
from blip3o.train.packed_data import PackedConversations
from blip3o.train.stages import (
    ClipStage,
    DecoderStage,
    VisionStage,
    freeze,
)
from blip3o.train.tokenizer import train_tokenizer
from blip3o.train.world_data import (
    DESCRIBE,
    IMAGINE,
    PROMPTS,
    CellLabels,
    Scenes,
    question_text,
)
from blip3o.vision.autoencoder import Autoencoder
from blip3o.vision.encoders import OpenClipEncoder
from blip3o.vision.feature_space import FeatureSpace

if TYPE_CHECKING:
    from open_clip.model import CLIP

    from blip3o.decoder import FlowPixelDecoder

logger = logging.getLogger(__name__)


class ClipParts(NamedTuple):
    """What the first stage trains together."""

    clip: CLIP
    projection: nn.Linear
    decoder: FlowPixelDecoder


class NanoPerception:
    """Stages in ``folder``; ``minutes`` replaces a time budget by the stage's name."""

    def __init__(
        self,
        folder: Path,
        recipe: NanoRecipe | None = None,
        minutes: dict[str, float] | None = None,
    ) -> None:
        self.folder, self.recipe = folder, recipe or NanoRecipe()
        self.minutes = minutes or {}
        self.world = SceneConfig.level(self.recipe.world)
        folder.mkdir(parents=True, exist_ok=True)

    # -- tokenizer ---------------------------------------------------------------------------------------------------
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The language side's tokenizer, trained on every kind of text of the world."""
        path = self.folder / "tokenizer"
        if not (path / "tokenizer.json").exists():
            texts = []
            for level in ("easy", "full"):
                world = SceneConfig.level(level)
                for index in range(6000):
                    scene = make_scene("train", index, world)
                    texts += [
                        prompt(scene),
                        short_caption(scene),
                        long_caption(scene),
                        DESCRIBE,
                        IMAGINE,
                        "You are a helpful assistant.",
                        "system user assistant",
                        PROMPTS.generation(prompt(scene)),
                    ]
                    for asked in questions(scene, index):
                        texts += [question_text(asked), asked.answer]
            train_tokenizer(texts, VOCAB_SIZE).save_pretrained(path)
        return PreTrainedTokenizerFast.from_pretrained(path)

    def clip_tokenizer(self) -> PreTrainedTokenizerFast:
        """CLIP's own tokenizer, trained on prompts."""
        path = self.folder / "clip-tokenizer"
        if not (path / "tokenizer.json").exists():
            texts = [prompt(make_scene("train", index, self.world)) for index in range(6000)]
            train_tokenizer(texts, CLIP_VOCAB_SIZE).save_pretrained(path)
        return PreTrainedTokenizerFast.from_pretrained(path)

    # -- target encoder and pixel decoder ----------------------------------------------------------------------------
    def clip_parts(self) -> ClipParts:
        from open_clip.model import CLIP

        from blip3o.decoder import FlowPixelDecoder, FlowPixelDecoderConfig

        torch.manual_seed(self.recipe.clip.seed)
        decoder = FlowPixelDecoder(FlowPixelDecoderConfig(**DECODER_CONFIG))
        width = CLIP_CONFIG["vision_cfg"]["width"]
        # channels_last: convolutions on a CPU are several times slower without it
        return ClipParts(
            CLIP(**CLIP_CONFIG),
            nn.Linear(width, FEATURE_CHANNELS),
            decoder.to(memory_format=torch.channels_last),
        )

    def clip(self) -> ClipParts:
        parts = self.clip_parts()
        if self._load("clip", parts._asdict()):
            return parts
        stage = ClipStage(
            *parts,
            self.clip_tokenizer(),
            Scenes("train", self.world, self.recipe.clip_batch),
            self.recipe.clip_decoder_weight,
            self.recipe.clip_decoder_pictures,
        )
        self._finish("clip", self._fit(stage))
        return parts

    def target(self) -> TargetFeatures:
        """The frozen target encoder; its statistics are measured on 4,096 training scenes."""
        parts = self.clip()
        encoder = OpenClipEncoder(parts.clip.visual, layer=-2)
        width = CLIP_CONFIG["vision_cfg"]["width"]
        target = TargetFeatures(encoder, FeatureSpace(width, FEATURE_CHANNELS, layer_norm=True))
        if not self._load("target", {"target": target}):
            pixels = Scenes("train", self.world, 4096)(0).pixels
            target.space, inner = learned_space(encoder.eval(), parts.projection, pixels)
            fold_into_decoder(parts.decoder.unet.conv_in, FOLDED_CHANNELS, inner)
            self._finish("target-decoder", {"decoder": parts.decoder})
            self._finish("target", {"target": target})
        return freeze(target)

    def decoder(self) -> FlowPixelDecoder:
        """The pixel decoder: goes on from the joint stage with the tower frozen."""
        target, decoder = self.target(), self.clip_parts().decoder
        if self._load("decoder", {"decoder": decoder}):
            return decoder
        self._load("target-decoder", {"decoder": decoder})
        batches = Scenes("train", self.world, self.recipe.decoder_batch, first=1_000_000)
        stage = DecoderStage(decoder, target, batches, self.recipe.feature_noise)
        self._finish("decoder", self._fit(stage))
        return decoder

    # -- understanding -----------------------------------------------------------------------------------------------
    def vision(self) -> nn.Module:
        """The backbone's vision tower before it meets the language model: the target tower teaches it."""
        backbone = self._backbone()
        tower = backbone.model.visual
        if not self._load("vision", {"visual": tower}):
            encoder = self.target().encoder
            grid = int(IMAGE_TOKENS**0.5)
            text: Any = backbone.config.text_config
            stage = VisionStage(
                tower,
                encoder,
                CellLabels("train", self.world, self.recipe.vision_batch, grid=grid),
                patches_for(backbone),
                hidden_size=text.hidden_size,
                feature_size=CLIP_CONFIG["vision_cfg"]["width"]
                * (DIT_CONFIG["input_size"] // grid) ** 2,
                grid=grid,
            )
            self._fit(stage)
            self._finish("vision", {"visual": tower})
        return tower

    def understanding(self) -> Qwen2_5_VLForConditionalGeneration:
        """The language side on pictures and text; what it knows of text conditions generation."""
        backbone = self._backbone()
        if self._load("understanding", {"backbone": backbone}):
            return backbone
        backbone.model.visual.load_state_dict(self.vision().state_dict())
        scale_picture_tokens(backbone, Scenes("train", self.world, 64, first=5_500_000)(0).pixels)
        chats = PackedConversations(
            "train",
            self.world,
            self.tokenizer(),
            IMAGE_TOKENS,
            first=6_000_000,
            **self.recipe.understanding_rows,
        )
        if self._can_compile():
            compile_layers(backbone)
        self._fit(PackedUnderstandingStage(backbone, chats, patches_for(backbone)))
        self._finish("understanding", {"backbone": backbone})
        return backbone

    def _backbone(self) -> Qwen2_5_VLForConditionalGeneration:
        return build_backbone(self.tokenizer(), self.recipe.understanding.seed)

    def _can_compile(self) -> bool:
        """Compiled blocks are 1.2 to 1.7 times faster on a CPU, for one to two minutes of compiling; the numbers stay
        the same up to rounding."""
        return self.recipe.compile and shutil.which("c++") is not None

    # -- the alternative target --------------------------------------------------------------------------------------
    def autoencoder(self) -> Autoencoder:
        """The sticker VAE, in the folder ``autoencoder/model``: the target of VAE + flow matching. No part of what
        ships, and run only when asked for."""
        folder = self.folder / "autoencoder" / "model"
        if (folder / "config.json").is_file():
            return Autoencoder.from_folder(folder, {})
        vae = build_vae(self.recipe.autoencoder.seed)
        batches = Scenes("train", self.world, self.recipe.autoencoder_batch, first=8_000_000)
        self._fit(AutoencoderStage(vae, batches))
        target = standardise(vae, Scenes("train", self.world, 512)(0).pixels)
        target.save_pretrained(folder)
        return target

    # -- shared ------------------------------------------------------------------------------------------------------
    def _fit(self, stage: TrainStage) -> dict[str, nn.Module]:
        """Train a stage on the machine's device; between stages everything lies on the CPU."""
        config: LoopConfig = getattr(self.recipe, stage.name)
        config = replace(config, max_minutes=self.minutes.get(stage.name, config.max_minutes))
        modules = fit(stage, config, self.folder / stage.name)
        for module in (*modules.values(), *getattr(stage, "frozen", ())):
            module.cpu()
        return modules

    def _finish(self, name: str, modules: Mapping[str, nn.Module]) -> None:
        """Averaged weights of a finished stage; their presence means that the stage is done."""
        tensors = {
            f"{k}.{key}": v.clone() for k, m in modules.items() for key, v in m.state_dict().items()
        }
        save_tensors(self.folder / f"{name}.safetensors", tensors)

    def _load(self, name: str, modules: Mapping[str, nn.Module]) -> bool:
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return False
        tensors = read_tensors(path)
        for key, module in modules.items():
            own = {
                k.removeprefix(f"{key}."): v for k, v in tensors.items() if k.startswith(f"{key}.")
            }
            load_strict(module, own, path)
            module.eval()
        logger.info("stage %s: finished earlier, loaded %s", name, path)
        return True
