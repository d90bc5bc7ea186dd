"""A judge that reads pixels: the share of a picture that is nearest to each colour name."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import Identity, ModelOptions
from evals.errors import UsageError

BLIP3O_EVAL_API = 1

COLORS = {
    "red": (220, 30, 30),
    "orange": (240, 140, 20),
    "yellow": (245, 225, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 200),
    "purple": (130, 50, 160),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}


def create(spec: str, options: ModelOptions) -> "Pixels":
    """`--judge pixels`; takes no argument."""
    if spec:
        raise UsageError(f"judge 'pixels' takes no argument, got {spec!r}")
    return Pixels()


class Pixels:
    """Answers one question about a picture: how much of it has which colour."""

    def __init__(self) -> None:
        self.identity = Identity(
            name="pixels",
            version="1",
            digest=hashlib.sha256(repr(COLORS).encode()).hexdigest(),  # what its verdicts rest on
            domain="flat",  # pictures it was made for; others get a warning in the report
            batch_size=32,
        )

    def load(self) -> None:
        """Build the network here, where a judge has one."""

    def close(self) -> None:
        """Free its memory."""

    def accuracy(self) -> Mapping[str, Any]:
        """Measured figures of how right this judge is; {} says that nobody measured it."""
        return {}

    def color_shares(self, images: Sequence[Any]) -> list[dict[str, float]]:
        """Per picture, colour name -> share of its pixels (0 to 1) that are nearest to it in RGB."""
        import numpy as np

        names, table = list(COLORS), np.array(list(COLORS.values()), dtype=np.float64)
        found = []
        for image in images:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float64).reshape(-1, 1, 3)
            nearest = ((pixels - table) ** 2).sum(axis=2).argmin(axis=1)
            counts = np.bincount(nearest, minlength=len(names)) / len(nearest)
            found.append(dict(zip(names, counts.tolist(), strict=True)))
        return found
