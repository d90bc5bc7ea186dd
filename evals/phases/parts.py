"""What every phase of a run works with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from evals.api import Judge, Metric, Model, Sample, Task
from evals.config import RunConfig
from evals.phases import readymade
from evals.phases.outcome import RunOptions
from evals.phases.plan import Batch, Plan, cut
from evals.phases.sessions import Session
from evals.store import RunStore


@dataclass(frozen=True)
class RunParts:
    """``samples``: those of this run, in the official order; ``per_sample``: outputs of each; ``metrics``: asked for
    beside the task's own."""

    config: RunConfig
    options: RunOptions
    task: Task
    model: Model
    judge: Judge | None
    samples: Sequence[Sample]
    per_sample: int
    metrics: Sequence[Metric]
    store: RunStore
    session: Session

    @property
    def is_generation(self) -> bool:
        return self.task.kind == "generation"

    @property
    def is_readymade(self) -> bool:
        """Whether the outputs were made before, so that the model only reads them."""
        return isinstance(self.model, readymade.Readymade)

    @property
    def is_shard(self) -> bool:
        """Whether this process makes a part of the outputs only."""
        return self.options.shard[1] > 1

    def plan(self) -> Plan:
        """All outputs in order, cut into batches as the manifest says."""
        return Plan(
            self.samples,
            self.per_sample,
            self.store.manifest["auto"]["batch_size"],
            self.config.seed,
            series=self.config.seed_mode == "upstream",
        )

    @property
    def judge_batch_size(self) -> int:
        return int(self.store.manifest["auto"]["judge.batch_size"])

    def judge_batches(self, plan: Plan) -> list[Batch]:
        return list(cut(len(plan), self.judge_batch_size))

    def say(self, text: str | None) -> None:
        """A line on stderr, unless the run is quiet."""
        if text is not None and not self.options.quiet:
            print(text, file=sys.stderr, flush=True)
