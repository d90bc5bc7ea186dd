"""Training of the sticker judge: detector, then colour classifier, then score calibration, then the weight files.

    python -m blip3o.stickers.judge_train --output runs/judge --minutes 32 --rounds 2 --color-minutes 1.8

Resumable: the same command continues a stopped run and skips finished stages. Nothing here is shared with the models
that the judge reads.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from blip3o.stickers import COLORS, SceneConfig
from blip3o.stickers.detector import (
    ColorClassifier,
    DetectorConfig,
    StickerDetector,
    masked_crops,
    n_parameters,
)
from blip3o.stickers.judge import FOLDER, StickerJudge
from blip3o.stickers.judge_data import Batch, WearConfig, make_batch
from blip3o.stickers.pixel_color import ramp_distances
from blip3o.train.loop import LoopConfig, fit

logger = logging.getLogger(__name__)

LOSS_WEIGHTS = {
    "loss_objectness": 1.0,
    "loss_rpn_box_reg": 1.0,
    "loss_classifier": 1.0,
    "loss_box_reg": 1.0,
    "loss_mask": 0.5,
}


@dataclass(frozen=True)
class JudgeRecipe:
    """Everything the shipped weights depend on, besides the code and the minutes."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    wear: WearConfig = field(default_factory=WearConfig)
    levels: tuple[str, ...] = ("full", "full", "full", "easy")
    batch: int = 32
    lr: float = 2e-3
    restart: float = 0.6  # the peak rate of each further round, as a share of the one before
    color_lr: float = 2e-3
    color_batch: int = 48
    max_steps: int = 100_000
    calibration_scenes: int = 1500
    seed: int = 11


def worlds(levels: Sequence[str]) -> list[SceneConfig]:
    """Scene settings of the named levels."""
    return [SceneConfig.level(name) for name in levels]


class DetectorStage:
    """Mask R-CNN on worn scenes: the sum of torchvision's five losses."""

    name = "judge-detector"

    def __init__(self, recipe: JudgeRecipe, round_number: int = 1) -> None:
        self.recipe = recipe
        self.round_number = round_number
        torch.manual_seed(recipe.seed)
        self.detector = StickerDetector(recipe.detector).to(memory_format=torch.channels_last)
        self.modules: Mapping[str, nn.Module] = {"detector": self.detector}
        self._worlds = worlds(recipe.levels)

    def batch(self, step: int) -> Batch:
        """Scenes no other step of any round sees."""
        r = self.recipe
        step += (self.round_number - 1) * 2 * r.max_steps
        indices = range(step * r.batch, (step + 1) * r.batch)
        rng = np.random.default_rng((r.seed, 1, step))
        return make_batch("judge", indices, self._worlds, r.wear, rng)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        with torch.random.fork_rng(devices=[]):
            # torchvision samples proposals from the global stream
            torch.manual_seed(generator.initial_seed())
            losses = self.detector(batch.pictures, batch.targets)
        total = sum((LOSS_WEIGHTS[k] * v for k, v in losses.items()), torch.zeros(()))
        return total, {k.removeprefix("loss_"): v.item() for k, v in losses.items()}


def color_targets(distances: Tensor, colors: Tensor) -> Tensor:
    """(N, 10) probabilities: the tint where there is one, else how near the pixels lie to each tint.

    An untinted sprite has no official colour; a soft label from its pixels keeps the answer sensible.
    """
    natural = F.softmax(-distances / 6.0, -1)
    return torch.where(
        colors[:, None] < 0, natural, F.one_hot(colors.clamp(min=0), len(COLORS)).float()
    )


def loosen(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks (N, H, W) as a detector gives them: some a pixel too large, some a pixel too small."""
    dice = torch.rand(len(masks), generator=generator)[:, None, None]
    solid = masks.float()[:, None]
    wider = F.max_pool2d(solid, 3, 1, 1)[:, 0] > 0.5
    tighter = F.max_pool2d(1 - solid, 3, 1, 1)[:, 0] < 0.5
    tighter = torch.where(tighter.flatten(1).any(1)[:, None, None], tighter, masks)
    return torch.where(dice < 0.25, wider, torch.where(dice < 0.5, tighter, masks))


class ColorStage:
    """Colour of masked crops, as GenEval asks it: grey background, ten answers."""

    name = "judge-color"

    def __init__(self, recipe: JudgeRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed + 1)
        self.color = ColorClassifier(len(COLORS))
        self.modules: Mapping[str, nn.Module] = {"color": self.color}
        self._worlds = worlds(recipe.levels)

    def batch(self, step: int) -> Batch:
        r = self.recipe
        indices = range(step * r.color_batch, (step + 1) * r.color_batch)
        rng = np.random.default_rng((r.seed, 2, step))
        return make_batch("judge", indices, self._worlds, r.wear, rng)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        counts = torch.tensor([len(c) for c in batch.colors])
        index = torch.repeat_interleave(torch.arange(len(counts)), counts)
        masks = torch.cat([t["masks"] for t in batch.targets]).bool()
        boxes = torch.cat([t["boxes"] for t in batch.targets])
        colors = torch.cat(batch.colors)
        with torch.no_grad():
            targets = color_targets(ramp_distances(batch.pictures[index], masks), colors)
            crops = masked_crops(batch.pictures, loosen(masks, generator), boxes, index)
        logits = self.color(crops).float()
        right = (logits.argmax(-1) == colors)[colors >= 0].float().mean()
        return F.cross_entropy(logits, targets), {"right": right.item()}


@torch.no_grad()
def refresh_statistics(stage: DetectorStage, first_step: int, n_batches: int) -> None:
    """Batch-norm statistics of the averaged weights, from fresh training batches."""
    norms = [m for m in stage.detector.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    stage.detector.train()
    for step in range(first_step, first_step + n_batches):
        batch = stage.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            stage.detector(batch.pictures, batch.targets)
    stage.detector.eval()


def fit_platt(scores: Tensor, is_right: Tensor) -> tuple[float, float]:
    """Slope and offset of sigmoid(slope * logit(score) + offset) by maximum likelihood, slightly held to (1, 0).

    Args: scores (N,) in (0, 1), is_right (N,) bool. Source: Platt 1999.
    """
    x = torch.logit(scores.double(), eps=1e-6)
    y = is_right.double()
    params = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([params], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(params[0] * x + params[1], y, reduction="sum")
        loss = loss + 0.5 * ((params[0] - 1) ** 2 + params[1] ** 2)
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, offset = params.tolist()
    return max(slope, 1e-3), offset


@torch.inference_mode()
def calibration_pairs(detector: StickerDetector, recipe: JudgeRecipe) -> tuple[Tensor, Tensor]:
    """Raw scores on held-out worn scenes and whether each found box is right: its class, IoU of at least 0.5, first."""
    detector.eval()
    scores, right = [], []
    for start in range(0, recipe.calibration_scenes, recipe.batch):
        rng = np.random.default_rng((recipe.seed, 3, start))
        batch = make_batch(
            "val", range(start, start + recipe.batch), worlds(recipe.levels), recipe.wear, rng
        )
        for found, target in zip(detector(batch.pictures), batch.targets, strict=True):
            scores.append(found["scores"])
            right.append(
                match(found["boxes"], found["labels"], target["boxes"], target["labels"]) >= 0
            )
    return torch.cat(scores), torch.cat(right)


def match(boxes: Tensor, labels: Tensor, true_boxes: Tensor, true_labels: Tensor) -> Tensor:
    """For found boxes, best first: the index of the true object each one claims (same class, IoU >= 0.5), or -1."""
    out = torch.full((len(boxes),), -1, dtype=torch.int64)
    if len(boxes) == 0 or len(true_boxes) == 0:
        return out
    iou = box_iou(boxes.float(), true_boxes.float()) * (labels[:, None] == true_labels)
    for n in range(len(boxes)):
        best = int(iou[n].argmax())
        if iou[n, best] >= 0.5:
            out[n] = best
            iou[:, best] = 0
    return out


def hardware() -> str:
    """The processor's name, its cores and the threads in use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.get_num_threads()} thread(s) used"


def commit() -> str | None:
    """Commit of the checkout this file lies in, or None when installed."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def train_detector(
    recipe: JudgeRecipe, output: Path, minutes: float, rounds: int
) -> tuple[DetectorStage, list[dict[str, Any]]]:
    """The detector, in rounds of a falling rate; each starts from the averaged weights of the one before.

    Returns the last round's stage, batch-norm statistics refreshed, and steps and seconds of each round.
    """
    done: list[dict[str, Any]] = []
    stage = DetectorStage(recipe)
    for number in range(1, rounds + 1):
        before, stage = stage, DetectorStage(recipe, number)
        if number > 1:
            stage.detector.load_state_dict(before.detector.state_dict())
        config = LoopConfig(
            steps=recipe.max_steps,
            lr=recipe.lr * recipe.restart ** (number - 1),
            min_lr_ratio=0.01,
            weight_decay=0.02,
            seed=recipe.seed,
            max_minutes=minutes,
            ema_decay=0.998,
            clip_norm=4.0,
            warmup_steps=200,
        )
        folder = output / f"detector-{number}"
        fit(stage, config, folder)
        state = json.loads((folder / "state.json").read_text())
        done.append({"steps": state["step"], "seconds": round(state["seconds"]), "lr": config.lr})
    refresh_statistics(stage, first_step=recipe.max_steps, n_batches=40)
    return stage, done


def train(
    recipe: JudgeRecipe,
    output: Path,
    minutes: float,
    rounds: int,
    color_minutes: float,
    weights: Path,
) -> StickerJudge:
    """All stages, then the weight files in `weights`. Finished stages are not repeated."""
    started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    coloring = ColorStage(recipe)
    color_config = LoopConfig(
        steps=recipe.max_steps,
        lr=recipe.color_lr,
        min_lr_ratio=0.01,
        weight_decay=0.02,
        seed=recipe.seed,
        max_minutes=color_minutes,
        ema_decay=0.99,
        bf16=False,
    )
    fit(coloring, color_config, output / "color")
    detecting, done = train_detector(recipe, output, minutes, rounds)
    slope, offset = fit_platt(*calibration_pairs(detecting.detector, recipe))
    judge = StickerJudge(detecting.detector, coloring.color, slope, offset)
    training = {
        "date": started,
        "command": shlex.join(["python", "-m", "blip3o.stickers.judge_train", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "torch": torch.__version__,
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "worlds": {w: SceneConfig.level(w).digest for w in sorted(set(recipe.levels))},
        "detector_rounds": done,
        "pictures": sum(r["steps"] for r in done) * recipe.batch,
        "parameters": {
            "detector": n_parameters(judge.detector),
            "color": n_parameters(judge.color),
        },
    }
    judge.save(weights, {"training": training})
    write_log(output, rounds, weights / "train-log.jsonl")
    return StickerJudge.load(weights)


def write_log(output: Path, rounds: int, path: Path, every: int = 8) -> None:
    """One short log of all stages for the weight folder: each header and end, and every eighth line between."""
    rows: list[dict[str, Any]] = []
    for stage in ("color", *(f"detector-{n}" for n in range(1, rounds + 1))):
        lines = [json.loads(x) for x in (output / stage / "log.jsonl").read_text().splitlines()]
        rows += [
            x for i, x in enumerate(lines) if "stage" in x or i % every == 0 or i == len(lines) - 2
        ]
    path.write_text("".join(json.dumps(x) + "\n" for x in rows), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the sticker judge; the same command resumes."
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/judge"), help="folder of checkpoints and logs"
    )
    parser.add_argument(
        "--minutes", type=float, default=32.0, help="time of one round of the detector (default 32)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the detector (default 2)")
    parser.add_argument(
        "--color-minutes",
        type=float,
        default=1.8,
        help="training time of the colours (default 1.8)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=None,
        help=f"where the weight files go (shipped: {FOLDER.name})",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    weights = args.weights or args.output / "weights"
    judge = train(
        JudgeRecipe(), args.output, args.minutes, args.rounds, args.color_minutes, weights
    )
    logger.info(
        "wrote %s, sha256 %s, %d bytes", weights, judge.digest[:12], judge.metadata["bytes"]
    )


if __name__ == "__main__":
    main()
