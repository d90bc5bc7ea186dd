"""A judge's stored accuracy figures, whatever their keys, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.failures import is_of_sets

LABELS = {
    "scenes": "scenes measured",
    "objects": "objects in them",
    "verdicts": "verdicts compared",
    "verdict_agreement": "GenEval verdict is the true one",
    "verdict_agreement_when_true": "... where the picture is right",
    "verdict_agreement_when_false": "... where the picture is wrong",
    "verdict_agreement_by_pixels": "... with colour read from the pixels",
    "f1": "objects found (F1: class and box, IoU 0.5)",
    "precision": "objects found: precision",
    "recall": "objects found: recall",
    "counts": "all counts of a picture right",
    "counting": "number right in counting pictures",
    "color": "colour of found objects right",
    "color_by_pixels": "colour read from the pixels right",
    "color_by_pixels_true_mask": "... inside the true mask",
    "mask_iou": "overlap of masks (mean IoU)",
    "kappa": "agreement beyond chance (Cohen's kappa)",
}
SETTINGS = {
    "seen_full": "held-out scenes, all backgrounds",
    "seen_easy": "held-out scenes, easy",
    "unseen_style": "style never seen, all backgrounds",
    "unseen_style_easy": "style never seen, easy",
    "worn_easy": "blurred and noisy scenes, easy",
}
LEFT_OUT = ("pictures_per_second",)

OWN_PICTURES = "nano_pictures"
"""The setting measured on labelled pictures that `nano` made: nearest to what a run shows, so it goes first."""
OF_TASKS = ("geneval", "geneval_long")
"""Tasks with the verdicts that were labelled, one rule for a whole prompt."""
BESIDE = {OWN_PICTURES: "labelled pictures made by nano", "seen_easy": "held-out scenes, easy"}


@dataclass(frozen=True)
class VerdictAccuracy:
    """How often the judge's GenEval verdict was the true one, for the places beside the figures.

    `where`: the pictures it was measured on, `n`: how many verdicts. `by_group`: tag -> share.
    Intervals, kappa and bias are None or {} where they were not measured.
    """

    where: str
    overall: float
    n: int | None = None
    ci95: tuple[float, float] | None = None
    kappa: float | None = None
    bias: float | None = None
    by_group: Mapping[str, float] = field(default_factory=dict)
    by_group_ci95: Mapping[str, Sequence[float]] = field(default_factory=dict)


def verdict_accuracy(accuracy: Mapping[str, Any]) -> VerdictAccuracy | None:
    """The figures to print beside a run's, or None when the judge's verdicts were never measured.

    All labels are of GenEval's verdicts: they stand beside the figures of `OF_TASKS`, and of no other task.
    """
    for setting, where in BESIDE.items():
        found = accuracy.get(setting)
        if not isinstance(found, Mapping) or not _is_figure(found.get("verdict_agreement")):
            continue
        bounds = found.get("verdict_agreement_ci95")
        return VerdictAccuracy(
            where=where,
            overall=float(found["verdict_agreement"]),
            n=found.get("verdicts"),
            ci95=None if bounds is None else (bounds[0], bounds[1]),
            kappa=found.get("kappa"),
            bias=found.get("bias"),
            by_group=found.get("verdict_agreement_by_tag") or {},
            by_group_ci95=found.get("verdict_agreement_by_tag_ci95") or {},
        )
    return None


def judge_context(judge: Mapping[str, Any] | None, accuracy: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What pages say of the judge: `accuracy` (its tables), `verdicts` beside the figures, `judge_title`.

    `is_measured_elsewhere`: its verdicts were measured, and not on this task's. `gives_verdicts`: not where it only
    takes features, for distances between sets of pictures.
    """
    verdicts = verdict_accuracy(accuracy)
    is_of_task = task in OF_TASKS
    name = str((judge or {}).get("name", ""))
    return {
        "accuracy": accuracy_tables(accuracy),
        "verdicts": verdicts if is_of_task else None,
        "is_measured_elsewhere": verdicts is not None and not is_of_task,
        "gives_verdicts": not is_of_sets(task),
        "judge_title": "the sticker judge" if name == "stickers" else f"the judge {name}",
    }


def own_pictures(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """Agreement with labels of pictures that `nano` made: {"rows", "sentences"}, or None when it was never measured.

    A row, per tag and then overall: label, n, and `agreement`, `kappa`, `bias` as (value, interval or None).
    """
    found = accuracy.get(OWN_PICTURES)
    if not isinstance(found, Mapping) or not found.get("verdict_agreement_by_tag"):
        return None
    measures = {"agreement": "verdict_agreement", "kappa": "kappa", "bias": "bias"}

    def row(label: str, n: Any, tag: str | None) -> dict[str, Any]:
        cells = {"label": label, "n": n}
        for name, key in measures.items():
            if tag is None:
                cells[name] = (found.get(key), found.get(f"{key}_ci95"))
            else:
                cells[name] = (
                    (found.get(f"{key}_by_tag") or {}).get(tag),
                    (found.get(f"{key}_by_tag_ci95") or {}).get(tag),
                )
        return cells

    counts = found.get("verdicts_by_tag") or {}
    rows = [row(_words(t), counts.get(t), t) for t in found["verdict_agreement_by_tag"]]
    rows.append(row("overall", found.get("verdicts"), None))
    return {"rows": rows, "sentences": _sentences(found)}


def _sentences(found: Mapping[str, Any]) -> list[str]:
    """What else the labels say, one sentence each; what was not measured is left out."""
    sentences = []
    if found.get("labeller"):
        sentences.append(f"Labelled by {found['labeller']}.")
    if found.get("model_weights_sha256"):
        sentences.append(f"The pictures are of nano's weights {found['model_weights_sha256'][:12]}.")
    own = found.get("labeller_with_itself")
    if own:
        sentences.append(
            f"On {own['n']} pictures labelled twice the labeller agrees with itself in "
            f"{own['agreement']['value']:.3f} (kappa {own['kappa']['value']:.3f})."
        )
    if found.get("unsure") and found.get("verdict_agreement_sure") is not None:
        sentences.append(
            f"{found['unsure']} of the labels are unsure; without them agreement is "
            f"{found['verdict_agreement_sure']:.3f}, kappa {found['kappa_sure']:.3f}."
        )
    if found.get("false_yes") is not None and found.get("false_no") is not None:
        sentences.append(
            f"The judge says yes to {found['false_yes']:.3f} of what is labelled wrong and no to "
            f"{found['false_no']:.3f} of what is labelled right."
        )
    pixels, readings = (
        found.get(k) or {} for k in ("verdict_agreement_by_pixels_by_tag", "readings_agree_by_tag")
    )
    if pixels:
        parts = [f"{_words(t)} {v:.3f}" for t, v in pixels.items()]
        parts += [f"of both readings on {_words(t)} {v:.3f}" for t, v in readings.items()]
        sentences.append(f"With colours read from the pixels, agreement: {', '.join(parts)}.")
    return sentences


def readings_agreement(pictures: Iterable[Any]) -> float | None:
    """Share of a run's pictures whose verdict is the same with the colours that the pixels inside the masks have.

    Args: pictures: things with `value` and `details`, the verdict by pixels under `pixel_color_correct`. None without
    any: another judge.
    """
    equal = [
        bool(p.value) == bool(p.details["pixel_color_correct"])
        for p in pictures
        if p.details.get("pixel_color_correct") is not None
    ]
    return sum(equal) / len(equal) if equal else None


def accuracy_tables(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures as {"own", "columns", "rows", "folded", "facts"}, or None when the judge was never measured.

    `own` is `own_pictures`. For the rest:
    Mappings with numbers become columns and their keys rows; a mapping inside them (each tag, each of 80 classes)
    becomes a folded table; everything else becomes a fact.
    """
    if not accuracy:
        return None
    own = own_pictures(accuracy)
    if own is not None:
        accuracy = {k: v for k, v in accuracy.items() if k != OWN_PICTURES}
    columns = {
        name: value
        for name, value in accuracy.items()
        if isinstance(value, Mapping) and any(_is_figure(v) for v in value.values())
    }
    # What has no figure in common with the others (a date, a rate of false alarms) would leave a column of gaps.
    widest = max(columns.values(), key=len, default={})
    columns = {
        n: v for n, v in columns.items() if v is widest or len(set(v) & set(widest)) > len(v) / 2
    }
    facts = [
        (_words(name), _flat(value))
        for name, value in accuracy.items()
        if name not in columns
        and value not in (None, {}, [])
        and (columns or not _is_figure(value))
    ]
    if not columns and any(map(_is_figure, accuracy.values())):
        columns = {"": {k: v for k, v in accuracy.items() if _is_figure(v)}}
    keys: dict[str, str] = {}
    folded: dict[str, dict[str, Mapping[str, Any]]] = {}
    for column, figures in columns.items():
        for key, value in figures.items():
            if key in LEFT_OUT or value in (None, {}, []):
                continue
            if _is_figure(value):
                keys.setdefault(key, LABELS.get(key, _words(key)))
            elif isinstance(value, Mapping) and any(_is_figure(v) for v in value.values()):
                folded.setdefault(key, {})[column] = value
            else:
                facts.append((f"{_words(column)}, {_words(key)}", _flat(value)))
    return {
        "own": own,
        "columns": [SETTINGS.get(c, _words(c)) for c in columns],
        "rows": [
            {"label": label, "cells": [columns[c].get(key) for c in columns]}
            for key, label in keys.items()
        ],
        "folded": [
            {
                "title": _words(key),
                "columns": [SETTINGS.get(c, _words(c)) for c in by_column],
                "rows": [
                    {"label": name, "cells": [values.get(name) for values in by_column.values()]}
                    for name in dict.fromkeys(n for values in by_column.values() for n in values)
                ],
            }
            for key, by_column in folded.items()
        ],
        "facts": facts,
    }


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _words(name: Any) -> str:
    return str(name).replace("_", " ")


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{_words(k)}: {_flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value))
    return str(value)
