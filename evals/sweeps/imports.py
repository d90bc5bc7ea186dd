"""What the jobs of a sweep import, by the models that they train and evaluate; names alone."""

from __future__ import annotations

from evals.sweeps.plan import SweepPlan
from evals.sweeps.planner import TRAINED
from evals.sweeps.trainers import DEFAULT, KEY

HARNESS = ("evals.sweeps.point", "evals.runner", "scipy.special")
BLIP3O = (
    "torch",
    "blip3o.pipeline",
    "blip3o.stickers.judge",
    "evals.models.blip3o",
    "evals.judges.stickers",
)
TRAINING = ("blip3o.train.study.run", "evals.sweeps.training")
DIFFUSERS = ("torch", "diffusers.pipelines.pipeline_utils", "evals.models.diffusers")
_BY_MODEL = {
    **dict.fromkeys(("nano", "blip3o", "blip3o-4b", "blip3o-8b", TRAINED), BLIP3O),
    "diffusers": DIFFUSERS,
}


def imports_of(plan: SweepPlan) -> tuple[str, ...]:
    """Modules that are worth importing before the first job; () where a job needs nothing that is slow to import."""
    models = {e.config["model"]["name"] for point in plan.points for e in point.evaluations}
    train = plan.config.base.train
    if train is not None:
        models = {TRAINED} if train.get(KEY, DEFAULT) == DEFAULT else set()
    heavy = dict.fromkeys(m for name in sorted(models) for m in _BY_MODEL.get(name.partition(":")[0], ()))
    trained = TRAINING if train is not None else ()
    return (*heavy, *trained, *HARNESS) if heavy else ()
