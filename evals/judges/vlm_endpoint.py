"""A vision-language model behind an OpenAI-compatible endpoint, as judge: `--judge openai-vlm:MODEL`.

One chat completion per question, several at a time, at temperature 0. The picture stands before the question, so that
servers with prefix caching (vLLM, SGLang) encode it once for all its questions. What they cost is said before the
first one (`judge.args.price`, of one question) and never passes `judge.args.max_cost`. The key comes from the
environment only. Nobody outside knows the weights behind an endpoint, nor when they change: the manifest says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evals.api import Identity, ModelOptions
from evals.errors import EvalError, JudgeError, MissingRequirementError, UsageError, shown, suggest
from evals.http.budget import Budget
from evals.http.endpoint import (
    Endpoint,
    EndpointError,
    RequestError,
    StoppedError,
    check_base_url,
    read_key,
)
from evals.judges.endpoint_replies import read_message, read_probability
from evals.judges.instruction import instruction_settings, read_instruction
from evals.judges.pairs import unique_pictures
from evals.judges.parse import UnreadableAnswerError, yes_or_no
from evals.judges.vlm import PROMPT, free_prompt, read_prompt
from evals.models.openai import OFFICIAL_URL
from evals.models.openai_settings import Settings, read_settings

BODY: Mapping[str, Any] = {"temperature": 0, "max_tokens": 16}
"""Fields of every request; `judge.args.body` adds to them, and null takes one out."""
_ARGUMENTS = (
    "base_url", "key_variable", "body", "prompt", "instruction", "workers", "requests_per_minute", "timeout_s",
    "max_retries", "max_wait_s", "price", "max_cost",
)  # fmt: skip
_OURS = ("messages", "stream", "n", "logprobs", "top_logprobs")
TOP = 20
"""Likeliest first tokens that an endpoint is asked for; the protocol allows no more."""


def create(spec: str, options: ModelOptions) -> EndpointJudge:
    """Factory for `--judge openai-vlm:MODEL`; arguments as `--set judge.args.X=...`. Asks no server anything."""
    if not spec or not spec.isprintable():
        raise UsageError("judge 'openai-vlm' needs the name of a model: openai-vlm:MODEL")
    extra = dict(options.extra)
    prompt = read_prompt(extra.pop("prompt", PROMPT))
    instruction = read_instruction(extra.pop("instruction", None))
    body = extra.get("body")
    with _JudgeWords():
        settings = read_settings(ModelOptions(extra=extra))
        for key in extra:
            if key not in _ARGUMENTS:
                raise UsageError(f"unknown key {shown(f'judge.args.{key}')}.{suggest(key, _ARGUMENTS)}")
        for key in _OURS:
            if body and key in body:
                raise UsageError(f"judge.args.body.{key} is not allowed: the judge sets it")
        url = check_base_url(settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL)
        return EndpointJudge(spec, url, read_key(settings.key_variable), settings, prompt, instruction)


class _JudgeWords:
    """Errors of settings that models and judges share name the judge's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UsageError | MissingRequirementError | EndpointError):
            text = str(error).replace("model.args", "judge.args").replace("of one picture", "of one question")
            if text != str(error):
                raise type(error)(text) from None


class EndpointJudge:
    """`evals.api.QuestionJudge`, `ProbabilityJudge`, `InstructedJudge` and `PaidJudge` that asks an endpoint."""

    def __init__(
        self,
        model: str,
        base_url: str,
        key: str | None,
        settings: Settings,
        prompt: str,
        instruction: str | None = None,
    ) -> None:
        self.model, self.base_url, self.settings, self.prompt = model, base_url, settings, prompt
        self.instruction = instruction
        self._key = key
        self._endpoint: Endpoint | None = None
        self._lock = threading.Lock()
        self._tokens = {"prompt_tokens": 0, "completion_tokens": 0}
        self._unanswered_before = self._retries_before = 0
        self._budget = Budget(
            f"openai-vlm:{model}", "question", settings.price, settings.max_cost, self._unanswered, "judge.args",
            JudgeError,
        )  # fmt: skip
        self._body = {k: v for k, v in {**BODY, **settings.body}.items() if v is not None}
        self.identity = Identity(
            name=f"openai-vlm:{model}",
            version="1",
            digest=hashlib.sha256(f"openai-vlm\0{base_url}\0{model}".encode()).hexdigest(),
            domain="photos",
            settings={
                "base_url": base_url,
                "prompt": prompt,
                "body": self._body,
                **instruction_settings(instruction),
            },
            batch_size=8,
            info={
                "weights": "behind an endpoint: unknown, and may change without notice",
                **({} if settings.price is None else {"price": settings.price}),
            },
        )

    @property
    def device(self) -> str:
        """Where the answers come from."""
        return f"endpoint {Endpoint(self.base_url, None).host}"

    def announce(self, num_pictures: int, num_questions: int) -> str:
        """How many questions will be asked and what they cost. Raises UsageError when that is more than `max_cost`."""
        line = f"{self.identity.name}: {num_questions:,} questions about {num_pictures:,} pictures to ask"
        return self._budget.estimate(line, num_questions, "give --limit or --num-images")

    def usage(self) -> dict[str, Any]:
        """What this process asked for, for the manifest; tokens as far as the endpoint tells."""
        endpoint = self._endpoint
        return {
            "questions": self._budget.asked,
            "retries": self._retries_before + (endpoint.retries if endpoint else 0),
            "unanswered": self._unanswered(),
            **self._tokens,
            "estimated_cost": self._budget.json(),
        }

    def _unanswered(self) -> int:
        return self._unanswered_before + (self._endpoint.unanswered if self._endpoint else 0)

    def load(self) -> None:
        """Raises MissingRequirementError when nothing answers at the address."""
        with _JudgeWords():
            endpoint = Endpoint(self.base_url, self._key, self.settings.limits)
            endpoint.check_reachable()
        self._endpoint = endpoint

    def close(self) -> None:
        self._let_go()

    def _let_go(self) -> Endpoint | None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            self._unanswered_before += endpoint.unanswered
            self._retries_before += endpoint.retries
        return endpoint

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has measured it."""
        return {}

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[Any]:
        """ "yes" or "no" per (picture, question); an exception in place of what failed or cannot be read.

        Raises: EndpointError when every further request would fail; those under way are given up.
        """
        return self._each(images, questions, self._answer)

    def probability(self, images: Sequence[Any], questions: Sequence[str], answer: str) -> Sequence[Any]:
        """Probability that what the model says begins with ``answer``: of its likeliest 20 first tokens, those that
        are this word. One that is not among them counts as 0, as its probability is below each of theirs."""
        return self._each(images, questions, lambda url, question: self._probability(url, question, answer))

    def reply(self, images: Sequence[Any], instructions: Sequence[str], max_tokens: int) -> Sequence[Any]:
        """What the model says, as it is; an exception in place of what failed. ``judge.args.body.max_tokens`` wins."""
        is_set = "max_tokens" in self.settings.body
        body = self._body if is_set else {**self._body, "max_tokens": max_tokens}
        return self._each(images, instructions, lambda url, text: self._reply(url, text, body))

    def _each(
        self, images: Sequence[Any], questions: Sequence[str], read: Callable[[str, str], Any]
    ) -> list[Any]:
        if self._endpoint is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        urls = [_data_url(picture) for picture in pictures]
        with ThreadPoolExecutor(self.settings.workers) as pool:
            asked = [
                pool.submit(read, urls[number], str(question))
                for number, question in zip(numbers, questions, strict=True)
            ]
            try:
                with _JudgeWords():
                    return [future.result() for future in asked]
            except BaseException:
                endpoint = self._let_go()
                pool.shutdown(wait=False, cancel_futures=True)
                if endpoint is not None:
                    endpoint.stop()
                raise

    def _answer(self, url: str, question: str) -> Any:
        try:
            endpoint, reply = self._ask(url, self.prompt.replace("{question}", question), self._body)
            return yes_or_no(endpoint.clean(read_message(reply)))
        except EvalError:
            raise
        except (RequestError, UnreadableAnswerError) as error:
            return error

    def _reply(self, url: str, instruction: str, body: Mapping[str, Any]) -> Any:
        try:
            prompt = free_prompt(self.prompt).replace("{question}", instruction)
            endpoint, reply = self._ask(url, prompt, body)
            return endpoint.without_key(read_message(reply))
        except EvalError:
            raise
        except (RequestError, UnreadableAnswerError) as error:
            return error

    def _probability(self, url: str, question: str, answer: str) -> Any:
        body = {**self._body, "logprobs": True, "top_logprobs": TOP}
        if body.get("max_tokens") == BODY["max_tokens"]:
            body["max_tokens"] = 1
        try:
            prompt = free_prompt(self.prompt).replace("{question}", question)
            return read_probability(self._ask(url, prompt, body)[1], answer)
        except EvalError:
            raise
        except (RequestError, UnreadableAnswerError) as error:
            return error

    def _ask(self, url: str, prompt: str, body: Mapping[str, Any]) -> tuple[Endpoint, dict[str, Any]]:
        endpoint = self._endpoint
        if endpoint is None:
            raise StoppedError("the run ended before the request was sent")
        self._budget.take()
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": prompt},
        ]
        messages = [{"role": "user", "content": content}]
        reply = endpoint.post_json("chat/completions", {**body, "model": self.model, "messages": messages})
        used = reply.get("usage")
        if isinstance(used, Mapping):
            with self._lock:
                for key in self._tokens:
                    count = used.get(key)
                    self._tokens[key] += count if type(count) is int else 0
        return endpoint, reply


def _data_url(picture: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
