"""The task: its samples, its verdicts through a judge, its figures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from evals.api import (
    Detection,
    DetectionJudge,
    Identity,
    Output,
    Sample,
    Score,
    ScoreItem,
    ScoreRow,
    Task,
)
from evals.phases.plan import spread_evenly
from tasks.generation.geneval import TAGS, GenEval
from tasks.generation.geneval_rules import COLORS


class ScriptedJudge:
    """Answers what it was given, and remembers the classes whose colour was asked."""

    def __init__(self, *answers: Sequence[Detection], domain: str = "test") -> None:
        self.identity = Identity("scripted", "1", "0", domain, is_test_double=True)
        self.answers = answers
        self.asked: list[Sequence[str]] = []

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> Mapping[str, Any]:
        return {}

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        self.asked += color_classes
        return self.answers[: len(images)]


def logits(color: str) -> tuple[float, ...]:
    return tuple(float(name == color) for name in COLORS)


def seen(name: str, x: float = 0, color: str | None = None, pixel: str | None = None) -> Detection:
    extras = {"pixel_color": pixel} if pixel else {}
    box = (x, 0.0, x + 10, 10.0)
    return Detection(name, box, 0.95, color_logits=color and logits(color), extras=extras)


def item(spec: dict[str, Any]) -> ScoreItem:
    sample = Sample("00000", 0, spec["tag"], "p", spec)
    return ScoreItem(sample, Output("00000", 0, 1, path="x.png"))


RED_DOG = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}
TWO = {"tag": "two_object", "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}]}


def test_it_is_a_task_and_its_prompts_are_the_official_ones_in_order() -> None:
    task = GenEval()
    assert isinstance(task, Task)
    assert isinstance(ScriptedJudge(), DetectionJudge)
    samples = task.samples()
    assert len(samples) == len({s.id for s in samples}) == len({s.prompt for s in samples}) == 553
    assert [s.number for s in samples] == list(range(553))
    assert samples[0].prompt == "a photo of a bench" and samples[7].id == "00007"
    assert Counter(s.group for s in samples) == {
        "single_object": 80,
        "two_object": 99,
        "counting": 80,
        "colors": 94,
        "position": 100,
        "color_attr": 100,
    }
    assert list(samples[0].metadata) == ["tag", "include", "prompt"]
    assert tuple(dict.fromkeys(s.group for s in samples)) == task.groups == TAGS
    assert task.num_images == 4


def test_its_digest_is_that_of_the_upstream_file() -> None:
    task = GenEval()
    assert task.digest() == hashlib.sha256(task._raw).hexdigest()
    assert task.digest() == UPSTREAM_SHA256


UPSTREAM_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"


def test_a_limit_spreads_evenly_over_the_tags() -> None:
    task = GenEval()
    chosen = spread_evenly(task.samples(), task.groups, 12)
    assert Counter(s.group for s in chosen) == dict.fromkeys(TAGS, 2)
    assert chosen == spread_evenly(task.samples(), task.groups, 12)


def test_the_judge_is_asked_for_the_colours_of_coloured_classes_only() -> None:
    judge = ScriptedJudge([seen("dog", color="red")], [seen("dog")])
    scores = GenEval().score([item(RED_DOG), item(TWO)], judge)
    assert judge.asked == [["dog"], []]
    assert [s.value for s in scores] == [1.0, 0.0]
    assert scores[1].reason == "expected cat>=1, found 0"
    assert scores[0].details == {
        "detections": {"dog": [[0.0, 0.0, 10.0, 10.0, pytest.approx(0.95)]]},
        "colors": [{"class": "dog", "asked": "red", "color": "red"}],
    }


def test_a_judge_that_forgot_a_colour_leaves_the_picture_unscored() -> None:
    (score,) = GenEval().score([item(RED_DOG)], ScriptedJudge([seen("dog")]))
    assert score.value is None
    assert "no color_logits" in str(score.unscored_reason)


def test_a_judge_that_answers_for_fewer_pictures_is_an_error() -> None:
    with pytest.raises(ValueError):
        GenEval().score([item(TWO), item(TWO)], ScriptedJudge([seen("dog")]))
    with pytest.raises(ValueError, match="needs a judge"):
        GenEval().score([item(TWO)], None)


def test_in_the_sticker_world_colours_of_pixels_are_judged_beside() -> None:
    dog = seen("dog", color="red", pixel="blue")
    judge = ScriptedJudge([dog], [], domain="stickers")
    found, missing = GenEval().score([item(RED_DOG), item(RED_DOG)], judge)
    assert found.value == 1.0 and found.details["pixel_color_correct"] is False
    assert found.details["colors"][0]["pixel_color"] == "blue"
    assert missing.value == 0.0 and missing.details["pixel_color_correct"] is False
    assert isinstance(found.details["held_out"], bool)


def rows(values: Mapping[str, Sequence[float]], **details: Any) -> list[ScoreRow]:
    """Two pictures per prompt; prompts are numbered within their tag."""
    return [
        ScoreRow(f"{tag}-{i // 2}", i % 2, tag, Score(value, details=details))
        for tag, tag_values in values.items()
        for i, value in enumerate(tag_values)
    ]


def test_overall_is_the_plain_mean_of_six_tags_and_is_not_given_for_five() -> None:
    values = {tag: [1.0] * 2 * k + [0.0] * 2 for k, tag in enumerate(TAGS, start=1)}
    figures = {m.name: m.compute(rows(values)) for m in GenEval().metrics()}
    expected = {tag: k / (k + 1) for k, tag in enumerate(TAGS, start=1)}
    assert list(figures)[:7] == ["overall", *TAGS]
    for tag in TAGS:
        assert figures[tag].value == pytest.approx(expected[tag])
    assert figures["overall"].value == pytest.approx(sum(expected.values()) / 6)
    assert figures["overall"].clusters == sum(range(2, 8))
    lo, hi = figures["overall"].ci95
    assert lo < figures["overall"].value < hi
    del values["counting"]
    overall = GenEval().metrics()[0].compute(rows(values))
    assert overall.value is None and "counting" in str(overall.note)


def test_the_halves_hold_the_prompts_with_two_objects_and_nothing_of_real_models() -> None:
    tags = ("two_object", "position", "color_attr")
    mixed = rows({tag: [1.0, 1.0] for tag in tags}, held_out=False) + [
        ScoreRow(f"{tag}-other", 0, tag, Score(0.0, details={"held_out": True})) for tag in tags
    ]
    figures = {m.name: m.compute(mixed) for m in GenEval().metrics()}
    assert figures["seen_half"].value == 1.0 and figures["seen_half"].n == 6
    assert figures["unseen_half"].value == 0.0 and figures["unseen_half"].n == 3
    real = {m.name: m.compute(rows({tag: [1.0] for tag in tags})) for m in GenEval().metrics()}
    assert real["seen_half"].value is None and real["unseen_half"].value is None


def test_implausibly_few_detections_are_a_warning() -> None:
    def rows(found: int, empty: int, tag: str = "colors") -> list[ScoreRow]:
        details = [{"detections": {"dog": [[0, 0, 1, 1, 0.9]]}}] * found + [{"detections": {}}] * empty
        return [ScoreRow(str(i), 0, tag, Score(0.0, details=d)) for i, d in enumerate(details)]

    task = GenEval()
    (warning,) = task.warnings(rows(20, 80))
    assert "found no object in 80% of 100 pictures" in warning
    assert task.warnings(rows(50, 50)) == task.warnings(rows(0, 49)) == []
    assert task.warnings(rows(0, 90, "counting") + rows(60, 0)) == []  # its threshold is 0.9
    unscored = [ScoreRow("x", 0, "colors", Score.unscored("judge failed"))] * 90
    assert task.warnings(unscored) == []


def test_the_long_prompts_ask_for_the_same_and_stand_beside_rewritten_figures_only() -> None:
    from reports.published import rows_for
    from tasks.generation.geneval_long import GenEvalLong

    plain, long = GenEval(), GenEvalLong()
    for short, rewritten in zip(plain.samples(), long.samples(), strict=True):
        assert (short.id, short.group, short.number) == (rewritten.id, rewritten.group, rewritten.number)
        assert len(rewritten.prompt) > len(short.prompt)
        records = [{k: v for k, v in s.metadata.items() if k != "prompt"} for s in (short, rewritten)]
        assert records[0] == records[1]
    assert plain.digest() != long.digest()
    assert rows_for("geneval_long") and all(row.is_rewritten for row in rows_for("geneval_long"))
    assert any(not row.is_rewritten for row in rows_for("geneval"))
