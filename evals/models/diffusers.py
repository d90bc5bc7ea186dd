"""`diffusers:ID`: any text-to-image pipeline of diffusers, from a folder or a hub id.

Creating one reads JSON and the heads of weights files; ``load`` imports torch and diffusers. The pipeline is
called as it is: what nobody gave (guidance, steps, size) is its own default. Every picture has a CPU generator of
its own, so a seed means the same picture at any batch size, up to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.api import GenerationRequest, Identity, ModelOptions
from evals.errors import ModelError, UsageError, shown, suggest
from evals.models.devices import draw, resolve_device
from evals.models.diffusers_files import HUB_FILES, PipelineFiles, read_pipeline
from evals.models.hub import local_snapshot
from evals.phases.calls import one_line

_ARGUMENTS = ("variant", "offload", "without", "call")
_OFFLOADS = ("none", "model", "sequential")
_BATCH_SIZE = 4
# Argument of the pipeline's call -> the option of a run that gives it.
_NAMES = {
    "guidance_scale": "guidance_scale",
    "num_inference_steps": "steps",
    "height": "height",
    "width": "width",
}
_OURS = ("prompt", "generator", "num_images_per_prompt", "output_type", "return_dict", *_NAMES)
# Pipelines that start from a picture; those of the same family that do not take their place.
_FROM_PICTURES = re.compile(r"Img2Img|Inpaint|Edit|ControlNet|Upscale|Pix2Pix|Depth2|Adapter")


class SafetyFilterError(Exception):
    """The pipeline's safety checker blanked the picture."""


class BlackPictureError(Exception):
    """All pixels are 0: a safety filter that says nothing, or numbers that overflowed."""


def create(spec: str, options: ModelOptions) -> DiffusersModel:
    """Factory for `--model diffusers:ID`. Raises UsageError, MissingRequirementError or ModelError at once."""
    if not spec:
        raise UsageError(
            "model 'diffusers' needs a folder or a hub id: diffusers:FOLDER or diffusers:owner/name"
        )
    _check_arguments(options.extra)
    variant, without = options.extra.get("variant"), options.extra.get("without", ())
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if options.revision is not None:
            raise UsageError(
                f"model folder {spec} has no revisions, got --revision {options.revision}: only hub ids have"
            )
        name = f"diffusers:{folder.resolve().name}"
        return DiffusersModel(read_pipeline(folder, variant, without), name, options)
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise UsageError(
            f"model folder {spec} does not exist: give a folder that DiffusionPipeline.save_pretrained wrote, or "
            "a hub id (owner/name)"
        )
    folder = local_snapshot(spec, options.revision, HUB_FILES)
    files = read_pipeline(folder, variant, without)
    return DiffusersModel(files, f"diffusers:{spec}", options, commit=folder.name)


def _check_arguments(extra: Mapping[str, Any]) -> None:
    for key in extra:
        if key not in _ARGUMENTS:
            raise UsageError(f"unknown key 'model.args.{key}'.{suggest(key, _ARGUMENTS)}")
    offload, variant, call = extra.get("offload", "none"), extra.get("variant"), extra.get("call", {})
    if offload not in _OFFLOADS:
        raise UsageError(f"model.args.offload = {shown(offload)}: give {', '.join(_OFFLOADS)}")
    if variant is not None and not (isinstance(variant, str) and re.fullmatch(r"[\w-]+", variant)):
        raise UsageError(f"model.args.variant = {shown(variant)}: give a name such as fp16")
    without = extra.get("without", [])
    if not (isinstance(without, list) and all(isinstance(name, str) for name in without)):
        raise UsageError(
            f"model.args.without = {shown(without)}: give a list of components, such as [safety_checker]"
        )
    if not isinstance(call, Mapping):
        raise UsageError(f"model.args.call = {shown(call)}: give a map of names to values")
    for key in call:
        if key in _OURS:
            option = _NAMES.get(key)
            hint = f"give --{option.replace('_', '-')}" if option else "the run sets it"
            raise UsageError(f"model.args.call.{key} is not allowed: {hint}")


class DiffusersModel:
    """ImageGenerator around one pipeline.

    Further arguments (``--set model.args.X=...``): ``variant``, such as fp16; ``offload``, "model" or "sequential",
    to spare memory of the device; ``without``, components to leave out, such as ``[safety_checker]`` or
    ``[text_encoder_3, tokenizer_3]``; ``call``, further arguments of the pipeline's call, such as
    ``{negative_prompt: blurry, max_sequence_length: 256}``.
    """

    def __init__(
        self, files: PipelineFiles, name: str, options: ModelOptions, commit: str | None = None
    ) -> None:
        self.files, self.name, self.options, self.commit = files, name, options, commit
        self._pipeline: Any = None
        self._cuts = _CutPrompts()

    @cached_property
    def identity(self) -> Identity:
        """Digests are read here, once. A value of None in the settings is the pipeline's own default."""
        options, extra = self.options, self.options.extra
        settings: dict[str, Any] = {
            "pipeline": self.files.class_name,
            "dtype": self.files.precision() if options.dtype == "auto" else options.dtype,
            **{name: getattr(options, option) for name, option in _NAMES.items()},
        }
        for key in ("variant", "without", "call"):
            if extra.get(key):
                settings[key] = extra[key]
        return Identity(
            name=self.name,
            version="1",
            digest=self.files.digest(),
            domain="photos",
            settings=settings,
            batch_size=_BATCH_SIZE,
            info={
                "revision": options.revision,
                "commit": self.commit,
                "saved_with_diffusers": self.files.written_by,
                "components": {name: kind for name, (_, kind) in self.files.components.items()},
            },
        )

    @property
    def device(self) -> str:
        """Where the model runs: "auto" takes this process's CUDA device, else the CPU."""
        return resolve_device(self.options.device)

    def load(self) -> None:
        """Build the pipeline. Raises UsageError or ModelError in one line."""
        import torch
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        diffusers_logging.disable_progress_bar()  # the run has a bar of its own
        transformers_logging.disable_progress_bar()
        device = self.device
        offload = self.options.extra.get("offload", "none")
        if offload != "none" and device == "cpu":
            raise UsageError(f"model.args.offload = {offload} has no use on the CPU: leave it out")
        loader = self._loader()
        settings: dict[str, Any] = {
            _dtype_argument(): getattr(torch, self.identity.settings["dtype"]),
            "use_safetensors": True,
            "local_files_only": True,
            "variant": self.files.variant,
        }
        without = self.options.extra.get("without", [])
        settings |= dict.fromkeys(without)
        if "safety_checker" in without:
            settings["requires_safety_checker"] = False
        try:
            pipeline = loader.from_pretrained(str(self.files.folder), **settings)
        except Exception as error:  # diffusers and transformers raise what they like
            if "AutoPipeline can't find" in str(error):
                raise UsageError(
                    f"model {self.name!r} is a {self.files.class_name}, which makes no pictures from a prompt: give "
                    "a text-to-image pipeline"
                ) from None
            raise ModelError(f"model {self.name!r} cannot be loaded: {one_line(error)}") from error
        self._check_call(type(pipeline))
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline

    def _loader(self) -> Any:
        """DiffusionPipeline, or AutoPipelineForText2Image for classes that do not start from a prompt alone."""
        import diffusers

        name = self.files.class_name
        kind = getattr(diffusers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
            raise ModelError(
                f"model {self.name!r} is a {name}, which diffusers {diffusers.__version__} does not know (saved with "
                f"{self.files.written_by}): install a version that does"
            )
        if "prompt" in _parameters(kind) and not _FROM_PICTURES.search(name):
            return diffusers.DiffusionPipeline
        return diffusers.AutoPipelineForText2Image

    def _check_call(self, kind: type) -> None:
        """What was asked for is something the pipeline takes. Raises UsageError."""
        parts = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        for name in self.options.extra.get("without", []):
            if name not in parts:
                raise UsageError(
                    f"model.args.without: {kind.__name__} has no component {shown(name)}.{suggest(name, parts)}"
                )
        known = _parameters(kind)
        for name, option in _NAMES.items():
            if name not in known and getattr(self.options, option) is not None:
                raise UsageError(
                    f"--{option.replace('_', '-')}: {kind.__name__} takes no {name}; leave it out"
                )
        for name in self.options.extra.get("call", {}):
            if name not in known:
                raise UsageError(
                    f"model.args.call.{name}: {kind.__name__} takes no such argument."
                    f"{suggest(name, [k for k in known if k not in _OURS])}"
                )
        if "prompt" not in known or "generator" not in known:
            raise UsageError(
                f"{kind.__name__} takes no prompt, or no generator: its pictures cannot be repeated"
            )

    def close(self) -> None:
        self._pipeline = None

    def observations(self) -> Sequence[str]:
        """Whether prompts were longer than the pipeline reads."""
        if not self._cuts.count:
            return []
        return ["the pipeline's text encoder read only the beginning of long prompts, and drew from that"]

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        return draw(requests, self._call)

    def _call(self, requests: Sequence[GenerationRequest], generators: list[Any]) -> list[Any]:
        first, count = requests[0], len(requests)
        given = {
            name: getattr(first, option)
            for name, option in _NAMES.items()
            if getattr(first, option) is not None
        }
        for name, value in self.options.extra.get("call", {}).items():
            # One for all prompts; several pipelines insist on one for each.
            given[name] = [value] * count if "prompt" in name and isinstance(value, str) else value
        with self._cuts.counted():
            result = self._pipeline(
                prompt=[r.prompt for r in requests],
                generator=generators,
                output_type="pil",
                **given,
            )
        images = getattr(result, "images", None)
        if images is None:
            kind = type(self._pipeline).__name__
            raise ModelError(f"model {self.name!r}: {kind} makes no pictures (videos or sound?)")
        flags = getattr(result, "nsfw_content_detected", None)
        flags = list(flags) if flags is not None else [False] * len(images)
        return [_checked(image, flag) for image, flag in zip(images, flags, strict=True)]


class _CutPrompts(logging.Filter):
    """Counts what diffusers says about every prompt that it cuts, in place of a line each."""

    count = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        handlers = list(logging.getLogger("diffusers").handlers)
        for handler in handlers:
            handler.addFilter(self)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        is_cut = "was truncated because" in record.getMessage()
        self.count += is_cut
        return not is_cut


def _checked(image: Any, is_flagged: Any) -> Any:
    """The picture, or why it is none: a blank is scored by nobody as if it had been drawn."""
    if is_flagged:
        return SafetyFilterError(
            "the pipeline's safety checker blanked the picture (model.args.without=[safety_checker] leaves it out)"
        )
    if image.convert("RGB").getbbox() is None:
        return BlackPictureError(
            "every pixel is black: a safety filter, or numbers that overflowed (then --dtype float32 helps)"
        )
    return image


def _dtype_argument() -> str:
    """What ``from_pretrained`` calls the precision: ``dtype`` since 0.42, which warns of the older name."""
    import diffusers

    version = tuple(int(part) for part in re.findall(r"\d+", diffusers.__version__)[:2])
    return "dtype" if version >= (0, 42) else "torch_dtype"


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.__call__).parameters
