"""A run from plan to report, phase by phase.

Each phase is on disk before the next starts, and every phase first looks at what is there. So the
same command resumes after any interruption, and on a finished run it only reads: no model is built
and torch is not imported.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals import fingerprint as fingerprints
from evals.api import Judge, Model, Task
from evals.config import RunConfig
from evals.errors import EvalError, LockedError
from evals.io.files import NotWritableError
from evals.manifest import new_manifest
from evals.phases import readymade
from evals.phases.finish import finish, finish_again, is_finished
from evals.phases.judge_outputs import judge_outputs
from evals.phases.make_outputs import announce_judging, make_outputs
from evals.phases.outcome import Run, RunOptions, problem_of
from evals.phases.parts import RunParts
from evals.phases.plan import Plan, spread_evenly
from evals.phases.records import forget_judge_failures, merge_outputs, read_outputs
from evals.phases.sessions import Session
from evals.plugins import requirements
from evals.plugins.lookup import find_metrics
from evals.results import load
from evals.store import RunStore

log = logging.getLogger("evals")
DEFAULT_ROOT = Path("runs")
_MAX_NAME = 120  # of a default folder, before its digest; file systems end at 255 bytes


def default_folder(task: str, model: str, config_sha256: str) -> Path:
    """``runs/geneval-nano-1a2b3c4d``; other characters than letters, digits, ``._-`` become ``-``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{task}-{model}")[:_MAX_NAME].strip("-.") or "run"
    return DEFAULT_ROOT / f"{name}-{config_sha256[:8]}"


class Prepared:
    """One run of one task; see `prepare`."""

    def __init__(
        self,
        config: RunConfig,
        options: RunOptions,
        task: Task,
        model: Model,
        judge: Judge | None,
    ) -> None:
        requirements.check_capabilities(task, model, judge)
        per_sample = 1 if task.kind == "understanding" else config.num_images or task.num_images
        self.official = task.samples()
        requirements.check_source_pictures(task, model, self.official)
        limit = config.limit or len(self.official)
        samples = spread_evenly(self.official, task.groups, limit)
        self.findings = readymade.match(model, task, self.official, samples, per_sample)
        metrics = find_metrics(config.metrics)
        requirements.check_metrics(task, metrics, self.official)
        self.fingerprint = fingerprints.fingerprint(
            config,
            task=(task.name, task.version, task.digest()),
            num_images=per_sample,
            model=model.identity,
            judge=judge.identity if judge else None,
        )
        sha256 = fingerprints.sha256_of(self.fingerprint)
        root = options.output or default_folder(task.name, model.identity.name, sha256)
        if isinstance(model, readymade.Readymade):
            model.check_output(root)
        self.store = RunStore(root, verify=options.verify)
        self.parts = RunParts(
            config,
            options,
            task,
            model,
            judge,
            samples,
            per_sample,
            metrics,
            self.store,
            Session(self.store),
        )

    def run(self) -> Run:
        """From wherever it stands to its end, or as far as this shard goes."""
        store, parts, options = self.store, self.parts, self.parts.options
        try:
            try:
                store.lock(options.shard)
            except NotWritableError:
                if (finished := self._read_only()) is not None:
                    return finished
                raise
            store.check_is_ours()
            if options.fresh:
                store.clear()
            is_resumed = store.open_manifest(
                self._new_manifest, self.fingerprint, fingerprints.differing_keys
            )
            if is_resumed and options.parent is not None:
                self._renew_parent(self._new_manifest())
            plan = parts.plan()
            if options.verify and parts.is_generation:
                store.mend_records(parts.samples)
            outputs = read_outputs(parts, plan)
            if options.retry_errors:
                forget_judge_failures(parts, plan)
            if is_resumed and is_finished(parts, plan, outputs):
                return finish_again(parts)
            parts.session.start(options.shard)
            if not parts.is_shard:
                announce_judging(parts, plan, outputs)
            make_outputs(parts, plan, outputs)
            return self._after_generation(plan)
        finally:
            store.close()

    def _read_only(self) -> Run | None:
        """The run as it stands, if it is finished, of this configuration, and nothing else is asked."""
        if self.parts.options.fresh or self.parts.options.retry_errors:
            return None
        try:
            data = load(self.store.root)
        except EvalError:
            return None
        recorded = data.manifest
        if not data.is_finished or fingerprints.differing_keys(
            recorded["fingerprint"], self.fingerprint, recorded["auto"]
        ):
            return None
        log.warning("%s cannot be written: its finished results are shown as they are", data.root)
        return Run(data, problem=problem_of(data, self.parts.config.max_errors))

    def _after_generation(self, plan: Plan) -> Run:
        parts = self.parts
        outputs = self.store.scan_outputs(plan)
        missing = len(plan) - outputs.num_done
        if missing:
            return Run(load(self.store.root), pending=missing)
        if parts.is_shard:
            try:
                self.store.lock_merge()
            except LockedError:
                return Run(load(self.store.root), notes=("another shard merges and scores",))
            if is_finished(parts, plan, outputs := self.store.scan_outputs(plan)):
                return finish_again(parts)
        outputs = merge_outputs(parts, plan, outputs)
        if parts.is_shard:
            announce_judging(parts, plan, outputs)
        judge_outputs(parts, plan, outputs)
        return finish(parts, plan)

    def _new_manifest(self) -> dict[str, Any]:
        parts = self.parts
        return new_manifest(
            parts.config,
            parts.task,
            parts.model,
            parts.judge,
            samples=parts.samples,
            num_official=len(self.official),
            per_sample=parts.per_sample,
            fingerprint=self.fingerprint,
            findings=self.findings,
            parent=parts.options.parent,
        )

    def _renew_parent(self, wanted: Mapping[str, Any]) -> None:
        """The parent of a rescored run may have made more outputs since the last time."""
        news = {key: wanted[key] for key in ("parent", "warnings")}
        if any(self.store.manifest.get(key) != value for key, value in news.items()):
            self.store.update_manifest(lambda m: m.update(news))
