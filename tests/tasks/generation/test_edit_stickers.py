"""Edits of sticker scenes: the rules against the scenes' own truth, and whole runs with baselines."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from blip3o.stickers import render
from evals import evaluate
from evals.api import Detection, Identity, Output, ScoreItem
from evals.errors import UsageError
from tasks.generation import edit_rules as rules
from tasks.generation.edit_stickers import KINDS, EditStickers

SIZE = 64


@pytest.fixture(scope="module")
def task() -> EditStickers:
    return EditStickers()


def detections_of(scene, natural: str, score: float = 0.95) -> list[Detection]:
    """What a judge without fault would report of a scene; ``natural``: the colour of objects as drawn."""
    picture = render(scene)
    found = []
    for sticker, box in zip(scene.stickers, picture.boxes, strict=True):
        logits = [float(color == (sticker.color or natural)) for color in rules.COLORS]
        found.append(
            Detection(sticker.class_name, tuple(map(float, box)), score, color_logits=tuple(logits))
        )
    return found


class TruthfulJudge:
    """Knows the scenes' pictures by their pixels."""

    identity = Identity("truth", "1", "0" * 64, "stickers")

    def __init__(self, task: EditStickers) -> None:
        self.known = {}
        for pair in task._pairs:
            named = {s.color for s in (*pair.source.stickers, *pair.target.stickers)}
            natural = next(color for color in rules.COLORS if color not in named)
            for scene in (pair.source, pair.target):
                self.known[render(scene).image.tobytes()] = detections_of(scene, natural)

    def detect(self, images, color_classes):
        return [self.known[np.asarray(image).tobytes()] for image in images]

    def load(self) -> None: ...
    def close(self) -> None: ...
    def accuracy(self):
        return {}


def items_of(task: EditStickers, which: str) -> list[ScoreItem]:
    return [
        ScoreItem(sample, Output(sample.id, 0, 1), Image.fromarray(render(getattr(pair, which)).image))
        for sample, pair in zip(task.samples(), task._pairs, strict=True)
    ]


def test_there_are_240_pairs_half_of_them_of_held_out_results(task) -> None:
    samples = task.samples()
    assert len(samples) == 240 == len({s.id for s in samples})
    assert [s.group for s in samples] == [kind for kind in KINDS for _ in range(60)]
    assert sum(s.metadata["split"] == "test_unseen" for s in samples) == 120
    assert all(s.images[0].size == (SIZE, SIZE) and s.prompt for s in samples)
    assert task.digest() == EditStickers().digest()


def test_the_target_is_right_and_the_source_is_wrong(task) -> None:
    judge = TruthfulJudge(task)
    for score in task.score(items_of(task, "target"), judge):
        assert score.value == 1, score.reason
        assert score.details["changed_elsewhere"] < 0.01 and not score.details["copy_source"]
    for score in task.score(items_of(task, "source"), judge):
        assert score.value == 0 and score.details["changed_elsewhere"] == 0
        assert not score.details["followed"] and score.details["kept"], score.reason


def record_of(kind: str, source: list, target: list) -> dict:
    def objects(rows):
        return [{"class": c, "color": k, "box": list(b)} for c, k, b in rows]

    return {"kind": kind, "source": objects(source), "target": objects(target)}


LEFT, RIGHT, TOP = (0.1, 0.3, 0.4, 0.7), (0.6, 0.3, 0.9, 0.7), (0.35, 0.05, 0.65, 0.45)


def seen(name: str, place, color: str | None = None, score: float = 0.9) -> Detection:
    logits = tuple(float(c == color) for c in rules.COLORS)
    return Detection(name, tuple(side * 200 for side in place), score, color_logits=logits)


@pytest.mark.parametrize(
    ("kind", "source", "target", "found", "followed", "kept", "reason"),
    [
        ("recolor", [("dog", None, LEFT)], [("dog", "red", LEFT)], [seen("dog", LEFT, "red")], True, True, ""),
        ("recolor", [("dog", None, LEFT)], [("dog", "red", LEFT)], [seen("dog", LEFT, "blue")], False, True,
         "expected red dog>=1, found 0 red; and 1 blue"),
        ("recolor", [("dog", None, LEFT), ("cat", None, RIGHT)], [("dog", "red", LEFT), ("cat", None, RIGHT)],
         [seen("dog", LEFT, "red")], True, False, "expected cat>=1, found 0"),
        ("recolor", [("dog", None, LEFT)], [("dog", "red", LEFT)], [seen("dog", RIGHT, "red")], False, True,
         "red dog is 0.50 of the side away from its place"),
        ("remove", [("dog", None, LEFT), ("cat", None, RIGHT)], [("cat", None, RIGHT)], [seen("cat", RIGHT)],
         True, True, ""),
        ("remove", [("dog", None, LEFT), ("cat", None, RIGHT)], [("cat", None, RIGHT)],
         [seen("cat", RIGHT), seen("dog", LEFT, score=0.4)], False, True, "expected dog<1, found 1"),
        ("remove", [("dog", None, LEFT), ("cat", None, RIGHT)], [("cat", None, RIGHT)],
         [seen("cat", RIGHT), seen("dog", LEFT, score=0.29)], True, True, ""),
        ("add", [("dog", None, LEFT)], [("cat", None, RIGHT), ("dog", None, LEFT)],
         [seen("dog", LEFT), seen("cat", RIGHT)], True, True, ""),
        ("add", [("dog", None, RIGHT)], [("cat", None, LEFT), ("dog", None, RIGHT)],
         [seen("dog", LEFT), seen("cat", RIGHT)], False, False, "expected cat left of target, found right of target"),
        ("move", [("dog", None, LEFT)], [("dog", None, TOP)], [seen("dog", TOP)], True, True, ""),
        ("move", [("dog", None, LEFT)], [("dog", None, TOP)], [seen("dog", LEFT)], False, True, "away from its place"),
        ("move", [("dog", None, LEFT)], [("dog", None, TOP)], [seen("dog", TOP), seen("bus", LEFT, score=0.95)],
         True, False, "expected bus<1, found 1"),
        ("move", [("dog", None, LEFT)], [("dog", None, TOP)], [], False, True, "expected dog>=1, found 0"),
    ],
)  # fmt: skip
def test_the_rules(kind, source, target, found, followed, kept, reason) -> None:
    verdict = rules.judge(found, (200, 200), record_of(kind, source, target))
    assert (verdict.followed, verdict.kept) == (followed, kept), verdict.reason
    assert reason in verdict.reason if reason else verdict.reason == ""


def test_a_colour_that_was_not_classified_is_unscored(task) -> None:
    class Colourless(TruthfulJudge):
        def detect(self, images, color_classes):
            rows = super().detect(images, color_classes)
            return [[Detection(d.class_name, d.box, d.score) for d in row] for row in rows]

    score = task.score(items_of(task, "target")[:1], Colourless(task))[0]
    assert not score.is_scored and "was not classified" in (score.unscored_reason or "")


def test_a_run_of_the_copying_baseline_scores_zero_and_says_that_nothing_else_changed(task, tmp_path) -> None:
    run = evaluate(
        "edit_stickers", "copy-source", judge=TruthfulJudge(task), limit=16, output=tmp_path / "run",
        tracking__enabled=False, quiet=True, report=False,
    )  # fmt: skip
    metrics = run.results["metrics"]
    assert metrics["overall"]["value"] == 0 == metrics["copy_source"]["value"]
    assert metrics["changed_elsewhere"]["value"] == 0 and metrics["kept"]["value"] == 1
    assert metrics["overall"]["n"] == 16


def test_a_model_that_takes_no_pictures_is_refused_before_anything_is_made(task, tmp_path) -> None:
    with pytest.raises(UsageError, match="gives each prompt a source picture, and model 'dummy' takes none"):
        evaluate(
            "edit_stickers", "dummy", judge=TruthfulJudge(task), output=tmp_path / "run",
            tracking__enabled=False, quiet=True,
        )  # fmt: skip
    assert not (tmp_path / "run" / "images").exists()
