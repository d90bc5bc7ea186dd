"""Runs of part recipes: pictures read as for a model's recipe, the part trained by the one loop, saved as a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.config import build_part
from blip3o.data.loader import LoaderConfig, RecordLoader
from blip3o.data.mixture import Ingredient
from blip3o.data.records import RawRecord, Reading
from blip3o.decoder import FlowPixelDecoder, FlowPixelDecoderConfig
from blip3o.errors import ConfigError
from blip3o.storage import write_json
from blip3o.train.autoencoder import EDGE_WEIGHT, KL_WEIGHT, AutoencoderStage, standardise
from blip3o.train.data_spec import check_files, open_source, picture_root
from blip3o.train.distributed import Processes
from blip3o.train.features import fold_into_decoder, learned_space
from blip3o.train.loaders import Loaders
from blip3o.train.loop import Hooks, fit
from blip3o.train.part_recipe import PartRecipe
from blip3o.train.stage import TrainStage
from blip3o.train.stages import ClipStage, DecoderStage
from blip3o.train.tokenizer import train_tokenizer
from blip3o.train.world_data import PictureBatch
from blip3o.vision.encoders import OpenClipEncoder
from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD, Preprocess
from blip3o.vision.targets import Target, autoencoder_target

logger = logging.getLogger(__name__)

MEASURED = 1024  # pictures on which the statistics of features are measured
TOKENIZER_TEXTS = 1024


def run_part(recipe: PartRecipe, output: Path, hooks: Hooks | None = None) -> Path:
    """Train as ``recipe`` says in ``output`` (resumable), and write the part to ``output/model``; returns it.

    What is written: ``clip`` a target encoder, a decoder and CLIP's tokenizer, each in a folder of its own;
    ``autoencoder`` a VAE that is target encoder and decoder; ``decoder`` the model with its new decoder; ``judge`` the
    judge's weights. Raises: ConfigError, WeightsError, DataError.
    """
    if recipe.stage == "judge":
        return _judge(recipe, output)
    check_files(recipe.data)
    run = {"clip": _clip, "autoencoder": _autoencoder, "decoder": _decoder}[recipe.stage]
    processes = Processes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        finish = run(_Run(recipe, output, hooks or Hooks(), processes))
    if processes.is_main:
        finish(output / "model")
    processes.barrier()
    return output / "model"


@dataclass(frozen=True)
class PictureEncoder:
    """Raw record -> (key, picture (3, S, S) in [-1, 1], caption or ""); picklable, for reading workers."""

    reading: Reading
    preprocess: Preprocess
    needs_text: bool

    def __call__(self, raw: RawRecord) -> tuple[str, Tensor, str]:
        text = self.reading.text(raw) if self.needs_text else ""
        return raw.key, self.preprocess([self.reading.picture(raw)])[0], text


def picture_batch(rows: Sequence[tuple[str, Tensor, str]]) -> PictureBatch:
    keys, pixels, captions = zip(*rows, strict=True)
    return PictureBatch(list(keys), [], torch.stack(pixels), list(captions))


@dataclass
class _Run:
    """What the parts have in common."""

    recipe: PartRecipe
    output: Path
    hooks: Hooks
    processes: Processes

    def loader(self, size_px: int, **changes: Any) -> RecordLoader:
        recipe = self.recipe
        size = Preprocess(size_px=size_px, mean=UNIT_MEAN, std=UNIT_STD)
        ingredients = []
        for data in recipe.data:
            encoder: Any = PictureEncoder(Reading(root=picture_root(data)), size, recipe.stage == "clip")
            ingredients.append(Ingredient(open_source(data), encoder, data.weight))
        config = LoaderConfig(
            batch_size=recipe.batch_size,
            seed=recipe.loop.seed,
            workers=recipe.workers,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            block=recipe.shuffle_block,
            max_bad_share=recipe.max_bad_share,
        )
        return RecordLoader(ingredients, replace(config, **changes), picture_batch)

    def batches(self, size_px: int) -> Loaders:
        return Loaders(pictures=self.loader(size_px))

    def sample(self, size_px: int, count: int) -> PictureBatch:
        """The first pictures of another order than the training's, on every process the same."""
        changes = {"batch_size": count, "seed": self.recipe.loop.seed + 1, "workers": 0, "rank": 0, "world_size": 1}
        batch: PictureBatch = next(iter(self.loader(size_px, **changes)))
        return batch

    def train(self, stage: TrainStage, loaders: Loaders) -> None:
        stage.data_state, stage.load_data_state = loaders.state, loaders.load_state  # type: ignore[attr-defined]
        values = asdict(self.recipe)
        kept = {f"recipe.{key}": values[key] for key in ("stage", "settings", "batch_size", "shuffle_block", "model")}
        fit(stage, self.recipe.loop, self.output / "train", self.hooks, self.processes, kept)
        if self.processes.is_main:
            write_json(self.output / "data.json", loaders.tallies())


Finish = Callable[[Path], None]


def _autoencoder(run: _Run) -> Finish:
    from diffusers.models import AutoencoderKL

    settings = run.recipe.settings
    vae = AutoencoderKL(**_sized(settings["vae"], "vae")).to(memory_format=torch.channels_last)
    side = int(vae.config["sample_size"])
    loaders = run.batches(side)
    stage = AutoencoderStage(
        vae,
        lambda step: loaders.next()[0],
        settings.get("kl_weight", KL_WEIGHT),
        settings.get("edge_weight", EDGE_WEIGHT),
    )
    run.train(stage, loaders)
    pixels = run.sample(side, min(MEASURED, 16 * run.recipe.batch_size)).pixels
    # as a target, which names how its pictures are prepared; a decoder is read from the same folder
    return autoencoder_target(standardise(vae.cpu().eval(), pixels)).save_pretrained


def _clip(run: _Run) -> Finish:
    from open_clip.model import CLIP

    settings = run.recipe.settings
    shape = _sized(settings["clip"], "clip", ("vision_cfg", "text_cfg", "embed_dim"))
    side, width = shape["vision_cfg"]["image_size"], shape["vision_cfg"]["width"]
    decoder = build_part(FlowPixelDecoderConfig, settings["decoder"], "settings.decoder")
    channels = settings.get("channels", decoder.feature_channels)
    if channels != decoder.feature_channels or decoder.image_size != side:
        raise ConfigError(
            f"clip: {channels} channels of {side} px pictures do not fit the decoder's {decoder.feature_channels} of "
            f"{decoder.image_size} px"
        )
    texts = run.sample(side, TOKENIZER_TEXTS if run.recipe.batch_size > 8 else 64).captions
    size = settings.get("vocab_size", 512)
    folder = run.output / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(texts, size).save_pretrained(folder)
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    # ids are shifted by one and the end of a text is the highest: see clip_text_ids
    shape["text_cfg"] = {**shape["text_cfg"], "vocab_size": len(tokenizer) + 1}
    loaders = run.batches(side)
    stage = ClipStage(
        CLIP(**shape),
        nn.Linear(width, channels),
        FlowPixelDecoder(decoder).to(memory_format=torch.channels_last),
        tokenizer,
        lambda step: loaders.next()[0],
        settings.get("decoder_weight", 10.0),
        settings.get("decoder_pictures", run.recipe.batch_size // 2 or 1),
    )
    run.train(stage, loaders)
    for module in stage.modules.values():
        module.cpu().eval()
    encoder = OpenClipEncoder(stage.clip.visual, layer=-2).eval()
    pixels = run.sample(side, min(MEASURED, 16 * run.recipe.batch_size)).pixels
    space, inner = learned_space(encoder, stage.projection, pixels)
    fold_into_decoder(stage.decoder.unet.conv_in, 3 * decoder.unshuffle**2, inner)
    size_px = Preprocess(size_px=side, mean=UNIT_MEAN, std=UNIT_STD)
    target = Target(encoder, size_px, {"kind": "open_clip", "model": shape, "layer": -2}, space)

    def finish(folder: Path) -> None:
        target.save_pretrained(folder / "target_encoder")
        stage.decoder.save_pretrained(folder / "decoder")
        tokenizer.save_pretrained(folder / "clip_tokenizer")

    return finish


def _decoder(run: _Run) -> Finish:
    from blip3o.pipeline import Blip3oPipeline

    settings = run.recipe.settings
    assert run.recipe.model is not None
    pipeline = Blip3oPipeline.from_pretrained(run.recipe.model)
    target = pipeline.target_encoder
    if target is None:
        raise ConfigError(f"'{run.recipe.model}' has no target encoder, whose features a decoder reads")
    if "decoder" in settings:
        pipeline.decoder = FlowPixelDecoder(build_part(FlowPixelDecoderConfig, settings["decoder"], "settings.decoder"))
    decoder = pipeline.decoder
    if not isinstance(decoder, FlowPixelDecoder):
        kind = "none" if decoder is None else f"kind {decoder.kind}"
        raise ConfigError(
            f"the decoder of '{run.recipe.model}' is of {kind}, and only flow decoders are trained; give "
            "settings.decoder for a new one"
        )
    for parameter in decoder.parameters():
        parameter.data = parameter.data.float()
    decoder.requires_grad_(True).to(memory_format=torch.channels_last)
    side = decoder.config.image_size
    loaders = run.batches(side)
    features = TargetOfPixels(target.float()).requires_grad_(False).eval()
    stage = DecoderStage(
        decoder, features, lambda step: loaders.next()[0], settings.get("feature_noise", 0.25)
    )
    run.train(stage, loaders)
    decoder.cpu().eval()
    target.cpu()
    return pipeline.save_pretrained


class TargetOfPixels(nn.Module):
    """A target encoder on pictures (B, 3, S, S) in [-1, 1] of any size, prepared as it wants them."""

    mean: Tensor
    std: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        for name in ("mean", "std"):
            values = torch.tensor(getattr(target.preprocess, name)).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        side = self.target.preprocess.size_px
        pixels = pixels.add(1).div(2)
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self.target((pixels - self.mean) / self.std)
        return features


def _sized(values: Mapping[str, Any], name: str, needed: Sequence[str] = ()) -> dict[str, Any]:
    missing = [key for key in needed if key not in values]
    if missing:
        raise ConfigError(f"settings.{name} lacks {', '.join(missing)}")
    if name == "vae" and "sample_size" not in values:
        raise ConfigError("settings.vae lacks sample_size, the side of its pictures in pixels")
    return dict(values)


def _judge(recipe: PartRecipe, output: Path) -> Path:
    """The judge's own trainer: its two networks, each by the one loop, and its calibration."""
    from blip3o.stickers.judge_train import JudgeRecipe, train

    settings = dict(recipe.settings)
    color_steps = settings.pop("color_steps", 460)
    levels = tuple(path.split(":")[0] for data in recipe.data for path in data.paths)
    judge = JudgeRecipe(levels=levels, batch=recipe.batch_size, lr=recipe.loop.lr, seed=recipe.loop.seed, **settings)
    start = Path(recipe.model) if recipe.model is not None else None
    make = partial(train, judge, output, output / "model", recipe.loop.steps, color_steps)
    make(recipe.loop.max_minutes, start)
    return output / "model"
