"""A vision-language model behind an OpenAI-compatible endpoint, as judge: `--judge openai-vlm:MODEL`.

One chat completion per question, several at a time, at temperature 0. The picture stands before the question, so that
servers with prefix caching (vLLM, SGLang) encode it once for all its questions. The key comes from the environment
only. Nobody outside knows the weights behind an endpoint, nor when they change: the manifest says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evals.api import Identity, ModelOptions
from evals.errors import EvalError, MissingRequirementError, UsageError, shown, suggest
from evals.http.endpoint import Endpoint, EndpointError, RequestError, check_base_url, read_key
from evals.judges.pairs import unique_pictures
from evals.judges.parse import UnreadableAnswerError, yes_or_no
from evals.judges.vlm import PROMPT, read_prompt
from evals.models.openai import OFFICIAL_URL
from evals.models.openai_settings import Settings, read_settings

BODY: Mapping[str, Any] = {"temperature": 0, "max_tokens": 16}
"""Fields of every request; `judge.args.body` adds to them, and null takes one out."""
_ARGUMENTS = (
    "base_url", "key_variable", "body", "prompt", "workers", "requests_per_minute", "timeout_s", "max_retries",
    "max_wait_s",
)  # fmt: skip
_OURS = ("messages", "stream", "n")


def create(spec: str, options: ModelOptions) -> EndpointJudge:
    """Factory for `--judge openai-vlm:MODEL`; arguments as `--set judge.args.X=...`. Asks no server anything."""
    if not spec or not spec.isprintable():
        raise UsageError("judge 'openai-vlm' needs the name of a model: openai-vlm:MODEL")
    extra = dict(options.extra)
    prompt = read_prompt(extra.pop("prompt", PROMPT))
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
        return EndpointJudge(spec, url, read_key(settings.key_variable), settings, prompt)


class _JudgeWords:
    """Errors of settings that models and judges share name the judge's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UsageError | MissingRequirementError | EndpointError):
            text = str(error).replace("model.args", "judge.args")
            if text != str(error):
                raise type(error)(text) from None


class EndpointJudge:
    """`evals.api.QuestionJudge` that asks an endpoint."""

    def __init__(self, model: str, base_url: str, key: str | None, settings: Settings, prompt: str) -> None:
        self.model, self.base_url, self.settings, self.prompt = model, base_url, settings, prompt
        self._key = key
        self._endpoint: Endpoint | None = None
        self._body = {k: v for k, v in {**BODY, **settings.body}.items() if v is not None}
        self.identity = Identity(
            name=f"openai-vlm:{model}",
            version="1",
            digest=hashlib.sha256(f"openai-vlm\0{base_url}\0{model}".encode()).hexdigest(),
            domain="photos",
            settings={"base_url": base_url, "prompt": prompt, "body": self._body},
            batch_size=8,
            info={"weights": "behind an endpoint: unknown, and may change without notice"},
        )

    def load(self) -> None:
        """Raises MissingRequirementError when nothing answers at the address."""
        with _JudgeWords():
            endpoint = Endpoint(self.base_url, self._key, self.settings.limits)
            endpoint.check_reachable()
        self._endpoint = endpoint

    def close(self) -> None:
        self._endpoint = None

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has measured it."""
        return {}

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[Any]:
        """ "yes" or "no" per (picture, question); an exception in place of what failed or cannot be read.

        Raises: EndpointError when every further request would fail; those under way are given up.
        """
        if self._endpoint is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        urls = [_data_url(picture) for picture in pictures]
        with ThreadPoolExecutor(self.settings.workers) as pool:
            asked = [
                pool.submit(self._answer, urls[number], str(question))
                for number, question in zip(numbers, questions, strict=True)
            ]
            try:
                with _JudgeWords():
                    return [future.result() for future in asked]
            except BaseException:
                endpoint, self._endpoint = self._endpoint, None
                pool.shutdown(wait=False, cancel_futures=True)
                if endpoint is not None:
                    endpoint.stop()
                raise

    def _answer(self, url: str, question: str) -> Any:
        endpoint = self._endpoint
        assert endpoint is not None
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": self.prompt.replace("{question}", question)},
        ]
        body = {**self._body, "model": self.model, "messages": [{"role": "user", "content": content}]}
        try:
            return yes_or_no(endpoint.clean(read_message(endpoint.post_json("chat/completions", body))))
        except EvalError:
            raise
        except (RequestError, UnreadableAnswerError) as error:
            return error


def read_message(reply: Mapping[str, Any]) -> str:
    """The text of a chat completion. Raises UnreadableAnswerError for a refusal, or where there is none."""
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UnreadableAnswerError("the endpoint's reply holds no message") from None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if refusal and not content:
        raise UnreadableAnswerError(f"the endpoint's model refuses to answer: {shown(refusal)}")
    if not isinstance(content, str) or not content.strip():
        cut = choice.get("finish_reason") == "length"
        more = ": raise judge.args.body.max_tokens" if cut else ""
        raise UnreadableAnswerError(f"the endpoint's reply holds no text{more}")
    return content


def _data_url(picture: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
