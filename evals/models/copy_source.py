"""A baseline for editing: the source picture, unchanged. A score that does not beat it is no editing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

from evals.api import GenerationRequest, Identity, ModelOptions
from evals.errors import UsageError


def create(spec: str, options: ModelOptions) -> CopySource:
    if spec:
        raise UsageError(f"model 'copy-source' takes no argument, got {spec!r}")
    return CopySource()


class CopySource:
    """ImageEditor without a network."""

    takes_images = True

    def __init__(self) -> None:
        self.identity = Identity(
            name="copy-source",
            version="1",
            digest=hashlib.sha256(b"copy-source 1").hexdigest(),
            domain="unknown",
            batch_size=32,
        )

    def load(self) -> None: ...

    def close(self) -> None: ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        return [_picture(request) for request in requests]


def _picture(request: GenerationRequest) -> Any:
    from PIL import Image

    if not request.images:
        return UsageError(f"sample {request.sample_id} has no source picture to copy")
    source = request.images[0]
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    return (source if isinstance(source, Image.Image) else Image.open(source)).convert("RGB")
