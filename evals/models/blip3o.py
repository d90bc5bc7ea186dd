"""BLIP3-o as a model of the harness: the bundled ``nano``, a folder, or a hub id.

Creating one reads JSON and digests only. ``load`` imports torch and builds ``Blip3oPipeline``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.api import AnswerRequest, GenerationRequest, Identity, ModelOptions
from evals.errors import ModelError, UsageError, suggest
from evals.io.digests import folder_digest
from evals.models.devices import cpu_generator, draw, resolve_device
from evals.models.hub import local_snapshot

# What decides a picture: weights, configurations, tokenizers.
_DIGESTED = (".safetensors", ".json", ".txt", ".model", ".jinja")
# How answers are decoded, and what pictures they are given; part of what a run is.
SAMPLING = ("temperature", "top_p", "top_k")
_PIXELS = ("min_pixels", "max_pixels")
# These change the time that answers take, and nothing else beyond rounding.
_BATCHING = ("share_pictures", "by_length")
_ARGUMENTS = ("compat", "without_images", *SAMPLING, *_PIXELS, *_BATCHING)
_TINY_CARD = {"dtype": "float32", "domain": "test", "is_random": True, "batch_size": 8}


def create_nano(spec: str, options: ModelOptions) -> Blip3oAdapter:
    """The bundled model. Raises ModelError when its files are not there."""
    from blip3o.errors import WeightsError
    from blip3o.presets import preset_folder

    if spec:
        raise UsageError(f"model 'nano' takes no argument, got {spec!r}")
    _refuse_revision("model 'nano'", options)
    try:
        return Blip3oAdapter(preset_folder("nano"), "nano", options)
    except WeightsError as error:
        raise ModelError(str(error)) from error


def create_tiny(spec: str, options: ModelOptions) -> Blip3oAdapter:
    """Random weights, for tests: real code, no meaning."""
    _refuse_revision("model 'tiny'", options)
    return Blip3oAdapter(None, "tiny", options)


def create_4b(spec: str, options: ModelOptions) -> Blip3oAdapter:
    """The released 4B model."""
    return _from_hub_preset("blip3o-4b", options)


def create_8b(spec: str, options: ModelOptions) -> Blip3oAdapter:
    """The released 8B model."""
    return _from_hub_preset("blip3o-8b", options)


def _refuse_revision(what: str, options: ModelOptions) -> None:
    if options.revision is not None:
        raise UsageError(
            f"{what} has no revisions, got --revision {options.revision}: only hub ids have"
        )


def _from_hub_preset(name: str, options: ModelOptions) -> Blip3oAdapter:
    from blip3o.presets import PRESETS

    hub_id = PRESETS[name].hub_id
    assert hub_id is not None
    return Blip3oAdapter(local_snapshot(hub_id, options.revision), name, options)


def create_blip3o(spec: str, options: ModelOptions) -> Blip3oAdapter:
    """A folder or hub id. Raises UsageError or MissingRequirementError at once."""
    if not spec:
        raise UsageError(
            "model 'blip3o' needs a folder or a hub id: blip3o:FOLDER or blip3o:owner/name"
        )
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"model folder {spec} has no config.json: it holds no BLIP3-o weights")
        _refuse_revision(f"model folder {spec}", options)
        return Blip3oAdapter(folder, folder.resolve().name, options)
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise UsageError(
            f"model folder {spec} does not exist: give a folder of weights, a hub id, or nano"
        )
    return Blip3oAdapter(local_snapshot(spec, options.revision), spec, options)


class Blip3oAdapter:
    """ImageGenerator and Answerer around ``blip3o.pipeline.Blip3oPipeline``.

    ``folder`` None means the random ``tiny`` preset. Further arguments (``--set model.args.X=...``):
    ``compat``, "default" or "released"; ``without_images`` true leaves out the pictures of questions and of editing
    tasks, the blind baseline that shows what the words alone give; ``temperature``, ``top_p`` and ``top_k`` draw
    answers instead of taking the likeliest token; ``min_pixels`` and ``max_pixels`` bound how large pictures are read;
    ``share_pictures`` and ``by_length`` false switch off what makes many answers fast (for comparison).
    """

    takes_images = True
    # A call reads each picture once for all of its questions and cuts them by the free memory.
    answer_batch_size = 64

    def __init__(self, folder: Path | None, name: str, options: ModelOptions) -> None:
        self.folder, self.name, self.options = folder, name, options
        self._pipeline: Any = None
        self._card: dict[str, Any] = _TINY_CARD if folder is None else _read_card(folder)
        self._check_options()

    def _check_options(self) -> None:
        for key in self.options.extra:
            if key not in _ARGUMENTS:
                raise UsageError(f"unknown key 'model.args.{key}'.{suggest(key, _ARGUMENTS)}")
        for key in ("without_images", *_BATCHING):
            if not isinstance(self.options.extra.get(key, False), bool):
                raise UsageError(f"model.args.{key} must be true or false")
        compat = self.options.extra.get("compat")
        if compat not in (None, "default", "released"):
            raise UsageError(f"model.args.compat = {compat!r} is not allowed: default or released")
        for key, wanted in (("height", self.options.height), ("width", self.options.width)):
            own = self._card.get(key)
            if wanted is not None and own is not None and wanted != own:
                raise UsageError(
                    f"{key} {wanted} is not allowed: model {self.name!r} makes pictures of {own} pixels"
                )

    @cached_property
    def identity(self) -> Identity:
        """Digests are read here, once. A value of None in the settings is the model's own default."""
        card, options = self._card, self.options
        wanted = {
            "guidance_scale": options.guidance_scale,
            "num_inference_steps": options.steps,
            "height": options.height,
            "width": options.width,
            "compat": options.extra.get("compat"),
        }
        settings = {key: card.get(key) if v is None else v for key, v in wanted.items()}
        settings["dtype"] = card["dtype"] if options.dtype == "auto" else options.dtype
        if options.extra.get("without_images"):
            settings["without_images"] = True
        settings |= {k: options.extra[k] for k in (*SAMPLING, *_PIXELS) if k in options.extra}
        return Identity(
            name=self.name,
            version=str(card.get("version", "1")),
            digest=self._digest(),
            domain=str(card.get("domain", "photos")),
            is_test_double=bool(card.get("is_random", False)),
            settings=settings,
            batch_size=int(card.get("batch_size", 8)),
            info={"revision": options.revision},
        )

    def _digest(self) -> str:
        if self.folder is None:
            return hashlib.sha256(b"blip3o tiny, random weights from seed 0").hexdigest()
        return folder_digest(self.folder, _DIGESTED)

    @property
    def device(self) -> str:
        """Where the model runs: "auto" takes this process's CUDA device, else the CPU."""
        return resolve_device(self.options.device)

    def load(self) -> None:
        """Build the pipeline. Raises ModelError for missing, damaged or unsuitable weights."""
        import torch

        from blip3o.errors import Blip3oError
        from blip3o.pipeline import Blip3oPipeline

        dtype, device = getattr(torch, self.identity.settings["dtype"]), self.device
        try:
            self._pipeline = Blip3oPipeline.from_pretrained(
                self.folder or "tiny",
                dtype=dtype,
                device=device,
                compat=self.options.extra.get("compat"),
                **{key: self.options.extra[key] for key in _PIXELS if key in self.options.extra},
            )
        except Blip3oError as error:
            raise ModelError(f"model {self.name!r} cannot be loaded: {error}") from error
        self._pipeline.set_progress_bar_config(disable=True)  # the run has a bar of its own

    def close(self) -> None:
        self._pipeline = None

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        return draw(requests, self._call)

    def _call(self, requests: Sequence[GenerationRequest], generators: list[Any]) -> list[Any]:
        from blip3o.errors import ConfigError, WeightsError

        first = requests[0]
        blind = bool(self.options.extra.get("without_images"))
        images = [list(r.images) for r in requests] if first.images and not blind else None
        try:
            result = self._pipeline(
                [r.prompt for r in requests],
                images,
                generator=generators,
                guidance_scale=first.guidance_scale,
                num_inference_steps=first.steps,
                height=first.height,
                width=first.width,
            )
        except (ConfigError, WeightsError) as error:  # wrong for every sample alike
            raise ModelError(f"model {self.name!r}: {error}") from error
        return list(result.images)

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        found: list[str] = [""] * len(requests)
        for sampling, places in self._by_sampling(requests):
            mine = [requests[place] for place in places]
            texts = self._pipeline.ask_batch(
                [self._pictures(r) for r in mine],
                [r.prompt for r in mine],
                max_new_tokens=[r.max_new_tokens for r in mine],
                stop=[tuple(end for end in r.stop if end) for r in mine],
                generator=[cpu_generator(r.seed) for r in mine],
                **sampling,
                **self._batching,
            )
            for place, text in zip(places, texts, strict=True):
                found[place] = text
        return found

    def log_likelihoods(
        self, requests: Sequence[AnswerRequest], continuations: Sequence[str]
    ) -> Sequence[float]:
        """See ``evals.api.LikelihoodModel``. Continuations of one request in a row are read after one prompt."""
        questions: list[AnswerRequest] = []
        choices: list[list[str]] = []
        for request, text in zip(requests, continuations, strict=True):
            last = questions[-1] if questions else None
            if last is None or last.prompt != request.prompt or last.images is not request.images:
                questions.append(request)
                choices.append([])
            choices[-1].append(text)
        scores = self._pipeline.score_choices(
            [self._pictures(r) for r in questions],
            [r.prompt for r in questions],
            choices,
            **self._batching,
        )
        return [value for one in scores for value in one.log_likelihoods]

    def _pictures(self, request: AnswerRequest) -> list[Any]:
        return [] if self.options.extra.get("without_images") else list(request.images)

    @property
    def _batching(self) -> dict[str, Any]:
        known = ("share_pictures", "by_length")
        return {key: self.options.extra[key] for key in known if key in self.options.extra}

    def _by_sampling(
        self, requests: Sequence[AnswerRequest]
    ) -> list[tuple[dict[str, Any], list[int]]]:
        """Places of requests that are decoded alike; what a task asks for goes before the model's own arguments."""
        own = {key: self.options.extra[key] for key in SAMPLING if key in self.options.extra}
        groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
        for place, request in enumerate(requests):
            sampling = {**own, **request.sampling}
            key = json.dumps(sampling, sort_keys=True)
            groups.setdefault(key, (sampling, []))[1].append(place)
        return list(groups.values())


def _read_card(folder: Path) -> dict[str, Any]:
    """``blip3o.json`` of a weights folder: domain, precision, defaults.

    The released checkpoints have none; they were published in float16.
    """
    path = folder / "blip3o.json"
    if not path.exists():
        return {"dtype": "float16"}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error})") from None
    if not isinstance(card, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return {"dtype": "float32", **card}
