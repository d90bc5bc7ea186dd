"""lmms-eval's filters and ``process_results`` on one document's answers."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals.lmms import package
from evals.lmms.documents import Documents
from evals.phases.plan import sample_seed

Payloads = Mapping[str, Mapping[str, Any]]
"""Filter -> metric -> what the metric's aggregation reads of this document."""


def payloads(documents: Documents, task: str, doc_id: int, texts: Sequence[str]) -> tuple[Payloads, bool]:
    """What lmms-eval would hand on to its aggregations, and whether the scorer drew at random.

    Some do where they cannot read an answer (MMMU guesses a letter). The draw is made a function of the document here,
    so that a resumed run or another shard draws the same.

    Args: texts: the stored answers to the document, one per repeat. Of choices, JSON: a list of [log-likelihood,
    is greedy]; of several rounds, JSON: the list of answers.
    Raises: whatever the task's scorer raises.
    """
    import numpy as np

    before = random.getstate(), np.random.get_state()
    seed = sample_seed(0, f"{task}/{doc_id}", 0) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    start = _places()
    try:
        found = in_sequence(documents, task, doc_id, texts)
        return found, _places() != start
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _places() -> tuple[object, object]:
    """Where the two global generators stand; a draw moves one of them on."""
    import numpy as np

    return random.getstate(), np.random.get_state(legacy=False)["state"]["pos"]


@contextlib.contextmanager
def seeded_as_theirs() -> Iterator[None]:
    """The random state in which lmms-eval's evaluator begins."""
    import numpy as np

    before = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def in_sequence(documents: Documents, task: str, doc_id: int, texts: Sequence[str]) -> Payloads:
    """``payloads`` with draws from the global state, as lmms-eval's evaluator makes them one document after another."""
    one = documents.loaded.tasks[task]
    document = documents.document(task, doc_id)
    answered = [_answered(i, k, texts) for k, i in enumerate(documents.requests(task)[doc_id])]
    found: dict[str, Mapping[str, Any]] = {}
    with package.quietly():
        for ensemble in _filters(one):
            for instance in answered:
                instance.filtered_resps = {}
            ensemble.apply(answered, [document] * len(answered))
            results = [_without_reasoning(one, i.filtered_resps[ensemble.name]) for i in answered]
            found[ensemble.name] = _process(one, documents.document(task, doc_id), results)
    return found


def _answered(instance: Any, place: int, texts: Sequence[str]) -> Any:
    made = copy.copy(instance)
    kind = instance.request_type
    if kind == "loglikelihood":
        if not all(texts):
            raise ValueError("a failed answer to choices has no empty form")
        made.resps = [_likelihood(json.loads(text)[place]) for text in texts]
    elif kind == "generate_until_multi_round":
        made.resps = [json.loads(text) if text else [""] for text in texts]
    else:
        made.resps = list(texts)
    return made


def _likelihood(pair: Sequence[Any]) -> tuple[float, bool]:
    """lmms-eval takes the smallest: its models return losses where their interface says log-likelihood."""
    return -float(pair[0]), bool(pair[1])


def _filters(one: Any) -> list[Any]:
    """The task's filters; reasoning in tags is cut first where the task asks for that."""
    if not one.get_config("auto_strip_thinking") or _tags(one) is not None:
        return list(one._filters)
    strip = package.load("lmms_eval.filters.transformation").StripThinkingFilter
    changed = [copy.copy(ensemble) for ensemble in one._filters]
    for ensemble in changed:
        ensemble.filters = [strip(), *ensemble.filters]
    return changed


def _tags(one: Any) -> Any:
    reasoning = package.load("lmms_eval.api.reasoning")
    return reasoning.parse_reasoning_tags_config(task_value=one.get_config("reasoning_tags"))


def _without_reasoning(one: Any, filtered: Any) -> Any:
    tags = _tags(one)
    if tags is None:
        return filtered
    strip = package.load("lmms_eval.api.reasoning").strip_reasoning_tags
    if isinstance(filtered, list):
        return [strip(text, tags) if isinstance(text, str) else text for text in filtered]
    return strip(filtered, tags) if isinstance(filtered, str) else filtered


def _process(one: Any, document: Mapping[str, Any], results: list[Any]) -> Mapping[str, Any]:
    """``process_results`` without its retries: an exception is repeated five times, two seconds apart."""
    decorated = type(one).process_results
    bare = getattr(decorated, "__wrapped__", decorated)
    return dict(bare(one, document, results))
