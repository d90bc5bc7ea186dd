"""What limits nano's generator: parameters, steps, batch or objective, one at a time, tag by tag on held-out scenes.

    python tests/benchmarks/scaling_of_nano.py TRAINED OUT [--steps 3000] [--only base width=128 ...]

TRAINED is a folder of `blip3o train nano` in which `conditions` has finished. Every run trains a fresh generator on
these conditions with one thing changed against `base`, which is nano's own: 256 wide, 6 layers, 144 rows a step, flow
matching, the recipe's optimizer. At a quarter, half and all of the steps the averaged weights draw one picture of each
of 192 scenes of split `val`, as in curves_of_nano.py, with guidance 2.5 where there is any; the held-out loss is over
conditions of captions that no run has seen. The rate anneals to the end, so a checkpoint on the way lags behind a run
of as many steps. Writes scaling.json after each run and scaling.webp; runs that are there are not repeated, and one
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from curves_of_nano import draw_tags, figure_of, scenes_of, verdicts
from quality_of_nano import save

from blip3o import Blip3oPipeline
from blip3o.config import Objective
from blip3o.pipeline import PipelineCard
from blip3o.train.condition_cache import CachedConditions, ConditionBatch
from blip3o.train.feature_cache import read_shards
from blip3o.train.loop import Hooks, fit
from blip3o.train.nano import NanoTrainer
from blip3o.train.nano_config import DIT_CONFIG
from blip3o.train.nano_parts import model_config, open_gates
from blip3o.train.stages import GeneratorStage, freeze
from blip3o.train.world_data import PROMPTS
from blip3o.unified import Blip3oModel
from evals.judges.stickers import StickersJudge

HELD_OUT = 1_024  # of the cached scenes, the last: no run draws them
GUIDANCE = 2.5


@dataclass(frozen=True)
class Variant:
    """One run. ``rows`` of a step, a sixth of them edits and turns of dialogues."""

    axis: str
    width: int = 256
    layers: int = 6
    rows: int = 144
    objective: Objective = "flow"

    @property
    def dit_config(self) -> dict[str, Any]:
        size = {"dim": self.width, "ffn_dim": self.width * 3 // 2, "num_heads": self.width // 64}
        return {**DIT_CONFIG, **size, "num_layers": self.layers}


VARIANTS = {
    "base": Variant("base"),
    "width=128": Variant("parameters", width=128),
    "width=192": Variant("parameters", width=192),
    "width=384": Variant("parameters", width=384),
    "layers=3": Variant("parameters", layers=3),
    "rows=36": Variant("batch", rows=36),
    "rows=72": Variant("batch", rows=72),
    "rows=288": Variant("batch", rows=288),
    "objective=mse": Variant("objective", objective="mse"),
}


class Conditions(CachedConditions):
    """Batches without the last scenes, and a batch of nothing but these."""

    def without_last(self) -> Conditions:
        kept = len(self.features) - HELD_OUT
        self.bounds = self.bounds[:kept] / self.bounds[kept - 1]
        return self

    def held_out(self) -> ConditionBatch:
        last = slice(-HELD_OUT, None)
        ids = [f"held out {i}" for i in range(HELD_OUT)]
        return ConditionBatch(ids, self.features[last].float(), self.prompt[last].float())


class Study:
    """The trained parts around a fresh generator."""

    def __init__(self, trained: Path, out: Path, steps: int, scenes: int) -> None:
        self.trainer, self.out, self.steps = NanoTrainer(trained), out, steps
        self.trained = self.trainer.generation()
        self.decoder, self.tokenizer = self.trainer.decoder(), self.trainer.tokenizer()
        cached = read_shards(trained / "cache", self.trainer._cache_key(), self.trainer.recipe.cache_shards)
        self.features = torch.cat([shard["features"] for shard in cached])
        self.judge, self.scenes = StickersJudge(), scenes_of(scenes)
        self.judge.load()

    def run(self, name: str, variant: Variant) -> dict[str, Any]:
        """Train it, or go on; figures by step."""
        recipe, folder = self.trainer.recipe, self.out / name
        turns = variant.rows // 6
        batches = Conditions(
            self.trainer.folder / "conditions",
            self.trainer._condition_key(),
            recipe.condition_shards,
            recipe.turn_shards,
            self.features,
            variant.rows - turns,
            turns,
            recipe.generator_prompt_share,
            recipe.generator.seed,
        ).without_last()
        torch.manual_seed(recipe.generator.seed)
        model = Blip3oModel(model_config(self.tokenizer, dit_config=variant.dit_config, objective=variant.objective))
        model.backbone.vlm.load_state_dict(self.trained.backbone.vlm.state_dict())
        model.queries.load_state_dict(self.trained.queries.state_dict())
        open_gates(model)
        freeze(model)
        model.dit.requires_grad_(True).train()
        if self.trainer._can_compile():
            model.dit.compile(dynamic=False)
        card = PipelineCard(domain="stickers", batch_size=32, prompts=PROMPTS.to_dict(), modes=("generate",))
        pipeline = Blip3oPipeline(model, self.tokenizer, self.decoder, card)
        held_out, kept = batches.held_out(), self.out / f"{name}.json"
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}

        def score(state: Any) -> None:
            model.eval()
            guidance = GUIDANCE if variant.objective == "flow" else None
            values = verdicts(pipeline, self.judge, self.scenes, guidance, None)
            figure = figure_of(self.scenes, values, None)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                drawn = torch.Generator().manual_seed(0)
                losses = [
                    model(target=x, condition=c, generator=drawn).loss.item()
                    for x, c in zip(held_out.features.split(128), held_out.condition.split(128), strict=True)
                ]
            model.dit.train()
            found[str(state.step)] = figure | {
                "loss": round(sum(losses) / len(losses), 4), "train_seconds": round(state.seconds, 1),
            }  # fmt: skip
            kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
            print(name, state.step, {k: v for k, v in found[str(state.step)].items() if k != "values"}, flush=True)

        marks = [self.steps // 4, self.steps // 2, self.steps]
        config = replace(recipe.generator, steps=self.steps, max_minutes=None, ema_decay=0.998, log_every=50)
        fit(GeneratorStage(model, batches), config, folder, Hooks(checkpoint_at=frozenset(marks), checkpoint=score))
        parameters = sum(p.numel() for p in model.dit.parameters())
        shutil.rmtree(folder)
        return {"axis": variant.axis, "rows": variant.rows, "parameters": parameters, "by_step": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--scenes", type=int, default=192)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "scaling.json"
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    study = Study(options.trained, options.out, options.steps, options.scenes)
    for name in options.only:
        if name not in done:
            start = time.process_time()
            run = study.run(name, VARIANTS[name])
            done[name] = run | {"cpu_seconds": round(time.process_time() - start)}
            path.write_text(json.dumps(done) + "\n", encoding="utf-8")
    draw(done, options.out / "scaling.webp")
    for name, run in done.items():
        last = run["by_step"][str(max(map(int, run["by_step"])))]
        print(name, run["parameters"], last["overall"], last["ci95"], last["tags"], last["loss"])


def draw(done: dict[str, Any], path: Path) -> None:
    """Each tag against parameters, rows of a step and steps; one axis a panel."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def last(run: dict[str, Any]) -> dict[str, Any]:
        figure: dict[str, Any] = run["by_step"][str(max(map(int, run["by_step"])))]
        return figure

    base = done["base"]
    panels = {
        "parameters of the generator": sorted(
            (r["parameters"], last(r)) for n, r in done.items() if n == "base" or n.startswith("width")
        ),
        "rows of a step": sorted((r["rows"], last(r)) for r in done.values() if r["axis"] in ("base", "batch")),
        "steps": sorted((int(step), figure) for step, figure in base["by_step"].items()),
    }
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
    for ax, (label, rows) in zip(axes, panels.items(), strict=True):
        draw_tags(ax, rows)
        xs = [x for x, _ in rows]
        ax.set(xlabel=label, xscale="log", ylim=(0, 1))
        ax.set_xticks(xs, [f"{x / 1e6:.1f} M" if x > 1e5 else f"{x:,}" for x in xs])
        ax.minorticks_off()
    axes[0].set_ylabel("right of held-out scenes")
    axes[0].legend(frameon=False, fontsize=8, ncols=2)
    save(fig, path)


if __name__ == "__main__":
    main()
