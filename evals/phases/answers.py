"""What a task asks of a model beside one text: log-likelihoods of choices, and dialogues of several rounds.

Both are made of plain calls of the model, so any answerer serves dialogues, and any with ``log_likelihoods`` choices.
The result is stored as a text, as any answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evals.api import AnswerRequest, Model
from evals.errors import EvalError, UsageError

Answers = Callable[[Sequence[AnswerRequest]], Sequence[Any]]


def of(model: Model) -> Answers:
    """``model.answer`` for requests of every kind."""
    plain: Answers = model.answer  # type: ignore[attr-defined]

    def answer(requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        if not any(r.choices or r.dialogue for r in requests):
            return plain(requests)
        found: list[Any] = [None] * len(requests)
        kinds: dict[str, list[int]] = {"plain": [], "choices": []}
        for place, request in enumerate(requests):
            if request.dialogue is not None:
                found[place] = _dialogue(plain, request)
            else:
                kinds["choices" if request.choices else "plain"].append(place)
        for kind, call in (("plain", plain), ("choices", lambda part: _choices(model, part))):
            places = kinds[kind]
            if places:
                made = call([requests[place] for place in places])
                for place, result in zip(places, made, strict=True):
                    found[place] = result
        return found

    return answer


def _dialogue(answer: Answers, request: AnswerRequest) -> Any:
    """The stored answer, or what one of its rounds raised."""

    def ask(prompt: str, pictures: Sequence[Any]) -> str:
        one = replace(request, prompt=prompt, images=tuple(pictures), dialogue=None)
        result = answer([one])[0]
        if isinstance(result, Exception):
            raise result
        return str(result)

    assert request.dialogue is not None
    try:
        return request.dialogue(ask)
    except EvalError:
        raise
    except Exception as error:
        return error


def _choices(model: Model, requests: Sequence[AnswerRequest]) -> list[Any]:
    """JSON per request, ``[[log-likelihood, is greedy], ...]``; an exception where one of its choices failed."""
    if not hasattr(model, "log_likelihoods"):
        raise UsageError(
            f"model {model.identity.name!r} gives no log-likelihoods, which this task compares: choose another model, "
            "or the task's edition with written answers"
        )
    asked = [
        (replace(request, prompt=choice.prompt, choices=()), choice)
        for request in requests
        for choice in request.choices
    ]
    values = iter(model.log_likelihoods([r for r, _ in asked], [c.text for _, c in asked]))
    greedy = _greedy(model, [r for r, c in asked if c.needs_greedy])
    found: list[Any] = []
    for request in requests:
        likelihoods = [next(values) for _ in request.choices]
        texts = [greedy.get((request.sample_id, choice.prompt)) for choice in request.choices]
        failed = next((v for v in (*likelihoods, *texts) if isinstance(v, Exception)), None)
        found.append(
            failed
            or json.dumps(
                [
                    [float(value), text is not None and text.strip().startswith(choice.text.strip())]
                    for value, text, choice in zip(likelihoods, texts, request.choices, strict=True)
                ]
            )
        )
    return found


def _greedy(model: Model, requests: Sequence[AnswerRequest]) -> dict[tuple[str, str], Any]:
    """(sample id, prompt) -> what the model writes by itself."""
    once = {(r.sample_id, r.prompt): r for r in requests}
    if not once:
        return {}
    texts = model.answer(list(once.values()))  # type: ignore[attr-defined]
    return dict(zip(once, texts, strict=True))
