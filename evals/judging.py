"""Judges against labels: verdicts for labelled pictures, and every figure about how they agree, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evals import agreement
from evals.agreement import Agreement, Figure, Pair
from evals.api import Output, ScoreItem
from evals.errors import InputError, UsageError
from evals.labels import Label, Labels, check_picture, samples_of

_CHUNK = 64  # pictures in memory at a time
PIXELS = "pixel_color_correct"
"""Detail of a score: the verdict with colours read from the pixels inside the masks."""

Verdict = dict[str, Any]
"""`correct` (bool, or None with the reason), `reason`, and `by_pixels` (bool) for prompts about colours."""


def verdicts_of_judge(labels: Labels, task: Any, judge: Any, run: Any = None) -> list[Verdict]:
    """The judge's verdict on every label that has one, in order. Pictures come from the labels, or from a run folder.

    Args: run: `evals.results.RunData`, or None.
    """
    samples = samples_of(labels, task.samples())
    rows = None if run is None else _rows_by_key(run.outputs())
    out: list[Verdict] = []
    judged = labels.judged
    for start in range(0, len(judged), _CHUNK):
        items = []
        for label in judged[start : start + _CHUNK]:
            image = labels.picture(label) if rows is None else _picture_of_run(run, rows, label)
            output = Output(label.sample_id, label.image_index, seed=0)
            items.append(ScoreItem(samples[label.sample_id], output, image))
        out += [_verdict(s.value, s.reason, s.unscored_reason, s.details) for s in task.score(items, judge)]
    return out


def verdicts_of_run(labels: Labels, run: Any) -> list[Verdict]:
    """The verdicts a finished run stored (`evals.results.RunData`), in the order of `labels.judged`.

    Raises: InputError for a label without a score in the run, or of another picture than the run's.
    """
    scores = _rows_by_key(run.scores())
    outputs = _rows_by_key(run.outputs()) if any("sha256" in x.row for x in labels.judged) else {}
    out = []
    for label in labels.judged:
        row = scores.get(label.key)
        if row is None:
            raise InputError(
                f"{label.where}: sample {label.sample_id}, image {label.image_index} has no score in {run.root}"
            )
        if "sha256" in label.row:
            _picture_of_run(run, outputs, label)
        out.append(_verdict(row["value"], row.get("reason", ""), row.get("unscored"), row["details"]))
    return out


def _rows_by_key(rows: Iterator[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["sample_id"], row["image_index"]): row for row in rows}


def _picture_of_run(run: Any, rows: Mapping[tuple[str, int], Any], label: Label) -> Any:
    from PIL import Image

    row = rows.get(label.key)
    path = None if row is None else row.get("path")
    if path is None or ".." in Path(path).parts:
        raise InputError(
            f"{label.where}: sample {label.sample_id}, image {label.image_index} has no picture in {run.root}"
        )
    try:
        with Image.open(run.root / path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"{run.root / path}: cannot be read ({error})") from None
    check_picture(label, image)
    return image


def _verdict(
    value: float | None, reason: str, unscored: str | None, details: Mapping[str, Any]
) -> Verdict:
    if value is None:
        return {"correct": None, "reason": unscored or "", "by_pixels": None}
    if value not in (0, 1):
        raise UsageError(
            f"a score of {value} is no verdict: labels of right and wrong compare with tasks that score 0 or 1"
        )
    return {"correct": bool(value), "reason": reason, "by_pixels": details.get(PIXELS)}


def compare(labels: Labels, verdicts: Sequence[Verdict], groups: Mapping[str, str]) -> dict[str, Any]:
    """Every figure about verdicts and labels, as JSON values; fractions, NaN as null.

    Args: verdicts: one per row of `labels.judged`. groups: sample id -> group.
    Raises: UsageError when no picture has both.
    """
    both = [
        (label, verdict)
        for label, verdict in zip(labels.judged, verdicts, strict=True)
        if verdict["correct"] is not None
    ]
    if not both:
        raise UsageError("the judge gave no verdict on any labelled picture")
    pairs = [_pair(label, groups, verdict["correct"]) for label, verdict in both]
    sure = [p for p, (label, _) in zip(pairs, both, strict=True) if not label.unsure]
    colored = [(label, v) for label, v in both if v["by_pixels"] is not None]
    return {
        "pictures": len(labels.rows),
        "not_judgeable": len(labels.rows) - len(labels.judged),
        "without_verdict": len(verdicts) - len(both),
        "unsure": sum(label.unsure for label, _ in both),
        "overall": as_json(agreement.overall(pairs)),
        "overall_sure": as_json(agreement.overall(sure)) if sure else None,
        "groups": {name: as_json(a) for name, a in agreement.by_group(pairs).items()},
        "by_pixels": _by_pixels(colored, groups),
        "labeller": labeller_consistency(labels, groups),
        "disagreements": [
            {
                "sample_id": label.sample_id,
                "image_index": label.image_index,
                "group": groups[label.sample_id],
                "prompt": label.row.get("prompt"),
                "label": label.correct,
                "verdict": verdict["correct"],
                "reason": verdict["reason"],
                "unsure": label.unsure,
                "note": label.row.get("note"),
            }
            for label, verdict in both
            if verdict["correct"] != label.correct
        ],
    }


def _pair(label: Label, groups: Mapping[str, str], verdict: bool) -> Pair:
    return Pair(
        groups[label.sample_id], label.sample_id, bool(label.correct), verdict, label.weight
    )


def _by_pixels(
    colored: Sequence[tuple[Label, Verdict]], groups: Mapping[str, str]
) -> dict[str, Any]:
    """Colours read from the pixels: against the labels, and against the judge's own reading, by group."""
    against_labels = agreement.by_group([_pair(x, groups, bool(v["by_pixels"])) for x, v in colored])
    of_readings = agreement.by_group(
        [
            Pair(groups[x.sample_id], x.sample_id, bool(v["correct"]), bool(v["by_pixels"]), x.weight)
            for x, v in colored
        ]
    )
    return {
        name: {
            "with_labels": as_json(against_labels[name]),
            "with_judge": {
                key: as_json(of_readings[name])[key] for key in ("n", "agreement", "kappa")
            },
        }
        for name in against_labels
    }


def labeller_consistency(labels: Labels, groups: Mapping[str, str]) -> dict[str, Any] | None:
    """Agreement of the labeller with itself, on pictures labelled twice; None without any. Unweighted."""
    pairs = [
        Pair("all", label.sample_id, bool(label.correct), label.again[0])
        for label in labels.judged
        if label.again is not None and label.again[0] is not None
    ]
    if not pairs:
        return None
    figures = as_json(agreement.overall(pairs))
    return {key: figures[key] for key in ("n", "agreement", "kappa")}


def as_json(figures: Agreement) -> dict[str, Any]:
    """An `Agreement` as JSON values: a `Figure` becomes {"value", "ci95"}."""

    def number(x: float) -> float | None:
        return None if math.isnan(x) else round(x, 4)

    def one(x: Figure) -> dict[str, Any]:
        has_limits = not (math.isnan(x.lo) or math.isnan(x.hi))
        return {"value": number(x.value), "ci95": [number(x.lo), number(x.hi)] if has_limits else None}

    out: dict[str, Any] = {}
    for name, value in asdict(figures).items():
        out[name] = number(value) if isinstance(value, float) else value
    for name in ("agreement", "kappa", "bias"):
        out[name] = one(getattr(figures, name))
    return out


def agree(
    labels_path: str | Path | None = None,
    judge_name: str | None = None,
    run_folder: str | Path | None = None,
    task_name: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """What `blip3o-eval judge agree --json` prints: `compare`'s figures, and what they are about.

    Raises: UsageError and InputError for labels, judges and runs that do not fit together.
    """
    from evals.labels import bundled_path, read_labels
    from evals.plugins.lookup import find_task
    from evals.results import load

    labels = read_labels(bundled_path() if labels_path is None else labels_path)
    run = None if run_folder is None else load(run_folder)
    if run is not None and not run.is_finished:
        raise UsageError(f"{run.root} is not finished: its scores are incomplete")
    task = find_task(_task_name(labels, run, task_name))
    groups = {id: sample.group for id, sample in samples_of(labels, task.samples()).items()}
    if run is not None and judge_name is None:
        if run.manifest["judge"] is None:
            raise UsageError(f"{run.root} was scored without a judge: there is nothing to compare")
        verdicts, identity = verdicts_of_run(labels, run), run.manifest["judge"]
    else:
        judge = _judge(labels, run, task, judge_name, device)
        judge.load()
        try:
            verdicts = verdicts_of_judge(labels, task, judge, run)
        finally:
            judge.close()
        identity = {
            "name": judge.identity.name,
            "version": judge.identity.version,
            "weights_sha256": judge.identity.digest,
            "is_test_double": judge.identity.is_test_double,
        }
    return {
        "labels": str(labels.path),
        "labels_sha256": labels.digest,
        "labeller_note": labels.header.get("labeller"),
        "model_weights_sha256": labels.header.get("model_weights_sha256"),
        "task": task.name,
        "run": None if run is None else str(run.root),
        "judge": {k: identity[k] for k in ("name", "version", "weights_sha256", "is_test_double")},
        **compare(labels, verdicts, groups),
    }


def _task_name(labels: Labels, run: Any, wanted: str | None) -> str:
    of_run = None if run is None else run.manifest["task"]["name"]
    of_labels = labels.header.get("task")
    names = {str(name) for name in (wanted, of_run, of_labels) if name is not None}
    if len(names) > 1:
        raise UsageError(
            f"--task {wanted}, the labels' task {of_labels} and the run's task {of_run} must be one and the same"
        )
    if not names:
        raise UsageError(
            f"{labels.path} does not say whose prompts it labels: give --task, or a header with `task`"
        )
    return names.pop()


def _judge(labels: Labels, run: Any, task: Any, name: str | None, device: str) -> Any:
    from evals.config import JudgeConfig, ModelConfig, RunConfig
    from evals.plugins.lookup import find_judge

    if name in (None, "auto"):
        domain = labels.header.get("domain") if run is None else run.manifest["model"]["domain"]
        name = task.judges.get(domain)
        if name is None:
            raise UsageError(
                f"task {task.name!r} knows no judge for pictures of domain {domain!r}: give --judge"
            )
    config = RunConfig(task=task.name, model=ModelConfig(device=device), judge=JudgeConfig(name=name))
    found = find_judge(config, task, None)  # type: ignore[arg-type]  # the model matters to "auto" only
    if found is None:
        raise UsageError(f"task {task.name!r} is scored without a judge")
    return found
