"""What models and judges that cost money say: the estimate before anything is made, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evals.api import Judge, Model, Observer, PaidJudge, PaidModel, Task
from evals.io.jsonl import Scan
from evals.phases.plan import Plan
from evals.phases.sessions import Session
from evals.store import RunStore


def of_outputs(model: Model, requests: Iterable[Any]) -> str | None:
    """The line about pending outputs; None for models that cost nothing. Raises UsageError when it is too much."""
    return model.announce(requests) if isinstance(model, PaidModel) else None


def of_judging(judge: Judge | None, task: Task, plan: Plan, outputs: Scan, scores: Scan) -> str | None:
    """The line about outputs without a score; None where judging costs nothing. Raises UsageError as `of_outputs`."""
    if not isinstance(judge, PaidJudge):
        return None
    positions = [p for p in range(len(plan)) if not (scores.has(p) and outputs.has(p))]
    of_sample = getattr(task, "num_questions", lambda sample: 1)
    questions = sum(of_sample(plan.place(p)[0]) for p in positions)
    return judge.announce(len(positions), questions) if positions else None


def note_outputs(model: Model, session: Session, store: RunStore) -> None:
    """Keep what the model asked for, and what it has seen."""
    if isinstance(model, PaidModel):
        session.note(usage=dict(model.usage()))
    if isinstance(model, Observer):
        known = store.manifest["warnings"]
        news = [text for text in model.observations() if text not in known]
        if news:
            store.update_manifest(lambda m: m["warnings"].extend(news))


def note_judging(judge: Judge | None, session: Session) -> None:
    """Keep what the judge asked for."""
    if isinstance(judge, PaidJudge):
        session.note(judge_usage=dict(judge.usage()))
