"""A baseline without a network: fills the picture with the colour that the prompt names."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from evals.api import GenerationRequest, Identity, ModelOptions
from evals.errors import UsageError
from flat_colors.judge import COLORS

BLIP3O_EVAL_API = 1
SIZE_PX = 64


def create(spec: str, options: ModelOptions) -> "Painter":
    """`--model painter` or `--model painter:0.1`, the share of pixels that are left to chance.

    Cheap, and the place for checks: what is wrong or missing is said here, before anything starts.
    """
    try:
        noise = float(spec or 0.05)
    except ValueError:
        noise = -1.0
    if not 0 <= noise <= 1:
        raise UsageError(f"model 'painter': noise {spec!r} is not a number from 0 to 1")
    return Painter(noise)


class Painter:
    """An image generator: identity, load, generate, close."""

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.identity = Identity(
            name="painter",
            version="1",
            digest=hashlib.sha256(b"painter 1").hexdigest(),  # of the weights, where there are any
            domain="flat",  # what kind of pictures: decides which judge `auto` takes
            settings={"noise": noise},  # whatever changes a picture: resume is refused when it differs
            batch_size=8,  # what `auto` becomes
        )

    def load(self) -> None:
        """Build the network here; imports of torch belong here, too."""

    def close(self) -> None:
        """Free its memory."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        """One picture per request, in order; an Exception object in place of one that failed."""
        return [self._paint(request) for request in requests]

    def _paint(self, request: GenerationRequest) -> Any:
        from PIL import Image

        color = next((name for name in COLORS if name in request.prompt.split()), None)
        if color is None:
            return ValueError(f"no colour that I know in {request.prompt[:60]!r}")
        rng = random.Random(request.seed)  # the picture depends on the request alone
        image = Image.new("RGB", (request.width or SIZE_PX, request.height or SIZE_PX), COLORS[color])
        for _ in range(int(self.noise * image.width * image.height)):
            place = rng.randrange(image.width), rng.randrange(image.height)
            image.putpixel(place, tuple(rng.randbytes(3)))
        return image
