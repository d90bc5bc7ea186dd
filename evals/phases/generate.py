"""First phase of a run: requests -> outputs on disk, batch by batch.

A sample that fails becomes an error line and never stops its neighbours (``evals.phases.calls``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from evals.api import AnswerRequest, GenerationRequest, Output, TaskKind
from evals.config import RunConfig
from evals.errors import ModelError, StoreError
from evals.io.jsonl import LineWriter
from evals.phases.attempts import Attempts
from evals.phases.beside import NOT_BESIDE, Beside, NotBeside
from evals.phases.calls import one_line
from evals.phases.plan import Batch, Plan
from evals.phases.progress import Progress
from evals.results import output_to_json
from evals.store import RunStore, writing

_GIVE_UP_AFTER = 16  # outputs that failed from the very first one on


def generate_outputs(
    store: RunStore,
    plan: Plan,
    pending: Iterable[Batch],
    call: Callable[[Sequence[Any]], Sequence[Any]],
    config: RunConfig,
    kind: TaskKind,
    shard: tuple[int, int],
    attempts: Attempts,
    progress: Progress,
    is_readymade: bool = False,
    has_seeds: bool = True,
    beside: Beside | NotBeside = NOT_BESIDE,
) -> None:
    """Make the outputs of the pending batches; each batch is on disk before the next starts.

    Raises ModelError when the first 16 outputs (two batches, if those are larger) all failed: then
    the model as a whole is broken, and going on would only burn time. Outputs that lie ready
    (``is_readymade``) are read to the end: gaps are no reason to stop, and nobody knows their seconds;
    ``has_seeds`` is False where nobody knows their seeds either. ``beside`` is told of each batch.
    """
    give_up_after = max(_GIVE_UP_AFTER, 2 * plan.batch_size)
    done = failed = 0
    path = store.outputs_path(shard)
    with writing(path), LineWriter(path) as writer:
        beside.starting()
        for batch in pending:
            requests = [make_request(plan, p, config, kind) for p in batch.positions]
            attempts.starting(batch.start)
            began = time.monotonic()
            results = call(requests)
            seconds = None if is_readymade else (time.monotonic() - began) / len(batch)
            rows = [
                _store_result(
                    store,
                    plan,
                    position,
                    result,
                    kind,
                    seed=plan.seed_of(position) if has_seeds else None,
                    seconds=seconds,
                )
                for position, result in zip(batch.positions, results, strict=True)
            ]
            writer.append(rows)
            beside.made(batch)
            errors = [row["error"] for row in rows if row["status"] == "error"]
            done += len(rows)
            failed += len(errors)
            progress.advance(len(rows), len(errors))
            if failed == done >= give_up_after and not is_readymade:
                raise ModelError(
                    f"the first {done} outputs of model {config.model.name!r} all failed ({errors[0]}); "
                    "when the cause is removed, run the same command again with --retry-errors"
                )


def make_request(plan: Plan, position: int, config: RunConfig, kind: TaskKind) -> Any:
    """The request at a position of the plan."""
    sample, index = plan.place(position)
    seed = plan.seed_of(position)
    if kind == "understanding":
        return AnswerRequest(
            sample.id,
            sample.prompt,
            seed,
            sample.images,
            sample.max_new_tokens,
            sample.stop,
            sample.sampling,
            sample.choices,
            sample.dialogue,
        )
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


def _store_result(
    store: RunStore,
    plan: Plan,
    position: int,
    result: Any,
    kind: TaskKind,
    *,
    seed: int | None,
    seconds: float | None,
) -> dict[str, Any]:
    sample, index = plan.place(position)
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
