"""The phase that judges what was not judged while it was made."""

from __future__ import annotations

from evals.errors import StoreError
from evals.io.jsonl import Scan
from evals.phases import costs
from evals.phases.loaded import loaded_calls
from evals.phases.parts import RunParts
from evals.phases.plan import Plan
from evals.phases.progress import Progress
from evals.phases.records import read_scores
from evals.phases.scoring import score_outputs


def judge_outputs(run: RunParts, plan: Plan, outputs: Scan) -> None:
    """Judge what has no score, batch by batch. Raises: JudgeError and StoreError, with everything so far on disk."""
    scores = read_scores(run, plan)
    pending = [b for b in run.judge_batches(plan) if not scores.has_batch(b)]
    if not pending:
        return
    left = sum(len(b) for b in pending)
    attempts = run.store.attempts("score")
    if run.judge is not None:
        run.say(f"load judge {run.judge.identity.name}")
    with (
        loaded_calls(
            "score",
            run.judge,
            lambda part: run.task.score(part, run.judge),
            attempts,
            run.store,
            run.session,
            timeout_s=run.options.sample_timeout_s,
        ) as caller,
        Progress("score", len(plan), len(plan) - left, is_quiet=run.options.quiet) as progress,
    ):
        before, is_here = run.session.data, caller.is_here
        try:
            score_outputs(run.store, plan, outputs, pending, caller, attempts, progress)
        finally:
            if is_here:
                costs.note_judging(run.judge, run.session)
        run.session.note(
            scored=left + before.get("scored", 0),
            score_s=round(progress.seconds + before.get("score_s", 0.0), 2),
        )
    if scores.num_done and not read_scores(run, plan).is_clean:
        raise StoreError(f"{run.store.root}: scores.jsonl changed while it was written")
