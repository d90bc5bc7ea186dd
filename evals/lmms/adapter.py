"""Models of ours inside lmms-eval: `lmms-eval --model blip3o --model_args pretrained=nano`.

`pretrained` is any name that `blip3o-eval run --model` takes; further arguments are those of `--set model.args.X`.
Requests are answered in batches by the model's own `answer`, with the halving that a run of ours has when one does not
fit into memory. lmms-eval has no failed answers: a failure stops the run unless `on_error=empty` scores it as an
empty text, which is counted and logged.

lmms-eval's multiple choice takes the *smallest* number, as its models return losses for log-likelihoods; so does this.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms

from evals.api import AnswerRequest, Choice, ModelOptions
from evals.errors import ModelError, UsageError
from evals.lmms.documents import as_pictures, parts_of, sampling_of, stops_of
from evals.phases import answers
from evals.phases.calls import Caller, one_line
from evals.phases.plan import sample_seed

log = logging.getLogger("evals")


class _Blip3o(lmms):
    """What the simple and the chat class share."""

    def __init__(
        self,
        pretrained: str = "nano",
        batch_size: int | str = "auto",
        device: str | None = None,
        dtype: str = "auto",
        seed: int = 42,
        max_new_tokens: int | None = None,
        on_error: str = "raise",
        max_batch_size: int | None = None,
        **further: Any,
    ) -> None:
        """Args: max_new_tokens: for tasks that say none; None: the model's own. Raises: UsageError, ModelError."""
        super().__init__()
        if on_error not in ("raise", "empty"):
            raise UsageError(f"on_error={on_error!r} is not allowed: raise or empty")
        from accelerate import Accelerator

        is_cpu = device == "cpu" or not _has_cuda()
        self.accelerator = Accelerator(cpu=is_cpu)
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._device = self.accelerator.device
        if device in (None, "", "cuda", "auto"):  # lmms-eval's own default is cuda
            device = "cpu" if is_cpu else f"cuda:{self.accelerator.local_process_index}"
        self.model = _find(str(pretrained), ModelOptions(device=device, dtype=dtype, extra=further))
        if not hasattr(self.model, "answer"):
            raise UsageError(f"model {pretrained!r} makes no answers, which lmms-eval asks for")
        is_auto = str(batch_size) in ("auto", "None")
        self.batch_size = self.model.identity.batch_size if is_auto else int(batch_size)
        self._seed, self._limit, self._on_error = int(seed), max_new_tokens, on_error
        self._is_loaded = False
        self.failures = 0

    @property
    def device(self) -> Any:
        return self._device

    # -- what lmms-eval calls -----------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return self._answer([self._request(r.args, r) for r in requests])

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """One list of texts per request, one text a round."""
        return [self._rounds(request) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """(loss, whether the model would write it by itself) per request.

        In a ``GenerationResult``, as lmms-eval 0.7.3's evaluator turns a bare pair into its text, on which every
        multiple choice task then fails.
        """
        asked = []
        for request in requests:
            prompt, target, to_visual, doc_id, task, split = request.args
            document = self.task_dict[task][split][doc_id]
            text = target if isinstance(target, str) else str(target(document))
            asked.append(
                AnswerRequest(
                    sample_id=_name(request),
                    prompt=str(prompt),
                    seed=self._seed_of(request),
                    images=tuple(as_pictures(to_visual(document), task)),
                    choices=(Choice(str(prompt), text, needs_greedy=True),),
                )
            )
        pairs = [json.loads(text)[0] if text else (float("-inf"), False) for text in self._answer(asked)]
        return [GenerationResult(text=(-float(value), bool(is_greedy))) for value, is_greedy in pairs]

    # -- requests -----------------------------------------------------------------------------

    def _request(self, arguments: Sequence[Any], request: Any) -> AnswerRequest:
        raise NotImplementedError

    def _rounds(self, request: Any) -> list[str]:
        raise NotImplementedError

    def _made(self, request: Any, prompt: str, pictures: Sequence[Any], settings: dict[str, Any]) -> AnswerRequest:
        limit = settings.get("max_new_tokens") or self._limit
        return AnswerRequest(
            sample_id=_name(request),
            prompt=prompt,
            seed=self._seed_of(request),
            images=tuple(pictures),
            max_new_tokens=int(limit) if limit else None,
            stop=stops_of(settings.get("until")),
            sampling=sampling_of(settings),
        )

    def _seed_of(self, request: Any) -> int:
        """As a run of ours has it: from the document and the repeat, whatever the rank or batch."""
        repeat = len(request.resps)
        return sample_seed(self._seed, f"{request.doc_id:06d}" + (f"#{repeat}" if request.repeats > 1 else ""), 0)

    def _answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
        if not self._is_loaded:
            self.model.load()
            self._is_loaded = True
        caller = Caller(answers.of(self.model))
        found: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            part = requests[start : start + self.batch_size]
            for request, result in zip(part, caller(part), strict=True):
                found.append(self._text(request, result))
        if self.failures:
            log.warning("%d answers failed and are scored as empty", self.failures)
        return found

    def _text(self, request: AnswerRequest, result: Any) -> str:
        if isinstance(result, str):
            return result
        problem = one_line(result) if isinstance(result, Exception) else f"no text: {type(result).__name__}"
        if self._on_error == "raise":
            raise ModelError(
                f"{request.sample_id}: {problem}; lmms-eval has no failed answers: on_error=empty scores them as "
                "empty texts, `blip3o-eval run --task lmms:...` leaves them out and goes on"
            )
        self.failures += 1
        return ""

    def clean(self) -> None:
        """Called when all is answered; the model may be asked again, so it is loaded anew then."""
        self.model.close()
        self._is_loaded = False


class Blip3oSimple(_Blip3o):
    """Prompts as one text, pictures before it."""

    is_simple = True

    def _request(self, arguments: Sequence[Any], request: Any) -> AnswerRequest:
        prompt, settings, to_visual, doc_id, task, split = arguments
        pictures = as_pictures(to_visual(self.task_dict[task][split][doc_id]), task)
        return self._made(request, str(prompt), pictures, settings)

    def _rounds(self, request: Any) -> list[str]:
        prompt, settings, to_visual, follow, doc_id, task, split = request.args
        document = self.task_dict[task][split][doc_id]
        pictures, said, state, number = to_visual(document), [], None, 0
        while True:
            made = self._made(request, str(prompt), as_pictures(pictures, task), settings)
            said.append(self._answer([made])[0])
            number += 1
            pictures, prompt, is_end, said, state = follow(
                document, previous_output=said, round_idx=number, previous_round_info=state
            )
            said = list(said)
            if is_end:
                return said


class Blip3oChat(_Blip3o):
    """Prompts as chat messages; their texts are joined and their pictures go before them, in order."""

    is_simple = False

    def _request(self, arguments: Sequence[Any], request: Any) -> AnswerRequest:
        _, to_messages, settings, doc_id, task, split = arguments
        return self._of_messages(request, to_messages(self.task_dict[task][split][doc_id]), settings, task)

    def _of_messages(self, request: Any, messages: Any, settings: Any, task: str) -> AnswerRequest:
        parts = list(parts_of(messages))
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        shown = [part["url"] for part in parts if part["type"] != "text"]
        return self._made(request, text, as_pictures(shown, task), settings)

    def _rounds(self, request: Any) -> list[str]:
        _, to_messages, settings, doc_id, task, split = request.args
        document = self.task_dict[task][split][doc_id]
        said: list[str] = []
        state, number = None, 0
        messages, is_end = to_messages(document, round_idx=0, previous_output=None, previous_round_info=None)[:2]
        while not is_end:
            said.append(self._answer([self._of_messages(request, messages, settings, task)])[0])
            number += 1
            messages, is_end, said, state = to_messages(
                document, round_idx=number, previous_output=said, previous_round_info=state
            )
            said = list(said)
        return said


def _find(name: str, options: ModelOptions) -> Any:
    from evals.config import resolve
    from evals.plugins.lookup import find_model

    layer = {"task": "lmms-eval", "model": {"name": name, "device": options.device, "dtype": options.dtype}}
    layer["model"]["args"] = dict(options.extra)  # type: ignore[index]
    return find_model(resolve([("lmms-eval", layer)])[0])


def _name(request: Any) -> str:
    return f"{request.task_name}/{request.doc_id}"


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available()) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
