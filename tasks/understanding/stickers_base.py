"""What the sticker editions of the question tasks share: held-out scenes, their pictures, chance, digests.

A question is a pure function of (task, split, index): scenes, wordings, wrong answers and the order of options come
from the counter-based streams of `blip3o.stickers`, so they are the same on every machine; nothing is downloaded.
Scenes are of level easy, from splits that training does not use. `test_seen` shows nothing that was kept out of
training; everything in `test_unseen` shows a (class, colour) pair, a pair of classes or a relation that was. The two
halves are reported apart.

Questions are asked in the words in which models of this world are trained, without a line that asks for a short
answer: a small model that never read such a line takes it for a caption. For models that answer in sentences a
subclass sets `prompt_end` to one.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from evals.api import MetricValue, Sample, Score, ScoreItem, ScoreRow
from evals.recorded import Field
from tasks.understanding.metrics import unscored

if TYPE_CHECKING:
    from blip3o.stickers import Scene

SPLITS = ("test_seen", "test_unseen")
WORTH = (
    "Sticker scenes only: no figure here compares with one on photographs. Read it beside the chance figure "
    "and beside the same model without its pictures."
)


@dataclass(frozen=True)
class Asked:
    """One question about one or more scenes.

    `picture` names what it is independent of other questions by. `record` is the document as its task reads it,
    `chance` the score that a uniform guess among the answers of the asked kind expects.
    """

    id: str
    group: str
    prompt: str
    picture: str
    scenes: tuple[Scene, ...]
    record: Mapping[str, Any]
    chance: float | None = None
    unit: str | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The document, and what places it: split, scene numbers, picture, chance."""
        place: dict[str, Any] = {
            "split": self.scenes[0].split,
            "scenes": [scene.index for scene in self.scenes],
            "picture": self.picture,
        }
        return {**self.record, **place} | ({} if self.chance is None else {"chance": self.chance})


def make(split: str, index: int, kinds: Sequence[str]) -> Scene:
    """The scene number `index` of a split, of one of these kinds, at level easy."""
    from blip3o.stickers import SceneConfig, make_scene

    config = SceneConfig.level("easy", kinds=tuple((kind, 1.0) for kind in kinds))
    return make_scene(split, index, config)


def make_counted(split: str, index: int, wanted: int) -> Scene:
    """A scene of 1 to 4 objects of one class, `wanted` of them: the first such one from number 40 * index on."""
    kind = "single_object" if wanted == 1 else "counting"
    return next(
        scene
        for number in count(40 * index)
        if len((scene := make(split, number, (kind,))).stickers) == wanted
    )


def balanced(index: int, n: int, *key: object) -> int:
    """A number below `n` for each index, in random order and each equally often over every `n` of them."""
    from blip3o.stickers.rng import Stream

    return Stream(*key, index // n).shuffled(range(n))[index % n]


class StickerQuestions(ABC):
    """The part of a task that makes samples from scenes and adds to each score where it comes from."""

    prompt_end: ClassVar[str] = ""
    """Appended to every question; a subclass with another one needs a name of its own."""
    max_new_tokens: ClassVar[int | None]
    stop: ClassVar[tuple[str, ...]]

    @abstractmethod
    def ask(self) -> Sequence[Asked]:
        """All questions in their order. Pure."""

    @abstractmethod
    def verdict(self, record: Mapping[str, Any], answer: str) -> Score:
        """The score of an answer, stripped of outer white space, to the question of a document."""

    @cached_property
    def _samples(self) -> list[Sample]:
        from PIL import Image

        from blip3o.stickers import render

        drawn: dict[Scene, Any] = {}
        samples = []
        for number, asked in enumerate(self.ask()):
            for scene in asked.scenes:
                if scene not in drawn:
                    drawn[scene] = Image.fromarray(render(scene).image)
            samples.append(
                Sample(
                    id=asked.id,
                    number=number,
                    group=asked.group,
                    prompt=asked.prompt,
                    metadata=asked.metadata,
                    images=tuple(drawn[scene] for scene in asked.scenes),
                    unit=asked.unit,
                    max_new_tokens=self.max_new_tokens,
                    stop=self.stop,
                )
            )
        return samples

    def samples(self) -> Sequence[Sample]:
        """The questions with their pictures (64 px, RGB); questions about one scene share one picture."""
        return self._samples

    def digest(self) -> str:
        """sha256 over ids, prompts, documents and pixels."""
        total = hashlib.sha256()
        for sample in self.samples():
            text = json.dumps([sample.id, sample.prompt, sample.metadata], sort_keys=True)
            total.update(text.encode())
            for image in sample.images:
                total.update(image.tobytes())
        return total.hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        return [
            placed(
                self.verdict(item.sample.metadata, (item.output.text or "").strip()),
                item.sample.metadata,
            )
            for item in items
        ]


class OfficialStickerQuestions(StickerQuestions):
    """A sticker edition whose documents an official task reads and judges; stands before that task among the bases."""

    def data_origin(self) -> Mapping[str, Any]:
        """Nothing: scenes are drawn when asked for, and no file of the official task is read."""
        return {}

    def prompt(self, doc: Any) -> str:
        text: str = doc.question + self.prompt_end
        return text

    def verdict(self, record: Mapping[str, Any], answer: str) -> Score:
        score: Score = self.judge(self.read(Field(dict(record), "sample")), answer)  # type: ignore[attr-defined]
        return score

    def _score_of(self, doc: Any, line: Field) -> Score:
        return placed_recorded(super()._score_of(doc, line), line["doc"])  # type: ignore[misc]


def placed(score: Score, record: Mapping[str, Any]) -> Score:
    """The score with `held_out`, `picture` and, where the question has one, `chance` among its details."""
    place = {"held_out": record["split"] == "test_unseen", "picture": record["picture"]}
    if "chance" in record:
        place["chance"] = record["chance"]
    return replace(score, details={**score.details, **place})


def placed_recorded(score: Score, doc: Field) -> Score:
    """The same for a recorded document. Raises InputError, naming the key, for one without its place."""
    place: dict[str, Any] = {key: doc[key].text() for key in ("split", "picture")}
    return placed(score, {**place, "chance": doc["chance"].number()})


@dataclass(frozen=True)
class Chance:
    """What uniform guessing among the answers of the asked kind expects on the scored questions.

    The mean of `chance` in their details, known exactly, so it has no interval.
    """

    name: str = "chance"
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        values = [float(row.score.details["chance"]) for row in rows if row.score.is_scored]
        clusters = {row.score.details["picture"] for row in rows if row.score.is_scored}
        return MetricValue(
            name=self.name,
            value=sum(values) / len(values) if values else None,
            n=len(values),
            unscored=unscored(rows),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            clusters=len(clusters),
            note=None if values else "nothing was scored",
        )
