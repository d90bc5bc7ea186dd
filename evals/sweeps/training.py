"""What a sweep point trains: BLIP3-o in the designs of the paper, by ``blip3o.train.study``.

The only place where sweeps meet ``blip3o.train``. ``base.train`` holds ``StudySettings`` at the size of ``nano``; with
``model`` it holds the settings of a recipe at any other size (``blip3o.train.study.recipes``). Planning imports no
torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import ConfigError, EvalError, ModelError, StoreError
from evals.fingerprint import sha256_of
from evals.sweeps.api import (
    Checkpoint,
    Compute,
    Estimate,
    ImpossibleError,
    OnCheckpoint,
    StageResult,
    StageSpec,
)

if TYPE_CHECKING:
    from blip3o.train.study.plan import PlannedStage
    from blip3o.train.study.run import Finished, Progress

PARTS_KEY = "parts_sha256"
DONE = "done.json"  # ``blip3o.train.study.run.DONE``, which imports torch


def plan_stages(settings: Mapping[str, Any], seed: int) -> Sequence[StageSpec]:
    """Settings under ``base.train`` -> stages in an order in which they can run.

    Raises: ConfigError for unknown keys and values, ImpossibleError for those that cannot go together.
    """
    from blip3o.train.study.plan import VERSION, plan_point

    with _translated():
        planned = plan_point(settings, seed)
        specs: dict[str, StageSpec] = {}
        for stage in planned:
            own = dict(stage.settings)
            if "parts" in own:
                own[PARTS_KEY] = _digest_of_parts(own)
            parents = tuple(specs[name].id for name in stage.parents)
            digest = sha256_of([VERSION, stage.name, own, stage.seed, list(parents)])[:12]
            specs[stage.name] = StageSpec(
                f"{stage.name}-{digest}", stage.name, parents, own, stage.seed, _estimate(stage)
            )
    return list(specs.values())


def speed_of(settings: Mapping[str, Any]) -> str:
    """The devices of a recipe at another size; what was measured for the bundled one."""
    if "model" not in settings:
        return "2 cores without a GPU"
    from blip3o.train.study.recipes import RecipeStudySettings
    from blip3o.train.study.settings import read_settings

    with _translated():
        own = read_settings(settings, RecipeStudySettings)
    return f"{own.devices} devices at {own.share:.0%} of {own.peak_tflops:g} TFLOP/s"


def train_stage(
    spec: StageSpec, folder: Path, stages_root: Path, on_checkpoint: OnCheckpoint
) -> StageResult:
    """Train in ``folder`` or go on there; on a finished stage it only reads."""
    from blip3o.train.study.recipes import RecipeStudySettings
    from blip3o.train.study.run import Job, run_stage
    from blip3o.train.study.settings import StudySettings, read_settings

    own = dict(spec.settings)
    recorded, steps = own.pop(PARTS_KEY, None), own.pop("steps_of_stage", None)
    is_recipe = "model" in own
    with _translated():
        if recorded is not None and _digest_of_parts(own) != recorded:
            raise ConfigError(
                f"stage {spec.id}: tokenizer, target, decoder or backbone in {own['parts']!r} changed since the "
                "sweep was planned; bring them back, or start the sweep in another folder"
            )

        def report(progress: Progress) -> None:
            compute = Compute(progress.step, progress.seconds, progress.images)
            on_checkpoint(Checkpoint(compute, progress.total_steps, progress.export))

        job = Job(
            read_settings(own, RecipeStudySettings if is_recipe else StudySettings),
            spec.seed,
            folder,
            {parent.rsplit("-", 1)[0]: stages_root / parent for parent in spec.parents},
            spec.export_at,
            report,
        )
        if not is_recipe:
            return _result(run_stage(spec.name, job))
        from blip3o.train.study.recipe_run import run_recipe_stage

        return _result(run_recipe_stage(spec.name, job, steps))


def _digest_of_parts(settings: Mapping[str, Any]) -> str:
    """sha256 of what a stage takes from its parts folder."""
    from blip3o.train.study.plan import parts_digest

    return parts_digest(settings["parts"], settings.get("backbone", "fresh"))


def flops_of(folder: Path) -> Mapping[str, float]:
    """By the formulas of ``blip3o.train.study.compute``, as the finished stage recorded them; {} for other recipes.

    Vision tower, VAE and target features are made alike for all designs, and no part of it.
    """
    try:
        budget = json.loads((folder / DONE).read_bytes())["info"]["budget"]
        phases = {"understanding": float(budget["flops_before"]), "generator": float(budget["flops"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {phase: flops for phase, flops in phases.items() if flops > 0}


def model_of(export: Path) -> str:
    """The exported folder as a model of the harness."""
    return f"blip3o:{export}"


def check_run(settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuse run settings that the trained model has no use for.

    Args: settings: under ``base.train``; run: of the evaluation, nested. Raises: ImpossibleError with the reason.
    """
    if settings.get("objective") != "mse":
        return
    generation = run.get("generation") or {}
    for key, neutral in (("guidance_scale", 1.0), ("steps", 1)):
        if generation.get(key) not in (None, neutral):
            raise ImpossibleError(
                f"generation.{key} {generation[key]} with objective mse: a regression head answers in one step and "
                "without guidance"
            )


def _estimate(stage: PlannedStage) -> Estimate:
    return Estimate(stage.steps, stage.seconds, stage.bytes, stage.images, stage.export_bytes)


def _result(finished: Finished) -> StageResult:
    return StageResult(
        Compute(finished.steps, finished.seconds, finished.images),
        finished.learned,
        finished.weights,
        {step: Compute(*figures) for step, figures in finished.at.items()},
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Errors of ``blip3o`` as those of the harness; each is one line already."""
    from blip3o import errors
    from blip3o.train.study.settings import ImpossibleCombination

    try:
        yield
    except EvalError:
        raise
    except ImpossibleCombination as error:
        raise ImpossibleError(str(error)) from None
    except errors.ConfigError as error:
        raise ConfigError(str(error)) from None
    except errors.Blip3oError as error:
        kind = StoreError if type(error).__name__ == "CheckpointNotSaved" else ModelError
        raise kind(str(error)) from None
