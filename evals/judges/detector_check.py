"""Does the detector see at all? A picture with a known answer before a run, and a share of empty pictures during it.

Published GenEval figures were wrong by this: a missing GPU build or the wrong weights give pictures without a single
object, verdicts without an error, and an overall score of 0.03 for a good model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from evals.errors import JudgeError

if TYPE_CHECKING:
    from PIL import Image

    from evals.judges.clip_colors import ClipColors
    from evals.judges.mask2former import Mask2Former

log = logging.getLogger("evals")

KNOWN_CLASS = "person"
MIN_SCORE = 0.5
MIN_SHARE = 0.25
"""Of the known picture that the person's box must cover; she covers most of it."""
MIN_COLORS = 6
"""Of ten plain coloured squares that must be named right; guessing names one."""
OBJECT_SCORE = 0.3
"""From here on GenEval counts a detection."""
MIN_PICTURES = 50
MIN_DETECTION_RATE = 0.5
"""Share of pictures with an object. Generators of 2022 already reach 0.9, as each prompt names an object."""

_RGB = {
    "red": (220, 20, 20), "orange": (255, 140, 0), "yellow": (255, 230, 0), "green": (20, 150, 40),
    "blue": (20, 60, 220), "purple": (120, 30, 160), "pink": (255, 150, 190), "brown": (110, 65, 25),
    "black": (10, 10, 10), "white": (250, 250, 250),
}  # fmt: skip


def check_detector(detector: Mask2Former, classes: Sequence[str], source: str) -> None:
    """Finds the person in a public-domain portrait, and none in plain grey. Raises JudgeError if it does not.

    The second half is for networks that answer the same whatever they are shown.
    """
    import io

    from PIL import Image

    data = resources.files("evals").joinpath("data/geneval_check/grace_hopper.jpg").read_bytes()
    portrait = Image.open(io.BytesIO(data)).convert("RGB")
    plain = Image.new("RGB", portrait.size, (128, 128, 128))
    (score, share), (score_in_grey, _) = (
        _best_person(detector, classes, picture) for picture in (portrait, plain)
    )
    if score >= MIN_SCORE and share >= MIN_SHARE and score_in_grey < MIN_SCORE:
        return
    raise JudgeError(
        f"the detector of {source} fails the self-test: on the portrait of a person it answers 'person' with score "
        f"{score:.2f} on {share:.0%} of the picture, expected at least {MIN_SCORE} on {MIN_SHARE:.0%}; on plain grey "
        f"with {score_in_grey:.2f}, expected less. Its weights are not what they should be, or this torch computes "
        "wrongly on this device (try --device cpu); --set judge.args.self_test=false judges all the same"
    )


def _best_person(
    detector: Mask2Former, classes: Sequence[str], picture: Image.Image
) -> tuple[float, float]:
    """(score, share of the picture in the box) of the best person; zeros without one."""
    (found,) = detector.find([picture], keep_masks_above=2.0)
    people = [one for one in found if classes[one.label] == KNOWN_CLASS]
    if not people:
        return 0.0, 0.0
    best = max(people, key=lambda one: one.score)
    x1, y1, x2, y2 = best.box
    return best.score, (x2 - x1) * (y2 - y1) / (picture.width * picture.height)


def check_colors(colors: ClipColors, source: str) -> None:
    """Names plain coloured squares. Raises JudgeError if too few are right."""
    from PIL import Image

    from evals.judges.clip_colors import COLORS

    squares = [Image.new("RGB", (64, 64), _RGB[color]) for color in COLORS]
    rows = colors.logits(squares, ["object"] * len(squares))
    named = [COLORS[max(range(len(row)), key=row.__getitem__)] for row in rows]
    right = sum(said == color for said, color in zip(named, COLORS, strict=True))
    if right < MIN_COLORS:
        raise JudgeError(
            f"the colour classifier {source} fails the self-test: it names {right} of {len(COLORS)} plain coloured "
            f"squares right, expected at least {MIN_COLORS}. Its weights are not CLIP ViT-L/14 of OpenAI; "
            "--set judge.args.self_test=false judges all the same"
        )


class DetectionWatch:
    """Warns once when implausibly many pictures hold no object."""

    def __init__(self) -> None:
        self._pictures = self._empty = 0
        self._has_warned = False

    def see(self, best_score: float) -> None:
        """One picture, by the score of its best detection (0 if it has none)."""
        self._pictures += 1
        self._empty += not best_score > OBJECT_SCORE
        if self._has_warned or self._pictures < MIN_PICTURES:
            return
        if self._pictures - self._empty < MIN_DETECTION_RATE * self._pictures:
            self._has_warned = True
            log.warning(
                "the detector found no object in %d of %d pictures: if they are not blank, its weights or this "
                "device are at fault, and the score will be far too low",
                self._empty,
                self._pictures,
            )
