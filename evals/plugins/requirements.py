"""What task, model and judge need of each other, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from evals.api import Judge, Metric, Model, Sample, Task
from evals.errors import UsageError

# What a judge lacks without the method of this name.
_ABILITIES = {
    "ask": "answers no questions about pictures",
    "reply": "follows no instruction and answers in no free text",
    "probability": "does not say how likely an answer is",
    "detect": "finds no objects in pictures",
    "similarity": "compares no picture with a text",
    "extract": "takes no features of pictures",
}


def check_source_pictures(task: Task, model: Model, official: Sequence[Sample]) -> None:
    """An edit without its picture would be a picture of the instruction, scored as an edit."""
    is_edit = task.kind == "generation" and any(s.images for s in official)
    if is_edit and not getattr(model, "takes_images", False):
        raise UsageError(
            f"task {task.name!r} gives each prompt a source picture, and model "
            f"{model.identity.name!r} takes none: choose a model that edits, such as nano"
        )


def check_capabilities(task: Task, model: Model, judge: Judge | None) -> None:
    """The model makes what the task needs, and the judge can be asked what the task asks."""
    needed = "generate" if task.kind == "generation" else "answer"
    if not hasattr(model, needed):
        what = "pictures" if needed == "generate" else "answers"
        raise UsageError(
            f"model {model.identity.name!r} makes no {what}, which task {task.name!r} needs"
        )
    if getattr(task, "needs_likelihoods", False) and not hasattr(model, "log_likelihoods"):
        written = task.name.removesuffix("_likelihood")
        raise UsageError(
            f"model {model.identity.name!r} gives no log-likelihoods, which task {task.name!r} compares: choose "
            f"another model, or the task with written answers, {written}"
        )
    check_judge(task, judge)


def check_judge(task: Task, judge: Judge | None) -> None:
    """The judge can be asked what the task asks."""
    for method in getattr(task, "judge_methods", ()):
        if not hasattr(judge, method):
            name = judge.identity.name if judge is not None else "none"
            what = _ABILITIES.get(method, f"has no method {method!r}")
            raise UsageError(
                f"judge {name!r} {what}, which task {task.name!r} needs: choose another with --judge "
                "(`blip3o-eval list judges`)"
            )


def check_metrics(
    task: Task, further: Sequence[Metric], official: Sequence[Sample] | None = None
) -> None:
    """No two figures of a run have the same name, and one of groups names such as there are (if samples are given)."""
    taken = [metric.name for metric in task.metrics()]
    for metric in further:
        if metric.name in taken:
            raise UsageError(
                f"metric {metric.name!r} is already a figure of task {task.name!r}: leave it out"
            )
        taken.append(metric.name)
        wanted = getattr(metric, "groups", ())
        if wanted and official is not None:
            known = dict.fromkeys((*task.groups, *(sample.group for sample in official)))
            for group in wanted:
                if group not in known:
                    raise UsageError(
                        f"metric {metric.name!r}: task {task.name!r} has no group {group!r}; it has {', '.join(known)}"
                    )
