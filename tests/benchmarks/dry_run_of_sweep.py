"""What points of a sweep at 4B or 8B take, counted on the meta device beside what `sweep plan` predicts by formulas.

    python tests/benchmarks/dry_run_of_sweep.py ablation --set base.train.model=BLIP3o/BLIP3o-Model-4B --set ...

Takes what `sweep plan` takes; no weights and no data are read. For each design the model of the real size is built
without memory, and torch counts the operations of one picture and one conversation, forward and backward, and of the
target encoder. Device hours: operations at `share` of `peak_tflops`. Parameters say what learns.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch

from blip3o.config import Blip3oConfig
from blip3o.presets import PRESETS, released_config_values
from blip3o.released import config_from_released
from blip3o.train.estimate import count_encoder_flops, count_flops
from blip3o.train.recipe import recipe_from_dict
from blip3o.train.records_stage import learn_only
from blip3o.train.study.recipes import RecipeStudySettings, recipe_budget
from blip3o.train.study.settings import read_settings
from blip3o.unified import Blip3oModel
from blip3o.vision.encoders import EvaConfig, EvaEncoder
from blip3o.vision.preprocess import Preprocess
from blip3o.vision.targets import Target
from evals.sweeps.plan import plan_sweep


def model_of(settings: RecipeStudySettings) -> Blip3oModel:
    """The design at its real size, without memory. Raises: ConfigError for models that are not released ones."""
    name = next((n for n, p in PRESETS.items() if p.hub_id and settings.model in (n, p.hub_id)), None)
    if name is None:
        raise SystemExit(f"model {settings.model!r}: only released models have sizes without their files")
    start = config_from_released(released_config_values(name))
    config = Blip3oConfig(
        backbone_config=start.backbone_config, token_config=start.tokens, flow_config=start.flow_config,
        num_queries=settings.num_queries, target=settings.target, objective=settings.objective, head=settings.head,
        dit_config={**settings.dit_values, "condition_dim": start.dit_config["condition_dim"]},
    )  # fmt: skip
    with torch.device("meta"):
        return Blip3oModel(config)


def counted(settings: RecipeStudySettings) -> dict[str, float]:
    """Operations of one step of all devices, and numbers that learn."""
    own, is_joint = settings.generator, settings.schedule == "joint"
    values: dict[str, Any] = {
        "model": settings.model, "stage": "joint" if is_joint else "generation", "data": list(settings.data),
        "batch_size": own.batch, "loop": {"steps": own.steps, "lr": own.lr},
    }  # fmt: skip
    if is_joint:
        values |= {"data": [*settings.data, *settings.text_data], "text_batch_size": own.text_batch}
    recipe, model = recipe_from_dict(values), model_of(settings)
    names = set(learn_only(model, recipe.spec.learns))
    learned = sum(p.numel() for n, p in model.named_parameters() if n in names)
    both = count_flops(model, recipe, settings.prompt_tokens)
    text = 0
    if is_joint:
        talks = tuple(data for data in recipe.data if data.kind == "conversations")
        text = count_flops(model, replace(recipe, stage="understanding", data=talks), settings.prompt_tokens)
    micro = own.accumulation * settings.devices
    encoder = 0
    if settings.target == "clip":
        with torch.device("meta"):
            tower = EvaEncoder(EvaConfig())
        size = Preprocess(size_px=tower.config.image_size)
        encoder = count_encoder_flops(Target(tower, size, {"kind": "eva_clip"}, None, "early_pool2d_4"))
    step = micro * (own.batch * (both - text) + (own.text_batch if is_joint else 0) * text)
    encoder *= micro * own.batch
    return {"picture": both - text, "text": text, "step": step, "encoder": encoder, "learned": learned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", help="file or name")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="as for `sweep plan`")
    options = parser.parse_args()
    plan, seen, total = plan_sweep(options.sweep, tuple(options.set)), set(), 0.0
    for point in plan.points:
        own = dict(plan.stages[point.stages[-1]].spec.settings)
        del own["steps_of_stage"]
        settings = read_settings(own, RecipeStudySettings)
        budget = recipe_budget(settings)
        total += budget.hours(settings) * settings.devices
        if point.cell in seen:
            continue
        seen.add(point.cell)
        found = counted(settings)
        speed = settings.peak_tflops * 1e12 * settings.share
        hours = budget.steps * (found["step"] + found["encoder"]) / speed / 3600
        planned = budget.hours(settings) * settings.devices
        print(
            f"{point.cell}: {budget.steps:,} steps; {found['learned'] / 1e9:.3f} billion learn; "
            f"{found['picture'] / 1e12:.2f} TFLOP a picture, {found['text'] / 1e12:.2f} a conversation; device hours "
            f"{hours:.0f} counted, {planned:.0f} planned ({100 * (planned / hours - 1):+.1f} %)"
        )
    print(f"{len(plan.points)} points: {total:,.0f} device hours planned")


if __name__ == "__main__":
    main()
