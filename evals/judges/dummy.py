"""Fake judge for tests: scripted detections for pictures of the fake model. Never a default.

It reads the prompt that ``evals.models.dummy`` wrote into the picture and, depending on a hash of the
pixels, reports what was asked for or leaves an object, a colour or a place wrong. So reports and
statistics see all kinds of verdicts, without a network.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import Detection, Identity, ModelOptions
from evals.models.dummy import read_prompt
from evals.settings.arguments import parse_arguments

_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
_COUNTS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
_RELATIONS = re.compile(r" (left of|right of|above|below) ")


@dataclass(frozen=True)
class _Arguments:
    accuracy: float = 0.7  # share of objects that are reported as asked for
    fail_every: int = 0  # raise on every n-th picture, by hash; 0: never
    seconds: float = 0.0  # per picture
    exit_every: int = 0  # ends the process with exit code 3, every n-th picture by hash
    hang_every: int = 0  # never answers


def create(spec: str, options: ModelOptions) -> DummyJudge:
    return DummyJudge(parse_arguments("dummy", spec, _Arguments))


class DummyJudge:
    """DetectionJudge, QuestionJudge, ProbabilityJudge and InstructedJudge without a network."""

    instruction: str | None = None

    def __init__(self, arguments: _Arguments | None = None) -> None:
        self.arguments = arguments or _Arguments()
        self.is_loaded = False
        self.identity = Identity(
            name="dummy",
            version="1",
            digest=hashlib.sha256(b"dummy judge 1").hexdigest(),
            domain="test",
            is_test_double=True,
            settings={"accuracy": self.arguments.accuracy},
            batch_size=16,
        )

    def load(self) -> None:
        self.is_loaded = True

    def close(self) -> None:
        self.is_loaded = False

    def accuracy(self) -> Mapping[str, Any]:
        return {"scripted": self.arguments.accuracy}

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        time.sleep(self.arguments.seconds * len(images))
        return [self._detect(i, set(c)) for i, c in zip(images, color_classes, strict=True)]

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        return [
            "yes" if self._random(i, q).random() < self.arguments.accuracy else "no"
            for i, q in zip(images, questions, strict=True)
        ]

    def probability(self, images: Sequence[Any], questions: Sequence[str], answer: str) -> Sequence[float]:
        return [self._random(i, q + answer).random() for i, q in zip(images, questions, strict=True)]

    def reply(self, images: Sequence[Any], instructions: Sequence[str], max_tokens: int) -> Sequence[str]:
        """Marks of every kind that a task of this package asks for."""
        drawn = [self._random(i, text) for i, text in zip(images, instructions, strict=True)]
        return [
            f"Score: {int(rng.random() < self.arguments.accuracy)}\nConsistency: {rng.randrange(3)}\n"
            f"Realism: {rng.randrange(3)}\nAesthetic Quality: {rng.randrange(3)}"
            for rng in drawn
        ]

    def _random(self, image: Any, salt: str = "") -> random.Random:
        return random.Random(hashlib.sha256(image.tobytes() + salt.encode()).digest())

    def _detect(self, image: Any, color_classes: set[str]) -> list[Detection]:
        rng = self._random(image)
        every = self.arguments.fail_every
        if every and rng.randrange(2**32) % every == 0:
            raise RuntimeError("dummy judge was told to fail on this picture")
        number = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:4], "big")
        if self.arguments.exit_every and number % self.arguments.exit_every == 0:
            os._exit(3)
        while self.arguments.hang_every and number % self.arguments.hang_every == 0:
            time.sleep(60)
        text = read_prompt(image).removeprefix("a photo of ")
        parts = re.split(r" and | left of | right of | above | below ", text)
        relation = _RELATIONS.search(f" {text} ")
        found: list[Detection] = []
        for number, part in enumerate(parts):
            for copy in range(_count_and_rest(part)[0]):
                if rng.random() >= self.arguments.accuracy ** (1 / len(parts)):
                    continue
                place = _place(number, copy, relation[1] if relation else "", len(parts))
                found.append(self._detection(part, place, image.size, color_classes, rng))
        return found

    def _detection(
        self,
        part: str,
        place: tuple[float, float],
        size: tuple[int, int],
        color_classes: set[str],
        rng: random.Random,
    ) -> Detection:
        _, name = _count_and_rest(part)
        color, _, rest = name.partition(" ")
        color, name = (color, rest) if color in _COLORS and rest else ("red", name)
        if rng.random() > self.arguments.accuracy:
            color = rng.choice(_COLORS)
        logits = tuple(30.0 if c == color else 20.0 for c in _COLORS)
        (width, height), (x, y) = size, place
        box = (
            round(x * width),
            round(y * height),
            round((x + 0.2) * width),
            round((y + 0.2) * height),
        )
        asked = name in color_classes
        return Detection(
            name,
            tuple(map(float, box)),  # type: ignore[arg-type]
            0.95,
            color_logits=logits if asked else None,
            extras={"pixel_color": color} if asked else {},
        )


def _count_and_rest(part: str) -> tuple[int, str]:
    first, _, rest = part.strip().partition(" ")
    count = _COUNTS.get(first, 0)
    if not count:
        return 1, part.strip()
    return count, rest if count == 1 else _singular(rest)


def _singular(plural: str) -> str:
    for end, instead in (
        ("knives", "knife"),
        ("people", "person"),
        ("mice", "mouse"),
        ("sheep", "sheep"),
    ):
        if plural.endswith(end):
            return plural.removesuffix(end) + instead
    for end in ("uses", "sses", "ches", "shes", "xes"):
        if plural.endswith(end):
            return plural.removesuffix("es")
    return plural.removesuffix("s")


def _place(number: int, copy: int, relation: str, parts: int) -> tuple[float, float]:
    """Where a part stands: the first of two objects is the one placed, the second the reference."""
    if parts == 1:
        return 0.05 + 0.22 * copy, 0.4
    first, second = {
        "left of": ((0.05, 0.4), (0.7, 0.4)),
        "right of": ((0.7, 0.4), (0.05, 0.4)),
        "above": ((0.4, 0.05), (0.4, 0.7)),
        "below": ((0.4, 0.7), (0.4, 0.05)),
    }.get(relation, ((0.05, 0.4), (0.7, 0.4)))
    return first if number == 0 else second
