"""GenEval's judge for real pictures: Mask2Former finds the objects, CLIP names their colours.

    --judge mask2former                      the public checkpoint of Meta, labelled meta-swin-s
    --judge mask2former:FOLDER               any folder, such as the one that `convert-mmdet` made (official)
    --judge mask2former:FOLDER,clip=FILE     further arguments after a comma, or as --set judge.args.clip=FILE

Scores of two detectors, or of two precisions, are scores of two judges: the label is part of the name, and weights,
precision and padding are part of the digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from evals.api import Detection, Identity, ModelOptions
from evals.errors import UsageError, shown, suggest
from evals.judges.clip_colors import ClipWeights, find_clip, joint_digest
from evals.judges.mask2former_images import PADDINGS
from evals.judges.mask2former_weights import DetectorWeights, find_detector

DOMAIN = "photos"
DTYPES = ("float32", "bfloat16", "float16")
COLOR_SCORE = 0.3
"""Only detections that GenEval can count need a colour: score strictly above this, compared in float32,"""
COLOR_COUNT = 16
"""and among the best 16 of their class."""
MASK_SCORE = 0.1
"""Detections of a lower score come without their mask: 100 masks of a picture are 100 MB."""
_BATCH_SIZE = 8
_UNTESTED = (
    "judge mask2former was not asked first about pictures with known answers (self_test=false): nobody has seen "
    "that its weights mean anything"
)


@dataclass(frozen=True)
class DetectorArguments:
    """What can be said after `mask2former:` or in judge.args.

    detector, clip: label, folder, file or hub id. revision: of the detector's hub id. dtype, clip_dtype: precision of
    the two networks (upstream: float32, and float16 on a GPU). padding: see `mask2former_images.PADDINGS`.
    self_test: look at pictures with known answers first; false for networks without meaning, as in tests.
    """

    detector: str = ""
    clip: str = ""
    revision: str | None = None
    dtype: str = "float32"
    clip_dtype: str = "float32"
    padding: str = "grey"
    self_test: bool = True


def parse(spec: str, extra: Mapping[str, Any]) -> DetectorArguments:
    """Arguments from the text after the name and from judge.args. Raises UsageError naming the culprit."""
    given: dict[str, Any] = {}
    for i, part in enumerate(filter(None, spec.split(","))):
        key, equals, value = part.partition("=")
        if equals:
            given[key] = value
        elif i == 0:
            given["detector"] = part
        else:
            raise UsageError(f"argument {shown(part)} of 'mask2former': give name=value")
    for key, value in extra.items():
        if key in given and given[key] != value:
            raise UsageError(
                f"judge 'mask2former' is given {key}={shown(given[key])} and judge.args.{key}={shown(value)}: give one"
            )
        given[key] = value
    known = [field.name for field in fields(DetectorArguments)]
    for key, value in given.items():
        if key not in known:
            raise UsageError(f"unknown argument {shown(key)} of 'mask2former'.{suggest(key, known)}")
        if key == "self_test":
            truth = {"true": True, "false": False}.get(str(value).lower())
            if truth is None:
                raise UsageError(f"argument self_test={shown(value)} of 'mask2former': give true or false")
            given[key] = truth
        elif not isinstance(value, str):
            raise UsageError(f"argument {key}={shown(value)} of 'mask2former': give a text")
    arguments = replace(DetectorArguments(), **given)
    for key, allowed in (("dtype", DTYPES), ("clip_dtype", DTYPES), ("padding", PADDINGS)):
        if getattr(arguments, key) not in allowed:
            raise UsageError(
                f"argument {key}={shown(getattr(arguments, key))} of 'mask2former': give {', '.join(allowed)}"
            )
    return arguments


def create(spec: str, options: ModelOptions) -> DetectorJudge:
    """Factory for `--judge mask2former[:DETECTOR[,name=value...]]`.

    Raises: MissingRequirementError at once, with all that has to be fetched, when weights are not on this machine.
    """
    return DetectorJudge(parse(spec, options.extra), options.device)


class DetectorJudge:
    """`evals.api.DetectionJudge`. Finding the weights reads digests only; `load` builds the networks."""

    def __init__(self, arguments: DetectorArguments, device: str = "auto") -> None:
        from evals.judges.detector_check import DetectionWatch

        self._arguments, self._wanted_device = arguments, device
        self._weights, self._clip = _find_both(arguments)
        self._detector: Any = None
        self._colors: Any = None
        self._watch = DetectionWatch()
        self.device = "unknown"
        self.identity = Identity(
            name=f"mask2former:{self._weights.label}",
            version="1",
            digest=joint_digest(self._weights.digest, self._clip.digest, *_unusual(arguments)),
            domain=DOMAIN,
            settings={
                "detector": self._weights.label,
                "dtype": arguments.dtype,
                "clip_dtype": arguments.clip_dtype,
                "padding": arguments.padding,
                **({} if arguments.self_test else {"self_test": False}),
            },
            batch_size=_BATCH_SIZE,
            info={
                "detector": self._weights.source,
                "detector_sha256": self._weights.digest,
                "colors": self._clip.source,
                "colors_sha256": self._clip.digest,
                **({} if arguments.self_test else {"warnings": [_UNTESTED]}),
            },
        )

    def load(self) -> None:
        """Builds both networks and looks at the pictures with known answers. Raises JudgeError."""
        from evals.judges import detector_check as check
        from evals.judges.clip_colors import ClipColors
        from evals.judges.mask2former import Mask2Former
        from evals.models.devices import resolve_device

        arguments = self._arguments
        self.device = resolve_device(self._wanted_device)
        self._detector = Mask2Former.load(
            self._weights, self.device, arguments.dtype, arguments.padding
        )
        self._colors = ClipColors.load(self._clip, self.device, arguments.clip_dtype)
        if not arguments.self_test:
            check.log.warning(_UNTESTED)
            return
        check.check_detector(self._detector, self._weights.classes, self._weights.source)
        check.check_colors(self._colors, self._clip.source)

    def close(self) -> None:
        self._detector = self._colors = None

    def accuracy(self) -> Mapping[str, Any]:
        """{}: nobody has measured this judge on labelled pictures here; the task's card tells of others' figures."""
        return {}

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        """The 100 best (query, class) pairs per picture, best first. A picture's answer depends on it alone.

        `color_logits` stand at the detections of the asked classes that GenEval can count, see `COLOR_SCORE`.
        """
        if len(images) != len(color_classes):
            raise UsageError(
                f"{len(images)} images with {len(color_classes)} lists of colour classes: give one list each"
            )
        if self._detector is None:
            self.load()
        pictures = [image.convert("RGB") for image in images]
        rows = [
            [
                Detection(self._weights.classes[one.label], one.box, one.score, one.mask)
                for one in found
            ]
            for found in self._detector.find(pictures, keep_masks_above=MASK_SCORE)
        ]
        for row in rows:
            self._watch.see(row[0].score if row else 0.0)
        return self._with_colors(pictures, rows, color_classes)

    def _with_colors(
        self,
        pictures: Sequence[Any],
        rows: list[list[Detection]],
        color_classes: Sequence[Sequence[str]],
    ) -> list[list[Detection]]:
        from evals.judges.color_crops import color_crop

        places = [
            (i, j)
            for i, (row, asked) in enumerate(zip(rows, color_classes, strict=True))
            for j in counted(row, set(asked))
        ]
        crops = [color_crop(pictures[i], rows[i][j].mask, rows[i][j].box) for i, j in places]
        logits = self._colors.logits(crops, [rows[i][j].class_name for i, j in places])
        for (i, j), ten in zip(places, logits, strict=True):
            rows[i][j] = replace(rows[i][j], color_logits=ten)
        return rows


def counted(row: Sequence[Detection], asked: set[str]) -> list[int]:
    """Places in `row` (best first) of the detections whose colour can matter.

    One more than the best 16 would be needed only for exact ties, whose order upstream leaves open; all of
    the score of the sixteenth are taken.
    """
    import numpy as np

    threshold = np.float32(COLOR_SCORE)
    by_class: dict[str, list[int]] = {}
    for j, one in enumerate(row):
        if one.class_name in asked and np.float32(one.score) > threshold:
            by_class.setdefault(one.class_name, []).append(j)
    chosen = []
    for places in by_class.values():
        last = np.float32(row[places[min(len(places), COLOR_COUNT) - 1]].score)
        chosen += [j for j in places if np.float32(row[j].score) >= last]
    return sorted(chosen)


def _unusual(arguments: DetectorArguments) -> list[str]:
    """Settings that change verdicts, where they are not the default: with them it is another judge."""
    default = DetectorArguments()
    names = ("dtype", "clip_dtype", "padding")
    pairs = ((name, getattr(arguments, name), getattr(default, name)) for name in names)
    return [f"{name}={value}" for name, value, usual in pairs if value != usual]


def _find_both(arguments: DetectorArguments) -> tuple[DetectorWeights, ClipWeights]:
    """Both sets of weights; what is missing of the two is said in one message."""
    from evals.errors import MissingRequirementError

    found: list[Any] = []
    missing = []
    for part, find in (
        ("objects (mask2former:...)", lambda: find_detector(arguments.detector, arguments.revision)),
        ("colours (clip=...)", lambda: find_clip(arguments.clip)),
    ):
        try:
            found.append(find())
        except MissingRequirementError as error:
            missing.append(f"judge 'mask2former', {part}: {error}")
    if missing:
        raise MissingRequirementError("\n".join(missing))
    return found[0], found[1]
