"""Training of the sticker judge: detector, then colour classifier, then score calibration, then the weight files.

    python -m blip3o.stickers.judge_train --output runs/judge --steps 3000

Resumable: the same command continues a stopped run and skips finished stages. Nothing here is shared with the models
that the judge reads.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.stickers import CLASSES, COLORS, SceneConfig, make_scene
from blip3o.stickers.detector import (
    ColorClassifier,
    DetectorConfig,
    StickerDetector,
    masked_crops,
    n_parameters,
)
from blip3o.stickers.judge import COUNTING_THRESHOLD, THRESHOLD, StickerJudge
from blip3o.stickers.judge_data import Batch, WearConfig, make_batch
from blip3o.stickers.pixel_color import ramp_distances
from blip3o.train.loop import LoopConfig, fit

logger = logging.getLogger(__name__)

LOG = "train-log.jsonl"
HARD = 2_000_000_000  # where the numbers of scenes chosen for their classes begin

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
    levels: tuple[str, ...] = ("full", "full", "full", "easy")  # "full:counting": only that kind
    hard_classes: tuple[str, ...] = ()
    hard_share: float = 0.3  # of the pictures of a batch that must show a hard class, if there are any
    batch: int = 32
    lr: float = 2e-3
    color_lr: float = 2e-3
    color_batch: int = 48
    first_scene: int = 0  # a run that starts from weights goes on with scenes they have not seen
    calibration_scenes: int = 960
    seed: int = 11


def worlds(levels: Sequence[str]) -> list[SceneConfig]:
    """Scene settings of the named levels; "LEVEL:KIND" holds scenes of that kind only."""
    out = []
    for name in levels:
        level, _, kind = name.partition(":")
        out.append(SceneConfig.level(level, **({"kinds": ((kind, 1.0),)} if kind else {})))
    return out


def with_hard_classes(
    indices: Sequence[int], configs: Sequence[SceneConfig], classes: Sequence[str], share: float
) -> list[int]:
    """`indices` with some replaced by later scenes that show one of `classes`: about `share` of them, spread evenly.

    Replacements lie `HARD` further on, so they meet no scene that another step takes in order. A pure function.
    """
    out = list(indices)
    wanted = set(classes)
    for k, index in enumerate(indices):
        if not wanted or int((k + 1) * share) == int(k * share):
            continue
        for candidate in range(HARD + 64 * index, HARD + 64 * (index + 1)):
            scene = make_scene("judge", candidate, configs[k % len(configs)])
            if wanted & {s.class_name for s in scene.stickers}:
                out[k] = candidate
                break
    return out


class DetectorStage:
    """Mask R-CNN on worn scenes: the sum of torchvision's five losses."""

    name = "judge-detector"

    def __init__(self, recipe: JudgeRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.detector = StickerDetector(recipe.detector)
        self.modules: Mapping[str, nn.Module] = {"detector": self.detector}
        self._worlds = worlds(recipe.levels)

    def batch(self, step: int) -> Batch:
        r = self.recipe
        first = r.first_scene + step * r.batch
        rng = np.random.default_rng((r.seed, 1, first))
        indices = range(first, first + r.batch)
        chosen = with_hard_classes(indices, self._worlds, r.hard_classes, r.hard_share)
        return make_batch("judge", chosen, self._worlds, r.wear, rng)

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


def operating_points(
    plain: Sequence[tuple[Counter[int], Tensor, Tensor]],
    counting: Sequence[tuple[Counter[int], Tensor, Tensor]],
) -> tuple[float, float]:
    """Slope and offset of the map that puts the official thresholds where the raw scores are best cut.

    GenEval accepts an object above 0.3, and above 0.9 in prompts that count. Each threshold is placed, in logits of the
    raw score, where the most held-out pictures have the right number of every class: 0.3 on all kinds of scenes,
    scrambled ones among them, 0.9 on scenes that count. A line through two points is a Platt map.

    Args: per picture the true number of each class, raw scores (N,), classes (N,).
    """
    low, high = best_cut(plain), best_cut(counting)
    high = max(high, low + 0.5)  # the map must rise, and no steeper than sixfold
    slope = (_logit(COUNTING_THRESHOLD) - _logit(THRESHOLD)) / (high - low)
    return slope, _logit(THRESHOLD) - slope * low


def best_cut(pictures: Sequence[tuple[Counter[int], Tensor, Tensor]]) -> float:
    """The logit above which the most pictures have the right count of every class; the middle of a plateau.

    A plateau is all cuts within half a percent of the best: single pictures do not move the middle.
    """
    cuts = torch.linspace(-3, 4, 71)
    right = torch.zeros(len(cuts))
    for true, scores, labels in pictures:
        logits = torch.logit(scores, eps=1e-6)
        for k, cut in enumerate(cuts.tolist()):
            right[k] += Counter(labels[logits > cut].tolist()) == true
    good = cuts[right >= right.max() - 0.005 * len(pictures)]
    return float((good.min() + good.max()) / 2)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


@torch.inference_mode()
def counted(
    detector: StickerDetector,
    recipe: JudgeRecipe,
    configs: Sequence[SceneConfig],
    wears: Sequence[WearConfig | None],
) -> list[tuple[Counter[int], Tensor, Tensor]]:
    """What `operating_points` needs, on held-out scenes that are shared out among `wears`."""
    detector.eval()
    out = []
    for number, start in enumerate(range(0, recipe.calibration_scenes, recipe.batch)):
        rng = np.random.default_rng((recipe.seed, 3, start))
        indices = range(start, start + recipe.batch)
        batch = make_batch("val", indices, configs, wears[number % len(wears)], rng)
        for found, target in zip(detector(batch.pictures), batch.targets, strict=True):
            out.append((Counter(target["labels"].tolist()), found["scores"], found["labels"]))
    return out


def calibration(detector: StickerDetector, recipe: JudgeRecipe) -> tuple[float, float]:
    """Slope and offset of the score map, from scenes of split "val", half of them as rendered, half worn."""
    names = sorted({level.partition(":")[0] for level in recipe.levels})
    counting = [SceneConfig.level(n, kinds=(("counting", 1.0),)) for n in names]
    kept = replace(recipe.wear, scrambled=0.0, garbage=0.0)
    return operating_points(
        counted(detector, recipe, worlds(names), (None, recipe.wear)),
        counted(detector, recipe, counting, (None, kept)),
    )


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


def train(
    recipe: JudgeRecipe,
    output: Path,
    weights: Path,
    steps: int,
    color_steps: int,
    minutes: float | None = None,
    start: Path | None = None,
) -> StickerJudge:
    """All stages, then the weight files in `weights`. Finished stages are not repeated.

    `minutes` ends the detector's stage early; `start` is a folder of weights to begin from. Without steps the weights
    are calibrated anew and nothing else.
    """
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    detecting, coloring = DetectorStage(recipe), ColorStage(recipe)
    before: dict[str, Any] | None = None
    if start is not None:
        old = StickerJudge.load(start)
        detecting.detector.load_state_dict(old.detector.state_dict())
        coloring.color.load_state_dict(old.color.state_dict())
        before = {"sha256": old.digest, **old.metadata["training"]}
    common: dict[str, Any] = {"min_lr_ratio": 0.01, "weight_decay": 0.02, "seed": recipe.seed}
    if color_steps:
        config = LoopConfig(color_steps, recipe.color_lr, ema_decay=0.99, bf16=False, **common)
        fit(coloring, config, output / "color")
    state = {"step": 0, "seconds": 0.0}
    if steps:
        config = LoopConfig(
            steps,
            recipe.lr,
            warmup_steps=200,
            ema_decay=0.998,
            clip_norm=4.0,
            max_minutes=minutes,
            **common,
        )
        fit(detecting, config, output / "detector")
        state = json.loads((output / "detector" / "state.json").read_text())
        refresh_statistics(detecting, state["step"], n_batches=40)
    slope, offset = calibration(detecting.detector, recipe)
    judge = StickerJudge(detecting.detector, coloring.color, slope, offset)
    training = {
        "date": date,
        "command": shlex.join(["python", "-m", "blip3o.stickers.judge_train", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "torch": torch.__version__,
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "worlds": {w: worlds([w])[0].digest for w in sorted(set(recipe.levels))},
        "detector_steps": state["step"],
        "detector_seconds": round(state["seconds"]),
        "color_steps": color_steps,
        "parameters": {
            "detector": n_parameters(judge.detector),
            "color": n_parameters(judge.color),
        },
        "started_from": before,
    }
    judge.save(weights, {"training": training})
    write_log(output, start, weights)
    return StickerJudge.load(weights)


def write_log(output: Path, start: Path | None, weights: Path, every: int = 8) -> None:
    """One short log for the weight folder: the log of the weights it began from, if any, then each stage's header,
    end, and every eighth line between."""
    lines = []
    if start is not None and (start / LOG).exists():
        lines = (start / LOG).read_text(encoding="utf-8").splitlines()
    for stage in ("color", "detector"):
        path = output / stage / "log.jsonl"
        rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines += [
            x for i, x in enumerate(rows) if '"stage"' in x or i % every == 0 or i == len(rows) - 2
        ]
    (weights / LOG).write_text("".join(x + "\n" for x in lines), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the sticker judge; the same command resumes."
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/judge"), help="folder of checkpoints and logs")
    add("--weights", type=Path, help="where the weight files go (default: OUTPUT/weights)")
    add(
        "--steps",
        type=int,
        default=3000,
        help="steps of the detector (default 3000; 0: calibrate only)",
    )
    add("--minutes", type=float, help="end the detector's training early (default: no limit)")
    add("--color-steps", type=int, default=460, help="steps of the colour classifier (default 460)")
    add("--start", type=Path, help="folder of weights to begin from (default: random values)")
    add("--first-scene", type=int, default=0, help="number of the first scene (default 0)")
    add("--lr", type=float, default=JudgeRecipe.lr, help="peak learning rate of the detector")
    add("--levels", nargs="+", default=list(JudgeRecipe.levels), help="worlds, taken in turn; "
        "full:counting holds counting scenes only (default: %(default)s)")  # fmt: skip
    add("--hard-classes", nargs="+", default=[], choices=list(CLASSES), metavar="CLASS",
        help="classes that three pictures in ten must show (default: none)")  # fmt: skip
    add("--scrambled", type=float, default=WearConfig.scrambled,
        help="share of pictures with destroyed objects (default %(default)s)")  # fmt: skip
    add("--threads", type=int, default=1, help="CPU threads (default 1)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    weights = args.weights or args.output / "weights"
    judge = train(
        JudgeRecipe(
            lr=args.lr,
            first_scene=args.first_scene,
            levels=tuple(args.levels),
            hard_classes=tuple(args.hard_classes),
            wear=WearConfig(scrambled=args.scrambled),
        ),
        args.output,
        weights,
        args.steps,
        args.color_steps,
        args.minutes,
        args.start,
    )
    logger.info(
        "wrote %s, sha256 %s, %d bytes", weights, judge.digest[:12], judge.metadata["bytes"]
    )


if __name__ == "__main__":
    main()
