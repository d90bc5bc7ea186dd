"""First phase of a run: requests -> outputs on disk, batch by batch.

A sample that fails becomes an error line and never stops its neighbours: when a whole call fails, the
batch is halved until the failing samples stand alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from evals.api import AnswerRequest, GenerationRequest, Model, Output, TaskKind
from evals.config import RunConfig
from evals.errors import EvalError, ModelError, StoreError
from evals.jsonl import LineWriter
from evals.plan import Batch, Plan
from evals.progress import Progress
from evals.results import output_to_json
from evals.store import RunStore, writing

_GIVE_UP_AFTER = 16  # outputs that failed from the very first one on


def one_line(error: BaseException, limit: int = 300) -> str:
    """``RuntimeError: first line of its message``."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")[:limit]


def generate_outputs(
    store: RunStore,
    plan: Plan,
    pending: Sequence[Batch],
    model: Model,
    config: RunConfig,
    kind: TaskKind,
    shard: tuple[int, int],
    progress: Progress,
) -> None:
    """Make the outputs of the pending batches; each batch is on disk before the next starts.

    Raises ModelError when the first 16 outputs (two batches, if those are larger) all failed: then
    the model as a whole is broken, and going on would only burn time.
    """
    call = model.generate if kind == "generation" else model.answer  # type: ignore[attr-defined]
    give_up_after = max(_GIVE_UP_AFTER, 2 * plan.batch_size)
    done = failed = 0
    path = store.outputs_path(shard)
    with writing(path), LineWriter(path) as writer:
        for batch in pending:
            requests = [make_request(plan, p, config, kind) for p in batch.positions]
            began = time.monotonic()
            results = call_split(call, requests, is_divisible=not plan.series)
            seconds = (time.monotonic() - began) / len(batch)
            rows = [
                _store_result(store, plan, position, result, kind, seconds)
                for position, result in zip(batch.positions, results, strict=True)
            ]
            writer.append(rows)
            errors = [row["error"] for row in rows if row["status"] == "error"]
            done += len(rows)
            failed += len(errors)
            progress.advance(len(rows), len(errors))
            if failed == done >= give_up_after:
                raise ModelError(
                    f"the first {done} outputs of model {model.identity.name!r} all failed ({errors[0]}); "
                    "when the cause is removed, run the same command again with --retry-errors"
                )


def make_request(plan: Plan, position: int, config: RunConfig, kind: TaskKind) -> Any:
    """The request at a position of the plan."""
    sample, index = plan.place(position)
    seed = plan.seed_of(position)
    if kind == "understanding":
        return AnswerRequest(sample.id, sample.prompt, seed, sample.images)
    settings = config.generation
    return GenerationRequest(
        sample_id=sample.id,
        image_index=index,
        prompt=sample.prompt,
        seed=seed,
        series=plan.series,
        guidance_scale=settings.guidance_scale,
        steps=settings.steps,
        height=settings.height,
        width=settings.width,
        images=sample.images,
    )


def call_split(
    call: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], is_divisible: bool = True
) -> list[Any]:
    """``call(items)``, or halves of it where it raises; an exception object for items that fail alone.

    Serves samples that a model or judge chokes on and batches that do not fit into memory alike.
    """
    try:
        results = list(call(items))
    except EvalError:
        raise
    except Exception as error:  # whatever a model raises is recorded, not interpreted
        if len(items) == 1 or not is_divisible:
            return [error] * len(items)
        _free_device_memory()
        middle = len(items) // 2
        return call_split(call, items[:middle]) + call_split(call, items[middle:])
    if len(results) != len(items):
        raise ModelError(f"{len(items)} requests were answered with {len(results)} results")
    return results


def _free_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _store_result(
    store: RunStore, plan: Plan, position: int, result: Any, kind: TaskKind, seconds: float
) -> dict[str, Any]:
    sample, index = plan.place(position)
    seed = plan.seed_of(position)
    extra: dict[str, Any] = {}
    output = Output(sample.id, index, seed, seconds=seconds)
    if not isinstance(result, Exception):
        try:
            if kind == "generation":
                extra = store.write_image(sample, index, result)
            elif isinstance(result, str):
                extra = {"text": result}
            else:
                raise TypeError(f"expected a text, got {type(result).__name__}")
        except StoreError:
            raise
        except Exception as error:  # not a picture after all
            result = error
    if isinstance(result, Exception):
        output = Output(
            sample.id, index, seed, status="error", error=one_line(result), seconds=seconds
        )
    return output_to_json(output, group=sample.group, prompt=sample.prompt, **extra)
