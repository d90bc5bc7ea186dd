"""A judge's stored accuracy figures, whatever their keys, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
LONG = 12  # a nested table longer than this is folded away


def accuracy_tables(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures as {"columns", "rows", "folded", "facts"}, or None when the judge was never measured.

    Mappings with numbers become columns, their keys rows; a short mapping inside becomes rows of its own, a long one
    (each of 80 classes) is folded; texts become facts.
    """
    if not accuracy:
        return None
    columns, facts = {}, []
    for name, value in accuracy.items():
        if isinstance(value, Mapping) and any(_is_figure(v) for v in value.values()):
            columns[name] = value
        else:
            facts.append((_words(name), _flat(value)))
    if not columns:
        columns = {"": {k: v for k, v in accuracy.items() if _is_figure(v)}}
        facts = [(name, text) for name, text in facts if not _is_figure(accuracy.get(name))]
    keys: dict[tuple[str, ...], str] = {}
    cells: dict[tuple[tuple[str, ...], str], Any] = {}
    folded: dict[str, dict[str, dict[str, Any]]] = {}
    for column, figures in columns.items():
        for key, value in figures.items():
            if key in LEFT_OUT:
                continue
            if _is_figure(value):
                keys.setdefault((key,), LABELS.get(key, _words(key)))
                cells[(key,), column] = value
            elif isinstance(value, Mapping) and any(_is_figure(v) for v in value.values()):
                if len(value) > LONG or key in ("per_class", "worst_classes", "color_confusions"):
                    folded.setdefault(key, {})[column] = dict(value)
                    continue
                for inner, number in value.items():
                    if _is_figure(number):
                        keys.setdefault(
                            (key, inner), f"{LABELS.get(key, _words(key))}: {_words(inner)}"
                        )
                        cells[(key, inner), column] = number
            elif value is not None:
                facts.append((f"{_words(column)}, {_words(key)}", _flat(value)))
    return {
        "columns": [SETTINGS.get(c, _words(c)) for c in columns],
        "rows": [
            {"label": label, "cells": [cells.get((key, c)) for c in columns]}
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
        return ", ".join(f"{_words(k)} {_flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value))
    return str(value)
