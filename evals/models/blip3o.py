"""BLIP3-o as a model of the harness: the bundled ``nano``, a folder, or a hub id.

Creating one reads JSON and digests only. ``load`` imports torch and builds ``Blip3oPipeline``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from evals.api import AnswerRequest, GenerationRequest, Identity, ModelOptions
from evals.digests import folder_digest
from evals.errors import ModelError, UsageError
from evals.models.hub import local_snapshot

# What decides a picture: weights, configurations, tokenizers.
_DIGESTED = (".safetensors", ".json", ".txt", ".model", ".jinja")


def create_nano(spec: str, options: ModelOptions) -> Blip3oModelAdapter:
    """The bundled model. Raises ModelError when its files are not there."""
    if spec:
        raise UsageError(f"model 'nano' takes no argument, got {spec!r}")
    folder = Path(str(resources.files("blip3o"))) / "weights" / "nano"
    if not folder.is_dir():
        raise ModelError(
            f"the bundled weights {folder} are missing: install blip3o-eval again, or rebuild them with "
            "`blip3o train nano`"
        )
    return Blip3oModelAdapter(folder, "nano", options)


def create_blip3o(spec: str, options: ModelOptions) -> Blip3oModelAdapter:
    """A folder or hub id. Raises UsageError or MissingRequirementError at once."""
    if not spec:
        raise UsageError(
            "model 'blip3o' needs a folder or a hub id: blip3o:FOLDER or blip3o:owner/name"
        )
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return Blip3oModelAdapter(folder, folder.resolve().name, options)
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise UsageError(
            f"model folder {spec} does not exist: give a folder of weights, a hub id, or nano"
        )
    return Blip3oModelAdapter(local_snapshot(spec, options.revision), spec, options)


class Blip3oModelAdapter:
    """ImageGenerator and Answerer around ``blip3o.pipeline.Blip3oPipeline``."""

    def __init__(self, folder: Path, name: str, options: ModelOptions) -> None:
        self.folder, self.name, self.options = folder, name, options
        self._pipeline: Any = None
        self._card = _read_card(folder)

    @cached_property
    def identity(self) -> Identity:
        card, options = self._card, self.options
        settings = {
            "dtype": card.get("dtype", "float32") if options.dtype == "auto" else options.dtype,
            **{
                key: wanted if wanted is not None else card.get(key)
                for key, wanted in (
                    ("guidance_scale", options.guidance_scale),
                    ("num_inference_steps", options.steps),
                    ("height", options.height),
                    ("width", options.width),
                )
            },
        }
        return Identity(
            name=self.name,
            version=str(card.get("version", "1")),
            digest=folder_digest(self.folder, _DIGESTED),
            domain=str(card.get("domain", "photos")),
            is_test_double=bool(card.get("is_random", False)),
            settings=settings,
            batch_size=int(card.get("batch_size", 8)),
            info={"revision": options.revision, "compat": card.get("compat", "default")},
        )

    @property
    def device(self) -> str:
        """Where the model runs: "auto" takes this process's CUDA device, else the CPU."""
        import torch

        wanted = self.options.device
        if wanted == "auto":
            rank = os.environ.get("LOCAL_RANK", "0")
            wanted = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(
                f"device {wanted!r}: no CUDA device is available here; give --device cpu"
            )
        return wanted

    def load(self) -> None:
        """Build the pipeline. Raises ModelError for missing, damaged or unsuitable weights."""
        import torch

        from blip3o.errors import Blip3oError
        from blip3o.pipeline import Blip3oPipeline

        dtype = getattr(torch, self.identity.settings["dtype"])
        try:
            with _outside_launcher():
                self._pipeline = Blip3oPipeline.from_pretrained(self.folder, dtype=dtype)
            self._pipeline.to(self.device)
        except Blip3oError as error:
            raise ModelError(f"model {self.name!r} cannot be loaded: {error}") from error

    def close(self) -> None:
        self._pipeline = None

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        if requests and requests[0].series:
            return self._generate_in_series(requests)
        return self._call(requests, [_generator(r.seed) for r in requests])

    def _generate_in_series(self, requests: Sequence[GenerationRequest]) -> list[Any]:
        """One picture at a time, the pictures of a sample from one generator, as the released scripts do."""
        images = []
        for _, group in groupby(requests, key=lambda r: r.sample_id):
            mine = list(group)
            generator = _generator(mine[0].seed)
            for request in mine:
                images += self._call([request], [generator])
        return images

    def _call(self, requests: Sequence[GenerationRequest], generators: list[Any]) -> list[Any]:
        first = requests[0]
        result = self._pipeline(
            [r.prompt for r in requests],
            generator=generators,
            guidance_scale=first.guidance_scale,
            num_inference_steps=first.steps,
            height=first.height,
            width=first.width,
        )
        return list(result.images)

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        return [
            self._pipeline.ask(r.images, r.prompt, max_new_tokens=r.max_new_tokens)
            for r in requests
        ]


def _generator(seed: int) -> Any:
    import torch

    # On the CPU, so that a seed means the same starting noise on every device.
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def _outside_launcher() -> Iterator[None]:
    """Hide torchrun's variables: transformers would switch to tensor parallelism when it sees them."""
    hidden = {k: os.environ.pop(k) for k in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if k in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _read_card(folder: Path) -> dict[str, Any]:
    """``blip3o.json`` of a weights folder: domain, dtype and defaults; {} for folders without one."""
    path = folder / "blip3o.json"
    if not path.exists():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error})") from None
    if not isinstance(card, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return card
