"""A small generation task and a small question task, so that harness tests depend on no benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from evals.api import Sample, Score, ScoreItem
from evals.metrics.accuracy import GroupMean, MeanOfGroups


class FruitTask:
    """Asks for fruit; a picture is right if the fake judge finds the fruit in it."""

    name = "fruit"
    version = "1"
    kind = "generation"
    groups = ("one", "two", "colors")
    num_images = 4
    judges = {"stickers": "stickers"}
    card = {"measures": "fruit"}

    def __init__(self, per_group: int = 8) -> None:
        self._samples = [
            Sample(
                id=f"fruit-{number:03d}",
                number=number,
                group=group,
                prompt=f"a photo of {words} apple {number}",
                metadata={"tag": group, "prompt": f"a photo of {words} apple {number}"},
            )
            for number, (group, words) in enumerate(
                (g, w)
                for g, w in (("one", "an"), ("two", "two"), ("colors", "a red"))
                for _ in range(per_group)
            )
        ]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def digest(self) -> str:
        return hashlib.sha256("\n".join(s.prompt for s in self._samples).encode()).hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: object) -> Sequence[Score]:
        wanted = [["apple"] if i.sample.group == "colors" else [] for i in items]
        found = judge.detect([i.image for i in items], wanted)
        return [
            Score(float(len(f) > 0), reason="" if f else "no fruit", details={"found": len(f)})
            for f in found
        ]

    def metrics(self) -> Sequence[object]:
        return [MeanOfGroups(self.groups), *(GroupMean(g, g) for g in self.groups)]


class QuizTask(FruitTask):
    """The same samples as questions; right if the answer is "yes"."""

    name = "quiz"
    kind = "understanding"
    num_images = 1
    judges: dict[str, str] = {}

    def score(self, items: Sequence[ScoreItem], judge: object) -> Sequence[Score]:
        assert judge is None
        return [
            Score(float(i.output.text == "yes"), answer=i.output.text)
            if i.output.text in ("yes", "no")
            else Score.unscored("neither yes nor no")
            for i in items
        ]


@pytest.fixture
def fruit() -> FruitTask:
    return FruitTask()


@pytest.fixture
def quiz() -> QuizTask:
    return QuizTask()
