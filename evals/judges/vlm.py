"""Any model that answers in text, as judge: `--judge vlm:MODEL`, with every name that `--model` takes.

Its answers are read strictly: yes or no, and nothing beside it. What cannot be read leaves the picture unscored with
the reason, and counts against `--max-errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import AnswerRequest, Identity, ModelOptions
from evals.errors import UsageError, shown
from evals.judges.pairs import unique_pictures
from evals.judges.parse import read_or_error

PROMPT = "{question}\nAnswer with yes or no only."
PROMPTS = {"stickers": "{question}"}
"""Domain of a model -> the wording it is asked in: nano was trained on bare questions."""
MAX_NEW_TOKENS = 16


def create(spec: str, options: ModelOptions) -> VlmJudge:
    """Factory for `--judge vlm:MODEL`.

    `judge.args.prompt` replaces the wording of `PROMPT` and `PROMPTS`; the rest of judge.args are arguments of the
    model.
    """
    from evals.config import ModelConfig, RunConfig
    from evals.plugins.lookup import find_model

    if not spec:
        raise UsageError("judge 'vlm' needs a model: vlm:MODEL, such as vlm:nano (`blip3o-eval list models`)")
    extra = dict(options.extra)
    given = extra.pop("prompt", None)
    prompt = None if given is None else read_prompt(given)
    model = find_model(
        RunConfig(task="dpg", model=ModelConfig(name=spec, device=options.device, args=extra))
    )
    if not hasattr(model, "answer"):
        raise UsageError(
            f"model {spec!r} answers no questions: choose one that does, such as vlm:nano, or another judge"
        )
    return VlmJudge(model, spec, prompt or PROMPTS.get(model.identity.domain, PROMPT))


def read_prompt(value: Any) -> str:
    """The wording around a question. Raises UsageError unless `{question}` stands in it once."""
    if not isinstance(value, str) or value.count("{question}") != 1:
        raise UsageError(
            f"judge.args.prompt = {shown(value)}: give a text with {{question}} in it, such as {PROMPT!r}"
        )
    return value


class VlmJudge:
    """`evals.api.QuestionJudge` around an `evals.api.Answerer`."""

    def __init__(self, model: Any, spec: str, prompt: str = PROMPT) -> None:
        self.model, self.prompt = model, prompt
        inner = model.identity
        self.identity = Identity(
            name=f"vlm:{spec}",
            version=f"1, model {inner.version}",
            digest=inner.digest,
            domain=inner.domain,
            is_test_double=inner.is_test_double,
            settings={"prompt": prompt, "max_new_tokens": MAX_NEW_TOKENS, "model": dict(inner.settings)},
            batch_size=inner.batch_size,
            info=dict(inner.info),
        )

    def load(self) -> None:
        self.model.load()

    def close(self) -> None:
        self.model.close()

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has measured it."""
        return {}

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[Any]:
        """ "yes" or "no" per (picture, question); an exception in place of what failed or cannot be read."""
        pictures, numbers = unique_pictures(images, questions)
        requests = [
            AnswerRequest(
                sample_id=f"question {n}",
                prompt=self.prompt.replace("{question}", str(question)),
                seed=0,
                images=(pictures[number],),
                max_new_tokens=MAX_NEW_TOKENS,
            )
            for n, (number, question) in enumerate(zip(numbers, questions, strict=True))
        ]
        size = self.identity.batch_size
        texts: list[Any] = []
        for start in range(0, len(requests), size):
            texts += self.model.answer(requests[start : start + size])
        return [text if isinstance(text, Exception) else read_or_error(str(text)) for text in texts]
