"""One job of a sweep: ``python -m evals.sweeps.point FOLDER`` trains and evaluates a point, or trains a shared stage.

All it needs lies in the folder and around it, so any executor that can run a command will do. Every step is on disk
before the next one starts, and each first looks at what is there: the same command resumes. Training comes first, then
the checkpoints that it left are evaluated in order, so that no scoring is counted as training.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from evals.errors import EvalError, TooManyFailuresError
from evals.io.locks import FileLock
from evals.io.redact import redact
from evals.phases.calls import one_line
from evals.provenance import now
from evals.sweeps import folder as files
from evals.sweeps.api import Checkpoint, Compute, StageResult, StageSpec
from evals.sweeps.folder import CurveRow, Evaluation, Figure, Point, PointResult, State, SweepFolder

_SHOW_EVERY_S = 1.0
_LOCK = ".job.lock"
# What each part of a point is worth in its progress where nothing better is known.
_TRAINING_SHARE = 0.5


def run_job(folder: Path) -> None:
    """Do what the folder of a point or a stage says, to the end, and leave the outcome in ``state.json``.

    Raises: what went wrong, after it was written down; LockedError if another process works here.
    """
    is_point = (folder / files.POINT).exists()
    if not is_point and not (folder / files.STAGE).exists():
        raise EvalError(f"{folder} is neither a point nor a stage of a sweep: it has no {files.POINT}")
    with FileLock(folder / _LOCK).acquire(what="point" if is_point else "stage"):
        before = files.read_state(folder)
        work = _Work(folder, before)
        try:
            if is_point:
                work.point(files.read_point(folder))
            else:
                work.stage(files.read_stage(folder))
        except Exception as error:
            work.end("failed", one_line(error), files.is_disk_full(error))
            raise
        work.end("done")


class _Work:
    """The state of a job while it works, and its steps."""

    def __init__(self, folder: Path, before: State) -> None:
        self.folder = folder
        self.sweep = SweepFolder(folder.parent.parent)
        self.state = before.begun()
        self._began = self._shown = time.monotonic()
        # A point that failed before may have outputs that failed; after a mere interruption there is nothing to retry.
        self._retries_errors = before.error is not None
        files.write_state(folder, self.state)

    def end(self, status: files.Status, error: str | None = None, is_fatal: bool = False) -> None:
        seconds = self.state.seconds + time.monotonic() - self._began
        self.state = replace(
            self.state, status=status, error=error, is_fatal=is_fatal, finished=now(),
            seconds=round(seconds, 2), doing=None, progress=1.0 if status == "done" else self.state.progress,
        )  # fmt: skip
        files.write_state(self.folder, self.state)

    def _show(self, doing: str, progress: float, is_new: bool = False) -> None:
        if is_new or time.monotonic() - self._shown >= _SHOW_EVERY_S:
            self._shown = time.monotonic()
            self.state = replace(self.state, doing=doing, progress=round(progress, 4))
            files.write_state(self.folder, self.state, is_durable=False)

    # -- training -----------------------------------------------------------------------------

    def stage(self, spec: StageSpec) -> None:
        self._train(spec, 0.0, 1.0)

    def _train(self, spec: StageSpec, since: float, until: float) -> StageResult:
        """Train a stage, or read what came of it; ``since`` and ``until`` are shares of the job's progress."""
        from evals.sweeps.trainers import find_trainer

        folder = self.sweep.stage_folder(spec.id)
        if files.is_complete(folder):
            found = files.read_stage_result(folder)
            assert found is not None
            return found
        doing = f"train {spec.name}"
        self._show(doing, since, is_new=True)

        def on_checkpoint(checkpoint: Checkpoint) -> None:
            share = checkpoint.compute.steps / max(checkpoint.total_steps, 1)
            text = f"{doing}, step {checkpoint.compute.steps} of {checkpoint.total_steps}"
            self._show(text, since + share * (until - since))

        trainer, _ = find_trainer(self.sweep.sweep()["definition"]["base"]["train"])
        result = trainer.train_stage(spec, folder, self.sweep.stages_root, on_checkpoint)
        files.write_stage_result(folder, result)
        return result

    def _model_of(self, stage: str, step: int | None) -> str:
        from evals.sweeps.trainers import find_trainer

        trainer, _ = find_trainer(self.sweep.sweep()["definition"]["base"]["train"])
        name = "export" if step is None else f"export-step-{step}"
        return trainer.model_of(self.sweep.stage_folder(stage) / name)

    # -- a point ------------------------------------------------------------------------------

    def point(self, point: Point) -> None:
        trained = self._train_all(point.stages)
        share = _TRAINING_SHARE if point.stages else 0.0
        curve: list[CurveRow] = []
        metrics: dict[str, Figure] = {}
        seconds, is_double, weights = 0.0, False, None
        done = 0
        for step, evaluations in groupby(point.evaluations, key=lambda e: e.step):
            metrics = {}
            for evaluation in evaluations:
                progress = share + (1 - share) * done / len(point.evaluations)
                self._show(f"evaluate {evaluation.name} on {evaluation.task}", progress, is_new=True)
                results = self._evaluate(point, evaluation)
                metrics.update(_figures(evaluation.task, results))
                seconds += results["timing"]["generate_s"] + results["timing"]["score_s"]
                is_double = is_double or results["is_test_double"]
                weights = results["model"]["weights_sha256"]
                done += 1
            if trained:
                total = _compute_at(trained, step)
                last_step = trained[-1].compute.steps if step is None else step
                curve.append(CurveRow(last_step, total, metrics, is_final=step is None))
                files.write_curve(self.folder, curve)
        users = self.sweep.stage_users()
        own, shared = Compute(), Compute()
        for stage, result in zip(point.stages, trained, strict=True):
            if len(users[stage]) > 1:
                shared += result.compute
            else:
                own += result.compute
        files.write_result(
            self.folder,
            PointResult(
                metrics, own, shared, sum(r.parameters for r in trained), weights, round(seconds, 2),
                is_double, point.stages,
            ),
        )  # fmt: skip

    def _train_all(self, stages: Sequence[str]) -> list[StageResult]:
        trained = []
        for number, stage in enumerate(stages):
            folder = self.sweep.stage_folder(stage)
            since = _TRAINING_SHARE * number / len(stages)
            # Shared stages have run as jobs of their own; a point that is started by hand trains what is missing.
            with FileLock(folder / _LOCK).acquire(wait=True):
                until = since + _TRAINING_SHARE / len(stages)
                trained.append(self._train(files.read_stage(folder), since, until))
        return trained

    def _evaluate(self, point: Point, evaluation: Evaluation) -> Mapping[str, Any]:
        """``results.json`` of one run of the harness. Raises: TooManyFailuresError, and whatever a run raises."""
        from evals.config import RunConfig
        from evals.runner import evaluate

        settings = dict(evaluation.config)
        if point.stages:
            name = self._model_of(point.stages[-1], evaluation.step)
            settings["model"] = {**settings["model"], "name": name}
        config = RunConfig.model_validate(settings)
        run = evaluate(
            config.task,
            config.model.name,
            judge=config.judge.name,
            config=config,
            output=self.folder / evaluation.folder,
            retry_errors=self._retries_errors,
            quiet=True,
            report=False,  # `blip3o-eval report FOLDER` writes one; the sweep has a page of its own
        )
        if run.problem is not None:
            raise TooManyFailuresError(run.problem)
        assert run.results is not None
        return run.results


def _told(error: Exception) -> str:
    """The error in one line; those that are raised on purpose need no class name."""
    from blip3o.errors import Blip3oError

    if isinstance(error, (EvalError, Blip3oError)):
        return redact(" ".join(str(error).split()))
    return one_line(error)


def _figures(task: str, results: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, metric in results["metrics"].items():
        low, high = metric["ci95"] or (None, None)
        yield f"{task}/{name}", Figure(
            metric["value"], low, high, metric["n"], metric["unit"], metric["higher_is_better"], metric["note"]
        )  # fmt: skip


def _compute_at(trained: Sequence[StageResult], step: int | None) -> Compute:
    """All training up to a step of the last stage, the stages before it whole."""
    *before, last = trained
    total = last.compute if step is None else last.at[step]
    for result in before:
        total = result.compute + total
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done, 1: failed; what failed is also in ``state.json``."""
    from evals.cli.run import set_up_logging

    (folder,) = arguments if arguments is not None else sys.argv[1:]
    set_up_logging(is_verbose=False, is_quiet=False)
    try:
        run_job(Path(folder))
    except Exception as error:
        from blip3o.errors import Blip3oError

        if isinstance(error, (EvalError, Blip3oError)):
            print(redact(f"Error: {error}"), file=sys.stderr)
        else:
            sys.stderr.write(redact(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
