"""Finds the built-in tasks, models, judges and metrics, and those of installed plug-ins.

Built-in tasks come from the table ``tasks.TASKS`` (name -> (target, summary)), the other built-ins
from the tables below. Plug-ins use the entry point groups ``blip3o_eval.tasks``, ``.models``,
``.judges`` and ``.metrics``. Nothing of a plug-in is imported until it is asked for by name or
checked by ``check_plugins`` (``blip3o-eval list``); a broken one stays listed with its error and
never keeps the others from loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals import registry
from evals.phases.calls import one_line
from evals.plugins.checks import task_problem
from evals.registry import Registry, RegistryError

BUILT_IN = "built-in"
GROUPS: Mapping[str, Registry] = {
    "tasks": registry.tasks,
    "models": registry.models,
    "judges": registry.judges,
    "metrics": registry.metrics,
}

# name -> (target, summary). Hidden ones are for tests and stay out of listings.
_MODELS = {
    "nano": ("evals.models.blip3o:create_nano", "the small BLIP3-o that ships with the package"),
    "blip3o": ("evals.models.blip3o:create_blip3o", "a folder or hub id of BLIP3-o weights"),
    "blip3o-4b": ("evals.models.blip3o:create_4b", "the released 4B model"),
    "blip3o-8b": ("evals.models.blip3o:create_8b", "the released 8B model"),
    "diffusers": (
        "evals.models.diffusers:create",
        "any text-to-image pipeline, diffusers:FOLDER or diffusers:owner/name",
    ),
    "images": ("evals.models.images:create", "pictures already made, images:DIR, in a known layout"),
    "openai": (
        "evals.models.openai:create",
        "the images endpoint of OpenAI or of a server that speaks its protocol, openai:MODEL",
    ),
    "lmms": ("evals.models.lmms:create", "any model of lmms-eval 0.7, lmms:MODEL,key=value,..."),
    "copy-source": ("evals.models.copy_source:create", "the source picture of an edit, unchanged (baseline)"),
    "tiny": ("evals.models.blip3o:create_tiny", "random weights (tests only)"),
    "dummy": ("evals.models.dummy:create", "fake pictures from a hash of the prompt (tests only)"),
}
_JUDGES = {
    "stickers": ("evals.judges.stickers:create", "the detector of the sticker world"),
    "mask2former": (
        "evals.judges.detector:create",
        "GenEval's judge for real pictures: Mask2Former and CLIP colours",
    ),
    "inception": ("evals.judges.features:create_inception", "Inception features of picture sets (FID, KID, IS)"),
    "effnetlite0": ("evals.judges.features:create_effnetlite0", "EfficientNet-Lite0 features of picture sets"),
    "sticker-features": ("evals.judges.features:create_stickers", "features of sets of sticker pictures"),
    "blip-vqa": (
        "evals.judges.blip_vqa:create",
        "BLIP-VQA answers questions about photographs (blip-vqa:FOLDER or a hub id)",
    ),
    "mplug": (
        "evals.judges.mplug:create",
        "mPLUG, the VQA model of DPG-Bench's published figures (mplug:FOLDER or a hub id)",
    ),
    "vlm": ("evals.judges.vlm:create", "any model that answers questions, vlm:MODEL, read as yes or no"),
    "openai-vlm": (
        "evals.judges.vlm_endpoint:create",
        "a vision-language model behind an endpoint, openai-vlm:MODEL",
    ),
    "clip": ("evals.judges.clip_similarity:create", "a CLIP model compares picture and prompt; clip:FOLDER or hub id"),
    "dummy": ("evals.judges.dummy:create", "scripted verdicts (tests only)"),
}
_METRICS: dict[str, tuple[str, str]] = {
    "group_mean": (
        "evals.metrics.named:create_group_mean",
        "mean score of one group (group_mean:GROUP), or of all",
    ),
    "mean_of_groups": (
        "evals.metrics.named:create_mean_of_groups",
        "plain mean of the means of groups (mean_of_groups:A,B)",
    ),
}
_HIDDEN = {"dummy", "tiny"}

_is_discovered = False


def discover(force: bool = False) -> None:
    """Fill the registries once. Cheap: reads tables and package metadata, imports no plug-in."""
    global _is_discovered
    if _is_discovered and not force:
        return
    _is_discovered = True
    _add_table(registry.tasks, _built_in_tasks())
    _add_table(registry.models, _MODELS)
    _add_table(registry.judges, _JUDGES)
    _add_table(registry.metrics, _METRICS)
    for group, target_registry in GROUPS.items():
        _add_entry_points(f"blip3o_eval.{group}", target_registry)


def _built_in_tasks() -> Mapping[str, tuple[str, str]]:
    from tasks import TASKS

    return TASKS


def _add_table(target_registry: Registry, table: Mapping[str, tuple[str, str]]) -> None:
    for name, (target, summary) in table.items():
        if name not in target_registry:
            target_registry.register(
                name, target, origin=BUILT_IN, summary=summary, is_hidden=name in _HIDDEN
            )


def _add_entry_points(group: str, target_registry: Registry) -> None:
    points, damaged = _entry_points(group)
    for distribution, problem in damaged.items():
        target_registry.register_broken(f"? ({distribution})", problem, origin=distribution)
    for point in sorted(points, key=lambda p: (p.name, p.value)):
        distribution = _distribution(point)
        if point.name in target_registry and target_registry.origin(point.name) == distribution:
            continue  # the same entry seen twice, as with an editable install beside a normal one
        try:
            target_registry.register(point.name, point.value, origin=distribution)
        except RegistryError as error:
            target_registry.register_broken(
                f"{point.name} ({distribution})", str(error), origin=distribution
            )


def _entry_points(group: str) -> tuple[list[Any], dict[str, str]]:
    """The entry points of a group, and distribution -> problem for those whose list cannot be read."""
    from importlib import metadata

    try:
        return list(metadata.entry_points(group=group)), {}
    except Exception:  # one damaged list among hundreds, of a package that need not be a plug-in at all
        pass
    found: dict[str, list[Any]] = {}
    damaged: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = str(getattr(distribution, "_path", distribution))
        try:
            name = distribution.name or name
            if name not in found:  # the first on the path is the one that is imported
                found[name] = [p for p in distribution.entry_points if p.group == group]
        except Exception as error:
            damaged[name] = f"its list of entry points cannot be read: {one_line(error)}"
    return [point for points in found.values() for point in points], damaged


def _distribution(point: Any) -> str:
    try:
        return str(point.dist.name or "an unknown distribution")
    except Exception:  # no distribution, or one with damaged metadata
        return "an unknown distribution"


def check_plugins(target_registry: Registry) -> None:
    """Import every plug-in of one registry, so that broken ones are known; built-ins stay lazy.

    Tasks are cheap to create, so each is created once, too.
    """
    for name in target_registry.names(include_hidden=True):
        origin = target_registry.origin(name)
        if origin == BUILT_IN or target_registry.error(name) is not None:
            continue
        try:
            factory = target_registry.get(name)
            problem = task_problem(factory) if target_registry.kind == "task" else None
        except RegistryError as error:
            cause = error.__cause__
            problem = str(error) if cause is None else one_line(cause)
        except (Exception, SystemExit) as error:  # its constructor may raise anything
            problem = f"does not start: {one_line(error)}"
        if problem is not None:
            target_registry.mark_broken(
                name, problem.removeprefix(f"{target_registry.kind} {name!r} ({origin}) ")
            )
