"""GenEval: does the picture hold the objects, counts, colours and positions that the prompt asks for?

Measures: object-level faithfulness of text-to-image models. 553 prompts, 4 pictures each, six tags.
Paper: Ghosh, Hajishirzi and Schmidt, arXiv:2310.11513.
Data: djghosh13/geneval, commit af4902f, prompts/evaluation_metadata.jsonl, MIT licence, bundled.
Scorer: evaluation/evaluate_images.py and summary_scores.py of that commit; the rules are written anew
in `geneval_rules` and compared with recorded verdicts. What the detector and the colour classifier
see is the judge's business; a result names its judge, and results of two judges do not compare.

Worth: nearly saturated. The official detector errs by up to 17.7 points on current models, and the
best model of late 2025 scores 96.7 % by human judgement (arXiv:2512.16853). Many models, BLIP3-o among
them, were tuned on prompts made in GenEval's style, so a high score says little about other prompts.
For a model near 0.8 the 95 % interval of `overall` is about 1.6 to 3.2 points either way; most
published differences lie within it.

Version 1: the official prompts, rules and summary. `overall` is the plain mean of the six tag means
and is not given when a tag is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from evals.api import (
    Detection,
    Metric,
    MetricValue,
    Sample,
    Score,
    ScoreItem,
    ScoreRow,
    TaskKind,
    Terms,
)

if TYPE_CHECKING:
    from evals.metrics.accuracy import MeanOfGroups
    from evals.recorded import Field
    from tasks.generation.geneval_rules import Found

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


TWO_OBJECT_TAGS = ("two_object", "position", "color_attr")
MIN_PICTURES = 50
"""Fewer say nothing about whether the judge sees."""


@dataclass(frozen=True)
class Half:
    """A metric over the prompts that training was kept from, or over the others.

    Rows whose details say nothing about `held_out` (models of real pictures) belong to neither half.
    """

    metric: MeanOfGroups
    is_held_out: bool

    @property
    def name(self) -> str:
        return self.metric.name

    @property
    def unit(self) -> str:
        return self.metric.unit

    @property
    def higher_is_better(self) -> bool:
        return self.metric.higher_is_better

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        return self.metric.compute(self._mine(rows))

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        return self.metric.terms(self._mine(rows))

    def _mine(self, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
        return [row for row in rows if row.score.details.get("held_out") is self.is_held_out]


class GenEval:
    """The task; see the module's card. Samples carry the official line number and record."""

    name = "geneval"
    version = "1"
    kind: TaskKind = "generation"
    groups = TAGS
    num_images = 4
    judges: Mapping[str, str] = {"stickers": "stickers", "photos": "mask2former"}
    judge_methods = ("detect",)
    picture_layouts = ("numbered",)
    recorded_kinds = ("detections", "results", "crops")
    card: Mapping[str, str] = {
        "measures": "objects, counts, colours and positions that the prompt asks for",
        "paper": "Ghosh, Hajishirzi and Schmidt, GenEval, arXiv:2310.11513",
        "data": "djghosh13/geneval, commit af4902f: 553 prompts, 4 pictures each",
        "licence": "MIT",
        "scorer": "the rules of djghosh13/geneval, commit af4902f, on the judge's detections",
        "worth": (
            "Nearly saturated: the official detector errs by up to 17.7 points on current models, and the "
            "best model of late 2025 scores 96.7 % by human judgement (arXiv:2512.16853). Many models, "
            "BLIP3-o among them, were trained on prompts in GenEval's style. Near 0.8 the 95 % interval of "
            "overall is 1.6 to 3.2 points either way, so most published differences lie within it."
        ),
    }

    @cached_property
    def _raw(self) -> bytes:
        return (
            resources.files("tasks").joinpath("data/geneval/evaluation_metadata.jsonl").read_bytes()
        )

    def samples(self) -> Sequence[Sample]:
        """The 553 prompts in official order; `number` is the line, from 0."""
        records = [json.loads(line) for line in self._raw.splitlines()]
        return [
            Sample(
                id=f"{number:05d}",
                number=number,
                group=record["tag"],
                prompt=record["prompt"],
                metadata=record,
            )
            for number, record in enumerate(records)
        ]

    def digest(self) -> str:
        return hashlib.sha256(self._raw).hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Verdicts on pictures: value 1 or 0, the official reason, and what the judge found.

        Details: `detections`, class -> rows [x1, y1, x2, y2, score] as upstream's `details`, and for
        prompts that ask for colours `colors`, the objects whose colour decided. In the sticker world
        also `held_out`, whether training was kept from such pictures, and `pixel_color_correct`, the
        verdict when colours are read from the pixels inside the masks.
        """
        if judge is None:
            raise ValueError("geneval needs a judge that finds objects")
        asked = [_color_classes(item.sample.metadata) for item in items]
        found = judge.detect([item.image for item in items], asked)
        is_sticker_world = judge.identity.domain == "stickers"
        return [
            _verdict(item.sample.metadata, detections, is_sticker_world)
            for item, detections in zip(items, found, strict=True)
        ]

    def metrics(self) -> Sequence[Metric]:
        """`overall`, the six tags, then what only the sticker world knows.

        Intervals resample prompts within their tag. `seen_half` and `unseen_half` are plain means of
        the tags with two objects; `..._by_pixels` read colours from the pixels inside the masks.
        """
        from evals.metrics.accuracy import GroupMean, MeanOfGroups

        by_pixels = [
            GroupMean(tag, name=f"{tag}_by_pixels", detail="pixel_color_correct")
            for tag in ("colors", "color_attr")
        ]
        return [
            MeanOfGroups(TAGS, name="overall"),
            *(GroupMean(tag, name=tag) for tag in TAGS),
            Half(MeanOfGroups(TWO_OBJECT_TAGS, name="seen_half"), is_held_out=False),
            Half(MeanOfGroups(TWO_OBJECT_TAGS, name="unseen_half"), is_held_out=True),
            *by_pixels,
        ]

    def warnings(self, rows: Sequence[ScoreRow]) -> list[str]:
        """Says when implausibly many pictures hold no object at all.

        A detector that fails without an error (weights of another architecture, a GPU build that is missing) finds
        nothing, and its verdicts look like those on a very bad model. Counting prompts are left out: their
        threshold of 0.9 leaves many pictures without a detection.
        """
        details = (row.score.details for row in rows if row.group != "counting")
        has_object = [bool(d["detections"]) for d in details if "detections" in d]
        if len(has_object) < MIN_PICTURES or sum(has_object) >= len(has_object) / 2:
            return []
        empty = 1 - sum(has_object) / len(has_object)
        return [
            f"the judge found no object in {empty:.0%} of {len(has_object)} pictures, though each prompt names one: "
            "either they show nothing, or the judge's weights or device are at fault. Look at the pictures before "
            "believing the figures"
        ]

    def notes_on_recorded(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader of the scored rows has to know."""
        from evals.recorded import notes_on_repeats

        if kind != "results":
            return notes_on_repeats(rows, "id")
        if rows[0]["overall"] is not None:
            return []
        missing = [tag for tag in TAGS if tag not in rows[0]["tags"]]
        return [f"overall is not given: no rows of {', '.join(missing)}"]

    def score_recorded(self, kind: str, lines: Sequence[Field]) -> Sequence[Mapping[str, Any]]:
        """Score recordings; `geneval_records` says what each kind holds."""
        from tasks.generation import geneval_records

        if kind == "results":
            return [geneval_records.score_results(lines)]
        one = {
            "detections": geneval_records.score_detections,
            "crops": geneval_records.score_crop,
        }[kind]
        return [one(line) for line in lines]


def _color_classes(spec: Mapping[str, Any]) -> list[str]:
    clauses = [clause for clause in spec.get("include", ()) if "color" in clause]
    return list(dict.fromkeys(clause["class"] for clause in clauses))


def _verdict(
    spec: Mapping[str, Any], detections: Sequence[Detection], is_sticker_world: bool
) -> Score:
    from tasks.generation import geneval_rules as rules

    details: dict[str, Any] = {}
    if is_sticker_world:
        from blip3o.stickers.splits import is_held_out

        details["held_out"] = is_held_out(spec)
    found = [(detection.class_name, _found(detection)) for detection in detections]
    try:
        verdict = rules.judge(found, spec)
        details["detections"] = verdict.details()
        if _color_classes(spec):
            details["colors"] = _colors(spec, verdict.kept)
            if is_sticker_world:
                by_pixels = [(name, _by_pixels(one)) for name, one in found]
                details["pixel_color_correct"] = rules.judge(by_pixels, spec).correct
    except rules.SpecError as error:
        return Score.unscored(f"the judge's answer cannot be used: {error}", **details)
    return Score(value=float(verdict.correct), reason=verdict.reason, details=details)


def _found(detection: Detection) -> Found:
    import numpy as np

    from tasks.generation.geneval_rules import Found

    row = np.array([*detection.box, detection.score], dtype=np.float32)
    return Found(row, detection.color_logits, source=detection)


def _colors(spec: Mapping[str, Any], kept: Mapping[str, Sequence[Found]]) -> list[dict[str, Any]]:
    """The objects whose colour decides, best first: class, the judge's colour, the pixels' colour."""
    from tasks.generation.geneval_rules import color_of

    entries = []
    for clause in spec.get("include", ()):
        objects = kept.get(clause["class"], [])[: clause["count"]]
        if "color" not in clause or len(objects) < clause["count"]:
            continue
        for one in objects:
            entry = {"class": clause["class"], "asked": clause["color"], "color": color_of(one)}
            if "pixel_color" in one.source.extras:
                entry["pixel_color"] = one.source.extras["pixel_color"]
            entries.append(entry)
    return entries


def _by_pixels(found: Found) -> Found:
    """The same object with the pixels' colour in place of the classifier's."""
    from tasks.generation.geneval_rules import COLORS, Found

    color = found.source.extras.get("pixel_color")
    return Found(found.row, [float(color == name) for name in COLORS], found.source)
