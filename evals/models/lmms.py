"""`lmms:MODEL,args`: any model of lmms-eval 0.7 as a model of ours, as in `--model lmms:qwen2_5_vl,pretrained=FOLDER`.

It answers our tasks and lmms-eval's own (`lmms:NAME`), whose requests it gets in their original form, videos and
interleaved messages included. Its class is the chat one where it has one, as in lmms-eval;
`--set model.args.force_simple=true` takes the simple one. Its errors are errors of the sample: a call that raises is
made again in halves until the failing requests stand alone. An adapter that swallows its errors and returns an empty
text cannot be told from a model that said nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.api import AnswerRequest, Identity, ModelOptions, cut_at
from evals.errors import MissingRequirementError, ModelError, UsageError, shown, suggest
from evals.lmms import package
from evals.phases.calls import one_line

_ARGUMENTS = ("force_simple", "batch_size")
_TEST_DOUBLES = ("dummy", "dummy_video_reader")
_OWN_TASK, _OWN_SPLIT = "blip3o_eval", "test"


def create(spec: str, options: ModelOptions) -> LmmsModel:
    """Factory for `--model lmms:MODEL[,key=value]...`. Raises UsageError, MissingRequirementError."""
    name, _, arguments = spec.partition(",")
    if not name:
        raise UsageError("model 'lmms' needs the name of one of lmms-eval's models: lmms:MODEL,key=value,...")
    bad = next((part for part in filter(None, arguments.split(",")) if "=" not in part), None)
    if bad is not None and not any(mark in arguments for mark in "{\"'"):
        raise UsageError(f"{shown(bad)} in model 'lmms:{name}': give key=value")
    for key in options.extra:
        if key not in _ARGUMENTS:
            raise UsageError(f"unknown key 'model.args.{key}'.{suggest(key, _ARGUMENTS)}")
    version = package.check_installed(f"model 'lmms:{name}'")
    registry = package.load("lmms_eval.models")  # names only: a fifth of a second
    if name not in registry.list_available_models(include_aliases=True):
        known = registry.list_available_models(include_aliases=True)
        raise UsageError(f"Unknown model {shown(f'lmms:{name}')}.{suggest(name, known)}")
    return LmmsModel(name, arguments, options, version)


class LmmsModel:
    """Answerer around a model class of lmms-eval."""

    def __init__(self, name: str, arguments: str, options: ModelOptions, version: str) -> None:
        self.name, self.arguments, self.options, self.version = name, arguments, options, version
        self._model: Any = None

    @cached_property
    def identity(self) -> Identity:
        """The weights behind a hub id are unknown from here; of a local `pretrained` folder the files are digested."""
        return Identity(
            name=f"lmms:{self.name}",
            version=f"lmms-eval {self.version}",
            digest=self._digest(),
            domain="test" if self.name in _TEST_DOUBLES else "photos",
            is_test_double=self.name in _TEST_DOUBLES,
            settings={
                "arguments": self.arguments,
                "force_simple": bool(self.options.extra.get("force_simple", False)),
                "dtype": "the adapter's own",
            },
            batch_size=max(8, self._batch_size),
            info={"weights": "loaded by lmms-eval's adapter"},
        )

    @property
    def _batch_size(self) -> int:
        return int(self.options.extra.get("batch_size", 1))

    def _digest(self) -> str:
        from evals.io.digests import folder_digest

        digest = hashlib.sha256(f"lmms\0{self.name}\0{self.arguments}".encode())
        pairs = dict(part.split("=", 1) for part in self.arguments.split(",") if "=" in part)
        folder = Path(pairs.get("pretrained", "")).expanduser()
        if pairs.get("pretrained") and folder.is_dir():
            digest.update(folder_digest(folder, (".safetensors", ".json", ".txt", ".model", ".jinja")).encode())
        return digest.hexdigest()

    @property
    def device(self) -> str:
        return str(getattr(self._model, "device", self.options.device))

    def load(self) -> None:
        """Import the adapter and build it. Raises MissingRequirementError, ModelError."""
        models = package.load("lmms_eval.models")
        package.load("lmms_eval.api.model")
        device = None if self.options.device == "auto" else self.options.device
        force_simple = bool(self.options.extra.get("force_simple", False))
        try:
            with package.quietly():
                kind = models.get_model(self.name, force_simple)
        except Exception as error:
            raise MissingRequirementError(
                f"model 'lmms:{self.name}' needs a package that lmms-eval does not bring: {one_line(error)}"
            ) from error
        settings = {"batch_size": self._batch_size, "device": device or _default_device()}
        try:
            with package.quietly():
                self._model = kind.create_from_arg_string(self.arguments, settings)
        except (Exception, SystemExit) as error:
            raise ModelError(f"model 'lmms:{self.name}' cannot be loaded: {one_line(error)}") from error

    def close(self) -> None:
        self._model = None

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        """One text per request; an exception where the adapter returned none."""
        unwrap = package.load("lmms_eval.api.instance").unwrap_generation_output
        instances = [self._instance(request, number) for number, request in enumerate(requests)]
        with package.quietly():
            outputs = self._model.generate_until(instances)
        if len(outputs) != len(requests):
            raise ModelError(f"model 'lmms:{self.name}' answered {len(requests)} requests with {len(outputs)}")
        texts = [None if output is None else unwrap(output)[0] for output in outputs]
        return [
            cut_at(text, request.stop) if isinstance(text, str) else ValueError("the adapter returned no text")
            for text, request in zip(texts, requests, strict=True)
        ]

    def log_likelihoods(self, requests: Sequence[AnswerRequest], continuations: Sequence[str]) -> Sequence[Any]:
        """As the adapter gives them: most return a loss per token where the interface says log-likelihood."""
        instances = [
            self._instance(request, number, text)
            for number, (request, text) in enumerate(zip(requests, continuations, strict=True))
        ]
        with package.quietly():
            pairs = self._model.loglikelihood(instances)
        return [-float(getattr(pair, "text", pair)[0]) for pair in pairs]

    # -- requests of ours as instances of theirs ----------------------------------------------

    def _instance(self, request: AnswerRequest, number: int, text: str | None = None) -> Any:
        from evals.lmms.documents import Pictures

        if isinstance(request.images, Pictures):
            return self._native(request, request.images, text)
        documents = self._model.task_dict.setdefault(_OWN_TASK, {}).setdefault(_OWN_SPLIT, {})
        documents[number] = request
        settings = {
            "until": list(request.stop),
            "do_sample": bool(request.sampling),
            "temperature": 0,
            **request.sampling,
            **({"max_new_tokens": request.max_new_tokens} if request.max_new_tokens else {}),
        }
        place = (number, _OWN_TASK, _OWN_SPLIT)
        if text is not None:
            return self._made("loglikelihood", (request.prompt, text, _pictures, *place))
        if self._model.is_simple:
            return self._made("generate_until", (request.prompt, settings, _pictures, *place))
        return self._made("generate_until", (request.prompt, _messages, settings, *place))

    def _native(self, request: AnswerRequest, pictures: Any, text: str | None) -> Any:
        """The request of a task of lmms-eval, in the form that this model's class reads."""
        origin = pictures.origin
        task = origin.documents.loaded.tasks[origin.task]
        self._model.task_dict[origin.task] = task.dataset
        split = task.config.test_split or task.config.validation_split
        place = (origin.doc_id, origin.task, split)
        to_visual = task.doc_to_visual
        if text is not None:
            return self._made("loglikelihood", (request.prompt, text, to_visual, *place))
        instance = origin.documents.requests(origin.task)[origin.doc_id][0]
        settings = json.loads(json.dumps(origin.documents.settings(origin.task, instance)))
        if self._model.is_simple:
            return self._made("generate_until", (request.prompt, settings, to_visual, *place))
        return self._made("generate_until", (request.prompt, _as_messages(task), settings, *place))

    def _made(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        instance = package.load("lmms_eval.api.instance").Instance
        number, task, split = arguments[-3:]
        metadata = {"task": task, "doc_id": number, "repeats": 1, "split": split}
        return instance(request_type=kind, arguments=arguments, idx=0, metadata=metadata)


def _pictures(document: AnswerRequest) -> list[Any]:
    return list(document.images)


def _messages(document: AnswerRequest) -> list[Mapping[str, Any]]:
    shown = [{"type": "image", "url": picture} for picture in document.images]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": document.prompt}]}]


def _as_messages(task: Any) -> Any:
    """``doc_to_messages`` of a task; one that was loaded in the simple form has it made of its parts."""
    if hasattr(task, "doc_to_messages"):
        return task.doc_to_messages
    chat = package.load("lmms_eval.api.task").ConfigurableMessagesTask

    def to_messages(document: Any) -> Any:
        return chat._build_user_turn(task.doc_to_visual(document), task.doc_to_text(document))

    return to_messages


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
