"""MME's form on sticker scenes: yes/no questions in pairs about existence, count, position and colour.

Measures: whether a model says yes to what a picture shows and no to what it does not. 480 questions, two a picture,
60 pictures in each of the four sub-tasks of MME that the sticker world can ask.
Paper: Fu et al., arXiv:2306.13394 (form and scoring; the questions are ours).
Data: made by `blip3o.stickers`, splits test_seen and test_unseen, level easy; nothing to download.
Scorer: that of `mme`: a sub-task's points are the mean over its pictures of the share of right answers (acc, 100) and
of whether both were right (acc+, 100). `accuracy` and `accuracy_plus` are the two parts over all pictures.

Worth: figures about sticker scenes only. A fair coin earns 75 points in every sub-task (`chance`: 300 of 800), a model
that always says yes or always no 50. Counts are never kept out of training: `seen_half` and `unseen_half` are sums over
the other three sub-tasks.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals.api import Metric, MetricValue, ScoreRow, Terms
from tasks.generation.geneval import Half
from tasks.understanding.metrics import Mean, to_value, unparsed_share, unscored
from tasks.understanding.mme import Mme, Points, Question
from tasks.understanding.stickers_base import (
    SPLITS,
    WORTH,
    Asked,
    OfficialStickerQuestions,
    make,
)

if TYPE_CHECKING:
    from blip3o.stickers import Scene

PICTURES = 60
"""Per sub-task."""
COIN_POINTS = 75.0
"""What a fair coin expects of a sub-task: half of the answers (50) and a quarter of the pairs (25)."""

# Sub-task -> the kinds of scene it is asked about, and what `questions` calls its aspect.
_ASKED_OF: Mapping[str, tuple[tuple[str, ...], str]] = {
    "existence": (("two_object",), "object"),
    "count": (("counting",), "count"),
    "position": (("position",), "position"),
    "color": (("colors", "color_attr"), "color"),
}
CATEGORIES = tuple(_ASKED_OF)
IN_BOTH_HALVES = ("existence", "position", "color")


class MmeStickers(OfficialStickerQuestions, Mme):
    """The task; see the module's card. The group is the sub-task."""

    name = "mme_stickers"
    version = "1"
    groups = CATEGORIES
    card = {
        "measures": "yes/no questions in pairs about existence, count, position and colour in sticker scenes",
        "paper": "form and scoring of MME, Fu et al., arXiv:2306.13394",
        "data": "480 questions about 240 scenes, splits test_seen and test_unseen, level easy",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "that of task mme",
        "worth": f"{WORTH} A fair coin earns 75 of 200 points in every sub-task, always yes or always no 50.",
    }

    def __init__(self) -> None:
        super().__init__()

    def ask(self) -> Sequence[Asked]:
        found: list[Asked] = []
        for category, (kinds, _) in _ASKED_OF.items():
            splits = SPLITS if category in IN_BOTH_HALVES else SPLITS[:1]
            for split in splits:
                for index in range(PICTURES // len(splits)):
                    found += self._pair(category, make(split, index, kinds))
        return found

    def _pair(self, category: str, scene: Scene) -> list[Asked]:
        """Both questions of one pair about the scene, in random order."""
        from blip3o.stickers.questions import questions
        from blip3o.stickers.rng import Stream

        draw = Stream("mme_stickers", category, scene.split, scene.index)
        aspect = _ASKED_OF[category][1]
        mine = [q for q in questions(scene) if q.kind == "yes_no" and q.aspect == aspect]
        pair = draw.choice(list(dict.fromkeys(q.pair for q in mine)))
        picture = f"{category}-{scene.split}-{scene.index:04d}"
        asked = []
        for place, q in enumerate(draw.shuffled([q for q in mine if q.pair == pair]), start=1):
            record = {
                "question_id": picture,
                "question": q.question,
                "answer": q.answer.capitalize(),
                "category": category,
            }
            doc = Question(picture, q.question, q.answer, category)
            asked.append(
                Asked(
                    id=f"{picture}-{place}",
                    group=category,
                    prompt=self.prompt(doc),
                    picture=picture,
                    scenes=(scene,),
                    record=record,
                    chance=0.5,
                    unit=self.unit(doc),
                )
            )
        return asked

    def metrics(self) -> Sequence[Metric]:
        """`perception`, its sub-tasks, acc and acc+, the halves, then what the figures are read beside."""
        halves: list[Any] = [
            Half(Points(name, IN_BOTH_HALVES), is_held_out=flag)  # type: ignore[arg-type]
            for name, flag in (("seen_half", False), ("unseen_half", True))
        ]
        return [
            Points("perception", CATEGORIES),
            *(Points(name, (name,)) for name in CATEGORIES),
            Mean("accuracy", cluster="pair"),
            PairsRight("accuracy_plus"),
            *halves,
            ChancePoints(),
            unparsed_share(),
            Points("perception_lmms_eval", CATEGORIES, "lmms_eval"),
        ]


@dataclass(frozen=True)
class PairsRight:
    """The share of pictures with both answers right, of those with both scored."""

    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        return to_value(self.name, estimate, unscored(rows))

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        pairs: dict[str, list[float]] = {}
        for row in rows:
            if row.score.value is not None:
                pairs.setdefault(str(row.score.details["pair"]), []).append(row.score.value)
        whole = {key: float(sum(v) == 2) for key, v in pairs.items() if len(v) == 2}
        return Terms(keys=tuple(whole), values=tuple(whole.values()), clusters=tuple(whole))


@dataclass(frozen=True)
class ChancePoints:
    """What a fair coin expects of `perception`, over the sub-tasks that it rests on."""

    name: str = "chance"
    unit: str = "points"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        terms = Points("perception", CATEGORIES).terms(rows)
        found = len(set(terms.strata or ()))
        return MetricValue(
            name=self.name,
            value=COIN_POINTS * found if found else None,
            n=2 * len(terms.values),
            unscored=unscored(rows),
            unit=self.unit,
            clusters=len(terms.values),
            note=None if found else "nothing was scored",
        )
