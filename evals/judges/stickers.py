"""The sticker world's judge: a trained detector with masks and colours (`blip3o.stickers.judge`).

Its figures hold for sticker pictures only, so a report names it wherever it prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import Detection, Identity, ModelOptions
from evals.errors import JudgeError, UsageError, shown
from evals.judges.pairs import unique_pictures

DOMAIN = "stickers"


class StickersJudge:
    """`evals.api.DetectionJudge` and `QuestionJudge` around `StickerJudge`. Reading the metadata is cheap; `load`
    builds the networks."""

    def __init__(self, folder: str | None = None, device: str = "auto") -> None:
        from blip3o.errors import WeightsError

        try:
            self._folder, self._metadata = _metadata(folder)
        except WeightsError as error:
            raise JudgeError(str(error)) from error
        self._device = device
        self._judge: Any = None
        self.identity = Identity(
            name="stickers",
            version=str(self._metadata["version"]),
            digest=str(self._metadata["sha256"]),
            domain=DOMAIN,
            info={"calibration": self._metadata["calibration"], "color_classes": "all"},
        )

    def load(self) -> None:
        """Reads the weights. Raises JudgeError when they are missing or damaged."""
        from blip3o.errors import WeightsError
        from blip3o.stickers.judge import StickerJudge
        from evals.models.devices import resolve_device

        try:
            self._judge = StickerJudge.load(self._folder, resolve_device(self._device))
        except WeightsError as error:
            raise JudgeError(str(error)) from error

    def close(self) -> None:
        self._judge = None

    def accuracy(self) -> Mapping[str, Any]:
        """Figures measured on labelled pictures and stored with the weights; {} for weights never measured."""
        return dict(self._metadata.get("accuracy", {}))

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        """Detections per picture, best first, in the picture's own pixels. A picture's answer depends on it alone."""
        if len(images) != len(color_classes):
            raise UsageError(
                f"{len(images)} images with {len(color_classes)} lists of colour classes: give one list each"
            )
        if self._judge is None:
            self.load()
        found = self._judge.find([image.convert("RGB") for image in images])
        return [
            [to_detection(f, f.class_name in asked) for f in row]
            for row, asked in zip(found, color_classes, strict=True)
        ]

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        """ "yes" or "no" per (picture, question), by rule from what is detected; each picture is looked at once.

        Only questions that carry their fact (`blip3o.stickers.question_graph.SceneQuestion`) can be answered: nobody
        here reads words. Raises: JudgeError for any other question.
        """
        import numpy as np

        from blip3o.stickers.question_graph import SceneQuestion
        from blip3o.stickers.question_rules import holds

        for question in questions:
            if not isinstance(question, SceneQuestion):
                raise JudgeError(
                    "judge 'stickers' answers the questions of dpg_stickers only, which say what they ask for; got "
                    f"{shown(question)}: choose a VQA judge with --judge"
                )
        if self._judge is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        found = self._judge.find(pictures)
        pixels = [np.asarray(picture) for picture in pictures]
        return [
            "yes" if holds(question.fact, found[n], pixels[n]) else "no"  # type: ignore[attr-defined]
            for n, question in zip(numbers, questions, strict=True)
        ]


def to_detection(found: Any, with_color: bool = True) -> Detection:
    """A `blip3o.stickers.judge.Found` in the harness's words."""
    x1, y1, x2, y2 = found.box
    return Detection(
        class_name=found.class_name,
        box=(float(x1), float(y1), float(x2), float(y2)),
        score=found.score,
        mask=found.mask,
        color_logits=found.color_logits if with_color else None,
        extras={"pixel_color": found.pixel_color},
    )


def create(spec: str, options: ModelOptions) -> StickersJudge:
    """Factory for `--judge stickers` or `--judge stickers:FOLDER` (weights of another training)."""
    return StickersJudge(spec or None, options.device)


def _metadata(folder: str | None) -> tuple[Any, dict[str, Any]]:
    from pathlib import Path

    from blip3o.stickers.judge_files import FOLDER, read_metadata

    path = Path(folder) if folder else FOLDER
    return path, read_metadata(path)
