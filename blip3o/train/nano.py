"""The recipe of ``nano``: every part of a BLIP3-o, trained from nothing on the sticker world.

Stages in order, each resumable in its own folder and skipped when finished:
``tokenizer`` -> ``clip`` -> ``decoder``; ``vision`` -> ``understanding``; ``cache`` -> ``generation`` ->
``alignment`` -> ``conditions`` -> ``generator``; ``export``. ``autoencoder``, the target of the VAE variant, is run
when asked for. The backbone is trained on understanding first and frozen for generation: the paper's sequential
training. Once the queries have learned what to read from it, they are frozen, the backbone learns to say of edits what
it says of captions, and the generator goes on alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from blip3o.pipeline import Blip3oPipeline, PipelineCard, Understanding, write_digests
from blip3o.storage import save_module
from blip3o.train.nano_config import CLIP_CONFIG
from blip3o.train.nano_generation import NanoGeneration
from blip3o.train.world_data import PROMPTS
from blip3o.vision.encoders import OpenClipEncoder

# of what ships
TRAINED_STAGES = ("clip", "decoder", "vision", "understanding", "generation", "alignment", "generator")
BUDGETED_STAGES = (*TRAINED_STAGES, "autoencoder")


class NanoTrainer(NanoGeneration):
    """Runs the stages in ``folder``; ``minutes`` replaces a stage's time budget by name."""

    def run(self, stages: Sequence[str]) -> None:
        """The named stages, one after another."""
        for stage in stages:
            getattr(self, stage.replace("-", "_"))()

    def pipeline(self) -> Blip3oPipeline:
        """The trained parts as the pipeline that users load."""
        half = (0.5, 0.5, 0.5)  # pictures in [-1, 1], as everywhere in this recipe
        card = PipelineCard(
            domain="stickers",
            batch_size=32,
            prompts=PROMPTS.to_dict(),
            understanding=asdict(Understanding(size_px=self.world.size_px, mean=half, std=half)),
            version="4",
            licence="Apache-2.0",
            modes=("ask", "generate", "reconstruct", "edit", "chat"),
        )
        return Blip3oPipeline(self.generator(), self.tokenizer(), self.decoder(), card)

    def export(self, folder: Path | None = None) -> None:
        """Half-precision weights and the training log, by default to ``export`` beside the stages."""
        folder = folder or self.folder / "export"
        self.pipeline().save_pretrained(folder, torch.float16)
        self._export_target(folder / "target_encoder")
        lines = [
            line
            for stage in TRAINED_STAGES
            for line in (self.folder / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        (folder / "training.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_digests(folder)

    def _export_target(self, folder: Path) -> None:
        """The tower up to the layer that is used, and the feature space."""
        target = self.target()
        layers = CLIP_CONFIG["vision_cfg"]["layers"] - 1
        config = {**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], "layers": layers}}
        encoder = OpenClipEncoder.from_config(config, layer=-1)
        own = target.encoder.state_dict()
        encoder.load_state_dict({key: own[key] for key in encoder.state_dict()})
        save_module(
            folder, encoder, {"kind": "open_clip", "model": config, "layer": -1}, torch.float16
        )
        target.space.save_pretrained(folder / "feature_space")
