"""The last phase: figures, report and tracking, of a run whose outputs are all made and judged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evals import publish
from evals.io.files import json_problem, write_json
from evals.io.jsonl import Scan
from evals.phases import asked_pictures
from evals.phases.outcome import Run, problem_of
from evals.phases.parts import RunParts
from evals.phases.plan import Plan
from evals.phases.records import read_scores
from evals.phases.scoring import compute_results
from evals.phases.scoring import read_scores as score_rows
from evals.phases.sessions import timing
from evals.results import load
from evals.store import REPORT, RESULTS


def is_finished(run: RunParts, plan: Plan, outputs: Scan) -> bool:
    """Whether nothing is left to do but to publish; read from the files, not from the manifest alone."""
    root = run.store.root
    return (
        run.store.manifest["status"] == "finished"
        and json_problem(root / RESULTS) is None
        and _has_metrics(run)
        and outputs.num_done == len(plan)
        and not run.store.shard_files()
        and read_scores(run, plan).num_done == len(plan)
    )


def _has_metrics(run: RunParts) -> bool:
    results = load(run.store.root).results or {"metrics": {}}
    return all(metric.name in results["metrics"] for metric in run.metrics)


def finish(run: RunParts, plan: Plan) -> Run:
    """Write ``results.json``, then the report, then log the run."""
    rows = score_rows(read_scores(run, plan))
    results = compute_results(
        run.task, run.store.manifest, rows, timing(run.store.manifest["sessions"]), run.metrics
    )
    write_json(run.store.root / RESULTS, results)
    run.store.clear_leavings()
    run.store.update_manifest(lambda m: m.update(status="finished"))
    return _publish(run)


def finish_again(run: RunParts) -> Run:
    """Publish what was not, of a run that was finished before."""
    run.store.clear_leavings()
    return _publish(run, is_again=True)


def _publish(run: RunParts, is_again: bool = False) -> Run:
    root = run.store.root
    if run.options.report and not (is_again and _has_report(run)):
        run.say("write report")
        asked_pictures.keep(root, run.samples, run.task.groups)
        publish.write_report(root)
        record = {"sha256": _sha256_of(root / REPORT)}
        run.store.update_manifest(lambda m: m.update(report=record))
    mlflow = run.store.manifest["mlflow"]
    if run.config.tracking.enabled and not (is_again and publish.is_logged(mlflow)):
        run.say("track in MLflow")
        publish.track(run.store, run.config.tracking, mlflow)
    data = load(root)
    return Run(data, problem=problem_of(data, run.config.max_errors))


def _has_report(run: RunParts) -> bool:
    """Whether the report is there and whole."""
    recorded = run.store.manifest.get("report") or {}
    path = run.store.root / REPORT
    return path.exists() and recorded.get("sha256") == _sha256_of(path)


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
