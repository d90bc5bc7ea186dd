"""Any model that answers in text, as judge: `--judge vlm:MODEL`, with every name that `--model` takes.

Its answers to questions are read strictly: yes or no, and nothing beside it. What cannot be read leaves the picture
unscored with the reason, and counts against `--max-errors`. What it says to an instruction, the task reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import AnswerRequest, Identity, ModelOptions
from evals.errors import UsageError, shown
from evals.judges.instruction import instruction_settings, read_instruction
from evals.judges.pairs import unique_pictures
from evals.judges.parse import read_or_error
from evals.judges.pretrained import chunks

PROMPT = "{question}\nAnswer with yes or no only."
PROMPTS = {"stickers": "{question}"}
"""Domain of a model -> the wording it is asked in: nano was trained on bare questions."""
MAX_NEW_TOKENS = 16


def create(spec: str, options: ModelOptions) -> VlmJudge:
    """Factory for `--judge vlm:MODEL`.

    `judge.args.prompt` replaces the wording of `PROMPT` and `PROMPTS`, `judge.args.instruction` names a file
    (`evals.judges.instruction`); the rest of judge.args are arguments of the model.
    """
    from evals.config import ModelConfig, RunConfig
    from evals.plugins.lookup import find_model

    if not spec:
        raise UsageError("judge 'vlm' needs a model: vlm:MODEL, such as vlm:nano (`blip3o-eval list models`)")
    extra = dict(options.extra)
    given = extra.pop("prompt", None)
    instruction = read_instruction(extra.pop("instruction", None))
    prompt = None if given is None else read_prompt(given)
    model = find_model(
        RunConfig(task="dpg", model=ModelConfig(name=spec, device=options.device, args=extra))
    )
    if not hasattr(model, "answer"):
        raise UsageError(
            f"model {spec!r} answers no questions: choose one that does, such as vlm:nano, or another judge"
        )
    kind = ScoringVlmJudge if hasattr(model, "log_likelihoods") else VlmJudge
    return kind(model, spec, prompt or PROMPTS.get(model.identity.domain, PROMPT), instruction)


def read_prompt(value: Any) -> str:
    """The wording around a question. Raises UsageError unless `{question}` stands in it once."""
    if not isinstance(value, str) or value.count("{question}") != 1:
        raise UsageError(
            f"judge.args.prompt = {shown(value)}: give a text with {{question}} in it, such as {PROMPT!r}"
        )
    return value


class VlmJudge:
    """`evals.api.QuestionJudge` and `InstructedJudge` around an `evals.api.Answerer`."""

    def __init__(self, model: Any, spec: str, prompt: str = PROMPT, instruction: str | None = None) -> None:
        self.model, self.prompt, self.instruction = model, prompt, instruction
        inner = model.identity
        self.identity = Identity(
            name=f"vlm:{spec}",
            version=f"1, model {inner.version}",
            digest=inner.digest,
            domain=inner.domain,
            is_test_double=inner.is_test_double,
            settings={
                "prompt": prompt,
                "max_new_tokens": MAX_NEW_TOKENS,
                "model": dict(inner.settings),
                **instruction_settings(instruction),
            },
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
        texts: list[Any] = []
        for part in chunks(self._requests(images, questions, self.prompt), self.identity.batch_size):
            texts += self.model.answer(part)
        return [text if isinstance(text, Exception) else read_or_error(str(text)) for text in texts]

    def reply(self, images: Sequence[Any], instructions: Sequence[str], max_tokens: int) -> Sequence[Any]:
        """What the model says, as it is; an exception in place of what failed."""
        texts: list[Any] = []
        requests = self._requests(images, instructions, free_prompt(self.prompt), max_tokens)
        for part in chunks(requests, self.identity.batch_size):
            texts += self.model.answer(part)
        return texts

    def _requests(
        self, images: Sequence[Any], questions: Sequence[str], prompt: str, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[AnswerRequest]:
        pictures, numbers = unique_pictures(images, questions)
        return [
            AnswerRequest(
                sample_id=f"question {n}",
                prompt=prompt.replace("{question}", str(question)),
                seed=0,
                images=(pictures[number],),
                max_new_tokens=max_new_tokens,
            )
            for n, (number, question) in enumerate(zip(numbers, questions, strict=True))
        ]


class ScoringVlmJudge(VlmJudge):
    """Also `evals.api.ProbabilityJudge`, around an `evals.api.LikelihoodModel`."""

    def probability(self, images: Sequence[Any], questions: Sequence[str], answer: str) -> Sequence[Any]:
        """Probability that the model's answer begins with ``answer``; see `free_prompt`."""
        found: list[Any] = []
        requests = self._requests(images, questions, free_prompt(self.prompt))
        for part in chunks(requests, self.identity.batch_size):
            found += self.model.log_likelihoods(part, [answer] * len(part))
        return [one if isinstance(one, Exception) else math.exp(min(0.0, float(one))) for one in found]


def free_prompt(prompt: str) -> str:
    """The wording around what says itself how it wants to be answered, such as an instruction or a question whose
    answer's probability is asked: the default wordings of `ask` are left out, one that the user gave is kept."""
    return "{question}" if prompt in (PROMPT, *PROMPTS.values()) else prompt
