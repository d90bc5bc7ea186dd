"""Fake model for tests: pictures and texts from a hash of the request. Never a default.

The prompt is written into the pixels (first rows: length and UTF-8 bytes as grey values, then noise
from the seed), so that the fake judge can pretend to have seen what was asked for.

``dummy`` takes arguments after a colon: ``dummy:fail_every=7,seconds=0.01,size=32``. Among them are
the faults that a harness has to survive: raising, hanging, dying, running out of memory.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import AnswerRequest, GenerationRequest, Identity, ModelOptions
from evals.settings.arguments import parse_arguments

SIZE_PX = 64


@dataclass(frozen=True)
class _Arguments:
    fail_every: int = 0  # an exception for every n-th request, by hash; 0: never
    raise_every: int = 0  # the same, but the whole call raises
    seconds: float = 0.0  # per request
    size: int = SIZE_PX
    oom_above: int = 0  # MemoryError for calls of more requests; 0: never
    hang_every: int = 0  # never answers, every n-th request by hash
    exit_every: int = 0  # ends the process with exit code 3
    crash_every: int = 0  # ends it with a segmentation fault


def create(spec: str, options: ModelOptions) -> DummyModel:
    return DummyModel(parse_arguments("dummy", spec, _Arguments))


class DummyModel:
    """ImageGenerator and Answerer without a network."""

    def __init__(self, arguments: _Arguments | None = None) -> None:
        self.arguments = arguments or _Arguments()
        self.is_loaded = False
        self.identity = Identity(
            name="dummy",
            version="1",
            digest=hashlib.sha256(b"dummy model 1").hexdigest(),
            domain="test",
            is_test_double=True,
            settings={"size": self.arguments.size},
            batch_size=8,
        )

    def load(self) -> None:
        self.is_loaded = True

    def close(self) -> None:
        self.is_loaded = False

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        self._pretend(requests)
        return [self._failure(r) or self._picture(r) for r in requests]

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        self._pretend(requests)
        words = ("yes", "no", "A", "B", "2", "red")
        return [self._failure(r) or words[_hash(r.prompt, r.seed) % len(words)] for r in requests]

    def _pretend(self, requests: Sequence[Any]) -> None:
        time.sleep(self.arguments.seconds * len(requests))
        wanted = self.arguments
        if wanted.oom_above and len(requests) > wanted.oom_above:
            raise MemoryError(f"dummy model has no memory for {len(requests)} requests")
        for request in requests:
            name, number = request.sample_id, _hash(request.sample_id, request.seed)
            if wanted.raise_every and number % wanted.raise_every == 0:
                raise RuntimeError(f"dummy model was told to raise on {name}")
            if wanted.exit_every and number % wanted.exit_every == 0:
                os._exit(3)
            if wanted.crash_every and number % wanted.crash_every == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            while wanted.hang_every and number % wanted.hang_every == 0:
                time.sleep(60)

    def _failure(self, request: Any) -> Exception | None:
        every = self.arguments.fail_every
        if every and _hash(request.sample_id, request.seed) % every == 0:
            return RuntimeError(f"dummy model was told to fail on {request.sample_id}")
        return None

    def _picture(self, request: GenerationRequest) -> Any:
        from PIL import Image

        width = request.width or self.arguments.size
        height = request.height or self.arguments.size
        count = request.image_index if request.series else 0
        noise = random.Random(request.seed + count).randbytes(width * height * 3)
        text = request.prompt.encode()[: width * height // 4]
        head = bytes(b for byte in (len(text) >> 8, len(text) & 255, *text) for b in (byte,) * 3)
        return Image.frombytes("RGB", (width, height), head + noise[len(head) :])


def read_prompt(image: Any) -> str:
    """The prompt that ``DummyModel`` wrote into a picture; "" for any other picture."""
    pixels = image.convert("RGB").getchannel(0).tobytes()
    length = pixels[0] << 8 | pixels[1] if len(pixels) > 2 else 0
    return pixels[2 : 2 + length].decode(errors="ignore")


def _hash(*parts: object) -> int:
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
