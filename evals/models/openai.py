"""`openai:MODEL`: the images endpoint of OpenAI, or of any server that speaks its protocol.

The key comes from the environment only. Requests run side by side, each for one picture; what they cost is said
before the first one, and a picture that was paid for is kept (``evals.models.openai_memory``) and not asked for again.
Nobody outside knows the weights behind an endpoint, nor when they change: the manifest says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.api import GenerationRequest, Identity, ModelOptions
from evals.errors import EvalError, UsageError
from evals.http.budget import Budget
from evals.http.endpoint import (
    Endpoint,
    RequestError,
    StoppedError,
    check_base_url,
    read_key,
)
from evals.models.openai_memory import Memory
from evals.models.openai_replies import read_answer, read_picture_bytes, refusal
from evals.models.openai_settings import Settings, read_settings
from evals.phases.readymade import EncodedPicture

log = logging.getLogger("evals")

OFFICIAL_URL = "https://api.openai.com/v1"
_BATCH_SIZE = 16
_SEED_RANGE = 2**31


def create(spec: str, options: ModelOptions) -> OpenAIModel:
    """Factory for `--model openai:MODEL`. Raises UsageError or MissingRequirementError; asks no server anything."""
    if not spec or not spec.isprintable():
        raise UsageError("model 'openai' needs the name of a model: openai:MODEL")
    settings = read_settings(options)
    url = check_base_url(settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL)
    return OpenAIModel(spec, url, read_key(settings.key_variable), settings)


class OpenAIModel:
    """ImageGenerator that asks an endpoint. Its arguments: ``evals.models.openai_settings``."""

    def __init__(self, model: str, base_url: str, key: str | None, settings: Settings) -> None:
        self.model, self.base_url, self.settings = model, base_url, settings
        self._key = key
        self._memory = Memory(settings.cache)
        self._endpoint: Endpoint | None = None
        self._lock = threading.Lock()
        self._made = self._remembered = self._rewritten = 0
        self._budget = Budget(
            f"openai:{model}", "picture", settings.price, settings.max_cost, self._unanswered
        )
        self._unanswered_before = self._retries_before = 0
        size = settings.size
        self.identity = Identity(
            name=f"openai:{model}",
            version="1",
            digest=hashlib.sha256(f"openai\0{base_url}\0{model}".encode()).hexdigest(),
            domain="photos",
            settings={
                "base_url": base_url,
                "guidance_scale": None,
                "num_inference_steps": None,
                "width": size[0] if size else None,
                "height": size[1] if size else None,
                "body": dict(settings.body),
                "seed_field": settings.seed_field,
            },
            batch_size=_BATCH_SIZE,
            info={
                "weights": "behind an endpoint: unknown, and may change without notice",
                "price": settings.price,
            },
        )

    @property
    def device(self) -> str:
        """Where the pictures are made, as the manifest tells it."""
        return f"endpoint {Endpoint(self.base_url, None).host}"

    # -- before the first picture -------------------------------------------------------------

    def announce(self, requests: Iterable[GenerationRequest]) -> str:
        """How many pictures will be asked for and what they cost, in one line.

        Raises: UsageError when that is more than ``max_cost``.
        """
        total = new = 0
        for request in requests:
            total += 1
            new += not self._memory.has(self._key_of(request))
        line = f"{self.identity.name}: {new:,} picture{'s' * (new != 1)} to ask for"
        if new < total:
            line += f", {total - new:,} of {total:,} were paid for before"
        return self._budget.estimate(line, new, "give --limit or --num-images")

    def load(self) -> None:
        """Check that the endpoint answers and pictures can be kept. Raises MissingRequirementError, StoreError."""
        self._memory.check()
        endpoint = Endpoint(self.base_url, self._key, self.settings.limits)
        endpoint.check_reachable()
        if endpoint.sends_key_in_clear:
            log.warning("the key is sent to %s without encryption: prefer https", endpoint.host)
        self._endpoint = endpoint

    def close(self) -> None:
        if self._endpoint is not None:
            self._unanswered_before += self._endpoint.unanswered
            self._retries_before += self._endpoint.retries
        self._endpoint = None

    # -- pictures -----------------------------------------------------------------------------

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        """Raises EndpointError or ModelError when every further request would fail, after those under way are kept."""
        assert self._endpoint is not None, "load() comes first"
        if any(r.series for r in requests):
            raise UsageError(
                "--seed-mode upstream continues one stream of noise, and an endpoint has none: leave it out"
            )
        with ThreadPoolExecutor(self.settings.workers) as pool:
            futures = [pool.submit(self._attempt, request) for request in requests]
            try:
                return [self._result(future) for future in futures]
            except BaseException as error:
                # Requests under way are paid for and end by themselves; only a user who stops the run ends them.
                self._endpoint.stop(hang_up=not isinstance(error, Exception))
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _attempt(self, request: GenerationRequest) -> Any:
        try:
            return self._picture(request)
        except EvalError:  # the same for every request: no further one starts
            if self._endpoint is not None:
                self._endpoint.stop(hang_up=False)
            raise

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except EvalError:
            raise
        except Exception as error:  # of one picture; the others are not asked for again
            return refusal(error) if isinstance(error, RequestError) else error

    def _picture(self, request: GenerationRequest) -> Any:
        key = self._key_of(request)
        found = self._memory.find(key)
        if found is not None:
            picture = read_picture_bytes(found[0], self.settings.size)
            with self._lock:
                self._remembered += 1
            self._count_rewritten(request, found[2].get("revised_prompt"))
            return _linked(picture, found[1])
        endpoint = self._endpoint
        if endpoint is None:
            raise StoppedError("the run ended before the request was sent")
        self._budget.take()
        answer = read_answer(endpoint.post_json("images/generations", self._body(request)), endpoint)
        picture = read_picture_bytes(answer.data, self.settings.size)
        path = self._memory.keep(
            key,
            answer.data,
            {
                "endpoint": self.base_url,
                "model": self.model,
                "prompt": request.prompt,
                "revised_prompt": answer.revised_prompt,
                "sample_id": request.sample_id,
                "image_index": request.image_index,
                "seed": request.seed,
            },
        )
        with self._lock:
            self._made += 1
        self._count_rewritten(request, answer.revised_prompt)
        return _linked(picture, path)

    def _count_rewritten(self, request: GenerationRequest, revised: str | None) -> None:
        if revised is None or revised.strip() == request.prompt.strip():
            return
        with self._lock:
            self._rewritten += 1

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "n": 1}
        if self.settings.size:
            body["size"] = "{}x{}".format(*self.settings.size)
        if self.settings.seed_field:
            body[self.settings.seed_field] = request.seed % _SEED_RANGE
        return {**body, **self.settings.body}

    def _key_of(self, request: GenerationRequest) -> str:
        parts = [
            self.base_url,
            self._body(request),
            request.sample_id,
            request.image_index,
            request.seed,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    # -- money --------------------------------------------------------------------------------

    def _unanswered(self) -> int:
        return self._unanswered_before + (self._endpoint.unanswered if self._endpoint else 0)

    def usage(self) -> dict[str, Any]:
        """What this process asked for, for the manifest."""
        endpoint = self._endpoint
        return {
            "pictures": self._made,
            "requests": self._budget.asked,
            "paid_before": self._remembered,
            "retries": self._retries_before + (endpoint.retries if endpoint else 0),
            "unanswered": self._unanswered(),
            "rewritten_prompts": self._rewritten,
            "estimated_cost": self._budget.json(),
        }

    def observations(self) -> Sequence[str]:
        """Whether the endpoint drew from other prompts than the task's."""
        if not self._rewritten:
            return []
        return ["the endpoint rewrote prompts: these figures compare with those of rewritten prompts only"]


def _linked(picture: Any, path: Path | None) -> Any:
    """A plain PNG may share its disk space with the one that is kept."""
    if path is not None and isinstance(picture, EncodedPicture):
        return replace(picture, link=path)
    return picture


