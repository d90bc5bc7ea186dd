"""The phase that makes outputs: the model is loaded, and judging goes on beside it where that pays."""

from __future__ import annotations

from collections.abc import Iterable

from evals.io.jsonl import Scan
from evals.phases import answers, costs, readymade
from evals.phases.attempts import Attempts
from evals.phases.beside import NOT_BESIDE, Beside, NotBeside, judging, pays
from evals.phases.generate import generate_outputs, make_request
from evals.phases.loaded import Kept, loaded_calls
from evals.phases.parts import RunParts
from evals.phases.plan import Batch, Plan
from evals.phases.progress import Progress
from evals.phases.records import read_scores
from evals.store import whole_batches


def make_outputs(run: RunParts, plan: Plan, outputs: Scan) -> None:
    """Make what is missing of this process's batches.

    Raises: UsageError before the model is loaded, if it costs more than was allowed; ModelError, StoreError.
    """
    shard = run.options.shard
    pending = whole_batches(plan, outputs, shard)
    if not pending:
        return
    _announce(run, plan, pending)
    run.store.drop_scores(plan, run.judge_batch_size, pending)
    mine = sum(len(b) for b in plan.batches(shard))
    left = sum(len(b) for b in pending)
    call = run.model.generate if run.is_generation else answers.of(run.model)  # type: ignore[attr-defined]
    attempts = run.store.attempts("generate", shard)
    label = "read" if run.is_readymade else "generate"
    run.say(f"{'outputs of' if run.is_readymade else 'load model'} {run.model.identity.name}")
    kept = Kept()
    beside = _beside(run, kept, plan, outputs, pending, attempts)
    with (
        beside,
        loaded_calls(
            "generate",
            run.model,
            call,
            attempts,
            run.store,
            run.session,
            timeout_s=run.options.sample_timeout_s,
            is_divisible=not plan.series,
        ) as caller,
        Progress(label, mine, mine - left, is_quiet=run.options.quiet) as progress,
    ):
        try:
            generate_outputs(
                run.store,
                plan,
                pending,
                caller,
                run.config,
                run.task.kind,
                shard,
                attempts,
                progress,
                is_readymade=run.is_readymade,
                has_seeds=not readymade.is_made_elsewhere(run.store.manifest),
                beside=beside,
            )
        finally:
            seconds = round(progress.seconds, 2)
            if run.is_readymade:
                run.session.note(read=left, read_s=seconds)
            else:
                run.session.note(generated=left, generate_s=seconds)
            if caller.is_here:  # a child process cannot tell
                costs.note_outputs(run.model, run.session, run.store)
    if beside.scored:
        run.session.note(
            scored=beside.scored,
            scored_beside=beside.scored,
            score_s=round(beside.seconds, 2),
            **kept.values,
        )
        costs.note_judging(run.judge, run.session)


def _beside(
    run: RunParts, kept: Kept, plan: Plan, outputs: Scan, remade: list[Batch], generating: Attempts
) -> Beside | NotBeside:
    """Judges outputs while others are made, unless shards, which whoever merges them judges, or a time limit on
    calls speak against it."""
    options, judge = run.options, run.judge
    is_alone = not run.is_shard and not run.is_readymade
    is_limited = options.sample_timeout_s is not None or generating.is_suspicious
    if judge is None or options.judge_when == "after" or not is_alone or is_limited:
        return NOT_BESIDE
    return judging(
        run.store,
        plan,
        outputs,
        remade,
        read_scores(run, plan),
        judge,
        lambda part: run.task.score(part, judge),
        run.judge_batches(plan),
        kept,
        is_worthwhile=lambda: (
            options.judge_when == "beside" or pays(run.model, judge, run.config.model.device)
        ),
        is_quiet=options.quiet,
    )


def _announce(run: RunParts, plan: Plan, pending: Iterable[Batch]) -> None:
    """Say what the pending outputs will cost. Raises UsageError when that is more than was allowed."""
    positions = (position for batch in pending for position in batch.positions)
    kind = run.task.kind
    run.say(
        costs.of_outputs(run.model, (make_request(plan, p, run.config, kind) for p in positions))
    )


def announce_judging(run: RunParts, plan: Plan, outputs: Scan) -> None:
    """The same for the judge, before anything is made."""
    run.say(costs.of_judging(run.judge, run.task, plan, outputs, read_scores(run, plan)))
