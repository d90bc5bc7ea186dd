"""Outputs and scores as they lie on disk when a phase begins, with what is damaged or unfinished taken out."""

from __future__ import annotations

import logging

from evals import unfinished
from evals.errors import UsageError
from evals.io.files import writing
from evals.io.jsonl import Scan
from evals.phases.parts import RunParts
from evals.phases.plan import Plan

log = logging.getLogger("evals")


def read_outputs(run: RunParts, plan: Plan) -> Scan:
    """What is on disk; the file that this process appends to is left with whole batches only."""
    outputs = run.store.scan_outputs(plan)
    if run.options.merge_only and outputs.num_done < len(plan):
        raise UsageError(unfinished.explain(run.store.root, plan, outputs, run.store.manifest))
    for place in outputs.damaged:
        log.warning("%s/%s is damaged: its batch is made again", run.store.root, place)
    if run.options.retry_errors:
        for batch in plan.batches():
            if any(outputs.is_error[p] and outputs.has(p) for p in batch.positions):
                outputs.forget(batch)
    if outputs.is_clean or not outputs.files:
        return outputs
    if not run.is_shard:
        return merge_outputs(run, plan, outputs)
    own = run.store.outputs_path(run.options.shard)
    if own in outputs.files:
        with writing(own):
            outputs.only(own).rewrite(own)
    return run.store.scan_outputs(plan)


def merge_outputs(run: RunParts, plan: Plan, outputs: Scan) -> Scan:
    """One ``outputs.jsonl`` in plan order; shard files go once their lines are in it."""
    if outputs.is_clean and outputs.files == [run.store.outputs_path()]:
        return outputs
    path = run.store.outputs_path()
    with writing(path):
        outputs.rewrite(path)
        for shard_file in run.store.shard_files():
            shard_file.unlink()
    return run.store.scan_outputs(plan)


def read_scores(run: RunParts, plan: Plan) -> Scan:
    """What is on disk, whole batches only; the others are dropped from the file."""
    scores = run.store.scan_scores(plan, run.judge_batch_size)
    for place in scores.damaged:
        log.warning("%s/%s is damaged: its batch is scored again", run.store.root, place)
    if scores.files and not scores.is_clean:
        with writing(run.store.root):
            scores.rewrite(scores.files[0])
        scores = run.store.scan_scores(plan, run.judge_batch_size)
    return scores


def forget_judge_failures(run: RunParts, plan: Plan) -> None:
    """Drop the scores of batches in which the judge failed, so that they are made again."""
    scores = read_scores(run, plan)
    for batch in run.judge_batches(plan):
        if any(scores.is_error[p] and scores.has(p) for p in batch.positions):
            scores.forget(batch)
    if scores.files and not scores.is_clean:
        with writing(run.store.root):
            scores.rewrite(scores.files[0])
