"""Runs one task on one model: plan -> generate -> score -> aggregate -> report.

Each phase is on disk before the next starts, and every phase first looks at what is there. So the
same command resumes after any interruption, and on a finished run it only reads: no model is built
and torch is not imported.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evals import config as configs
from evals import fingerprint as fingerprints
from evals import publish, unfinished
from evals.api import Judge, Model, Task
from evals.config import RunConfig
from evals.errors import EvalError, LockedError, StoreError, UsageError
from evals.io.files import NotWritableError, json_problem, write_json, writing
from evals.io.jsonl import Scan
from evals.manifest import new_manifest
from evals.phases import answers, costs, readymade
from evals.phases.attempts import Attempts
from evals.phases.beside import NOT_BESIDE, WHEN, Beside, NotBeside, When, judging, pays
from evals.phases.generate import generate_outputs, make_request
from evals.phases.loaded import Kept, loaded_calls
from evals.phases.outcome import Run, RunOptions, problem_of
from evals.phases.plan import Batch, Plan, cut, spread_evenly
from evals.phases.progress import Progress
from evals.phases.scoring import compute_results, read_scores, score_outputs
from evals.phases.sessions import Session, timing
from evals.plugins import requirements
from evals.plugins.lookup import find_judge, find_metrics, find_model, find_task
from evals.results import load
from evals.store import REPORT, RESULTS, RunStore, whole_batches

log = logging.getLogger("evals")
DEFAULT_ROOT = Path("runs")
_MAX_NAME = 120  # of a default folder, before its digest; file systems end at 255 bytes


def evaluate(
    task: str | Task,
    model: str | Model = "nano",
    *,
    judge: str | Judge | None = "auto",
    output: str | Path | None = None,
    config: RunConfig | None = None,
    shard: tuple[int, int] = (0, 1),
    fresh: bool = False,
    retry_errors: bool = False,
    quiet: bool = False,
    report: bool = True,
    sample_timeout_s: float | None = None,
    verify: bool = False,
    judge_when: When = "auto",
    **settings: Any,
) -> Run:
    """Evaluate a model on a task and return the finished (or resumed) run.

    Args: task, model, judge: names, or objects of the protocols in ``evals.api``. output: run folder;
    default ``runs/<task>-<model>-<first 8 of the configuration's sha256>``. settings: keys of RunConfig,
    dotted ones with two underscores: ``limit=24, generation__steps=20, tracking__enabled=False``.
    config: a whole RunConfig instead of settings. shard: (i, n) for part i of n. retry_errors: make
    outputs and scores that ended in an error again. sample_timeout_s: seconds per output that a call of
    the model or judge may take; it then runs in a child process, which is ended when it hangs or dies.
    verify: read every picture against its checksum, and make damaged ones again. judge_when: "beside" judges
    outputs while the next are made, "after" when all are; "auto" is beside unless both would share the CPU.
    Raises: UsageError and its children before anything is generated; ModelError, JudgeError and
    StoreError while running, with everything so far kept on disk.
    """
    if config is None:
        config = _config_from(task, model, judge, settings)
    elif settings:
        raise UsageError(f"give either config or settings, not both (got {', '.join(settings)})")
    options = RunOptions(
        Path(output) if output is not None else None,
        shard,
        fresh,
        retry_errors,
        quiet,
        report,
        sample_timeout_s=sample_timeout_s,
        verify=verify,
        judge_when=judge_when,
    )
    return prepare(task, model, judge, config, options).run()


def prepare(
    task: str | Task,
    model: str | Model,
    judge: str | Judge | None,
    config: RunConfig,
    options: RunOptions,
) -> Prepared:
    """A run that has all it needs and has not started: ``evaluate`` is ``prepare(...).run()``.

    Several are prepared before the first starts, so that what any of them lacks is said before
    anything is generated. Raises UsageError and its children; touches no run folder.
    """
    if options.retry_errors and options.shard[1] > 1:
        raise UsageError("--retry-errors works on a whole run: give it without --shard")
    if options.sample_timeout_s is not None and not 0 < options.sample_timeout_s < float("inf"):
        raise UsageError(
            f"a time limit of {options.sample_timeout_s} s per sample: give a number of seconds above 0"
        )
    if options.judge_when not in WHEN:
        raise UsageError(f"judge_when {options.judge_when!r}: give one of {', '.join(WHEN)}")
    the_task = find_task(task, config.data) if isinstance(task, str) else task
    the_model = find_model(config) if isinstance(model, str) else model
    the_judge = find_judge(config, the_task, the_model) if isinstance(judge, str) else judge
    return Prepared(config, options, the_task, the_model, the_judge)


def merge(folder: str | Path, quiet: bool = False) -> Run:
    """Merge, score and report the shards in a run folder; the configuration is its manifest's.

    Every picture is read against its checksum. Raises: UsageError naming the shards that are missing,
    torn or unfinished, with their commands; LockedError while a shard still runs.
    """
    config = RunConfig.model_validate(load(folder).manifest["config"])
    options = RunOptions(Path(folder), quiet=quiet, merge_only=True, verify=True)
    task, model = find_task(config.task, config.data), find_model(config)
    return Prepared(config, options, task, model, find_judge(config, task, model)).run()


def _config_from(task: Any, model: Any, judge: Any, settings: Mapping[str, Any]) -> RunConfig:
    layer: dict[str, Any] = {}
    configs.set_key(layer, "task", task if isinstance(task, str) else task.name)
    configs.set_key(layer, "model.name", model if isinstance(model, str) else model.identity.name)
    configs.set_key(
        layer,
        "judge.name",
        judge if isinstance(judge, str) else judge.identity.name if judge else "auto",
    )
    for key, value in settings.items():
        configs.set_key(layer, key.replace("__", "."), value)
    return configs.resolve([("argument", layer)])[0]


def default_folder(task: str, model: str, config_sha256: str) -> Path:
    """``runs/geneval-nano-1a2b3c4d``; other characters than letters, digits, ``._-`` become ``-``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{task}-{model}")[:_MAX_NAME].strip("-.") or "run"
    return DEFAULT_ROOT / f"{name}-{config_sha256[:8]}"


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        self.config, self.options = config, options
        self.task, self.model, self.judge = task, model, judge
        requirements.check_capabilities(task, model, judge)
        self.per_sample = (
            1 if task.kind == "understanding" else config.num_images or task.num_images
        )
        self.official = task.samples()
        requirements.check_source_pictures(task, model, self.official)
        limit = config.limit or len(self.official)
        self.samples = spread_evenly(self.official, task.groups, limit)
        self.findings = readymade.match(
            model, task, self.official, self.samples, self.per_sample
        )
        self.further_metrics = find_metrics(config.metrics)
        requirements.check_metrics(task, self.further_metrics)
        self.fingerprint = fingerprints.fingerprint(
            config,
            task=(task.name, task.version, task.digest()),
            num_images=self.per_sample,
            model=model.identity,
            judge=judge.identity if judge else None,
        )
        self.sha256 = fingerprints.sha256_of(self.fingerprint)
        root = options.output or default_folder(task.name, model.identity.name, self.sha256)
        if isinstance(model, readymade.Readymade):
            model.check_output(root)
        self.store = RunStore(root, verify=options.verify)
        self.session = Session(self.store)
        self._kept = Kept()

    # -- the story ----------------------------------------------------------------------------

    def run(self) -> Run:
        store = self.store
        try:
            try:
                store.lock(self.options.shard)
            except NotWritableError:
                if (finished := self._read_only()) is not None:
                    return finished
                raise
            store.check_is_ours()
            if self.options.fresh:
                store.clear()
            is_resumed = store.open_manifest(
                self._new_manifest, self.fingerprint, fingerprints.differing_keys
            )
            if is_resumed and self.options.parent is not None:
                self._renew_parent(self._new_manifest())
            plan = self._plan()
            if self.options.verify and self.task.kind == "generation":
                store.mend_records(self.samples)
            outputs = self._outputs(plan)
            if self.options.retry_errors:
                self._forget_judge_failures(plan)
            if is_resumed and self._is_finished(plan, outputs):
                return self._finish_again()
            self.session.start(self.options.shard)
            if self.options.shard[1] == 1:
                self._announce_judging(plan, outputs)
            self._generate(plan, outputs)
            return self._after_generation(plan)
        finally:
            store.close()

    def _read_only(self) -> Run | None:
        """The run as it stands, if it is finished, of this configuration, and nothing else is asked."""
        if self.options.fresh or self.options.retry_errors:
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
        return Run(data, problem=problem_of(data, self.config.max_errors))

    def _after_generation(self, plan: Plan) -> Run:
        outputs = self.store.scan_outputs(plan)
        missing = len(plan) - outputs.num_done
        if missing:
            return Run(load(self.store.root), pending=missing)
        if self.options.shard[1] > 1:
            try:
                self.store.lock_merge()
            except LockedError:
                return Run(load(self.store.root), notes=("another shard merges and scores",))
            if self._is_finished(plan, outputs := self.store.scan_outputs(plan)):
                return self._finish_again()
        outputs = self._merge(plan, outputs)
        if self.options.shard[1] > 1:
            self._announce_judging(plan, outputs)
        self._score(plan, outputs)
        return self._finish(plan)

    def _plan(self) -> Plan:
        auto = self.store.manifest["auto"]
        return Plan(
            self.samples,
            self.per_sample,
            auto["batch_size"],
            self.config.seed,
            series=self.config.seed_mode == "upstream",
        )

    @property
    def _judge_batch_size(self) -> int:
        return int(self.store.manifest["auto"]["judge.batch_size"])

    # -- generation ---------------------------------------------------------------------------

    def _outputs(self, plan: Plan) -> Scan:
        """What is on disk; the file that this process appends to is left with whole batches only."""
        outputs = self.store.scan_outputs(plan)
        if self.options.merge_only and outputs.num_done < len(plan):
            raise UsageError(
                unfinished.explain(self.store.root, plan, outputs, self.store.manifest)
            )
        for place in outputs.damaged:
            log.warning("%s/%s is damaged: its batch is made again", self.store.root, place)
        if self.options.retry_errors:
            for batch in plan.batches():
                if any(outputs.is_error[p] and outputs.has(p) for p in batch.positions):
                    outputs.forget(batch)
        if outputs.is_clean or not outputs.files:
            return outputs
        if self.options.shard[1] == 1:
            return self._merge(plan, outputs)
        own = self.store.outputs_path(self.options.shard)
        if own in outputs.files:
            with writing(own):
                outputs.only(own).rewrite(own)
        return self.store.scan_outputs(plan)

    def _merge(self, plan: Plan, outputs: Scan) -> Scan:
        """One ``outputs.jsonl`` in plan order; shard files go once their lines are in it."""
        if outputs.is_clean and outputs.files == [self.store.outputs_path()]:
            return outputs
        path = self.store.outputs_path()
        with writing(path):
            outputs.rewrite(path)
            for shard_file in self.store.shard_files():
                shard_file.unlink()
        return self.store.scan_outputs(plan)

    def _generate(self, plan: Plan, outputs: Scan) -> None:
        shard = self.options.shard
        pending = whole_batches(plan, outputs, shard)
        if not pending:
            return
        self._announce(plan, pending)
        self.store.drop_scores(plan, self._judge_batch_size, pending)
        mine = sum(len(b) for b in plan.batches(shard))
        left = sum(len(b) for b in pending)
        is_generation = self.task.kind == "generation"
        call = self.model.generate if is_generation else answers.of(self.model)  # type: ignore[attr-defined]
        attempts = self.store.attempts("generate", shard)
        is_readymade = isinstance(self.model, readymade.Readymade)
        label = "read" if is_readymade else "generate"
        self._say(f"{'outputs of' if is_readymade else 'load model'} {self.model.identity.name}")
        beside = self._beside(plan, outputs, pending, attempts)
        with (
            beside,
            loaded_calls(
                "generate",
                self.model,
                call,
                attempts,
                self.store,
                self.session,
                timeout_s=self.options.sample_timeout_s,
                is_divisible=not plan.series,
            ) as caller,
            Progress(label, mine, mine - left, is_quiet=self.options.quiet) as progress,
        ):
            try:
                generate_outputs(
                    self.store,
                    plan,
                    pending,
                    caller,
                    self.config,
                    self.task.kind,
                    shard,
                    attempts,
                    progress,
                    is_readymade=is_readymade,
                    has_seeds=not readymade.is_made_elsewhere(self.store.manifest),
                    beside=beside,
                )
            finally:
                seconds = round(progress.seconds, 2)
                if is_readymade:
                    self.session.note(read=left, read_s=seconds)
                else:
                    self.session.note(generated=left, generate_s=seconds)
                if caller.is_here:  # a child process cannot tell
                    costs.note_outputs(self.model, self.session, self.store)
        if beside.scored:
            self.session.note(
                scored=beside.scored, scored_beside=beside.scored, score_s=round(beside.seconds, 2), **self._kept.values
            )
            costs.note_judging(self.judge, self.session)

    def _beside(
        self, plan: Plan, outputs: Scan, remade: list[Batch], generating: Attempts
    ) -> Beside | NotBeside:
        """Judges outputs while others are made, unless shards, which whoever merges them judges, or a time limit on
        calls speak against it."""
        options, judge = self.options, self.judge
        is_alone = options.shard[1] == 1 and not isinstance(self.model, readymade.Readymade)
        is_limited = options.sample_timeout_s is not None or generating.is_suspicious
        if judge is None or options.judge_when == "after" or not is_alone or is_limited:
            return NOT_BESIDE
        return judging(
            self.store,
            plan,
            outputs,
            remade,
            self._scores(plan),
            judge,
            lambda part: self.task.score(part, judge),
            cut(len(plan), self._judge_batch_size),
            self._kept,
            is_worthwhile=lambda: options.judge_when == "beside" or pays(self.model, judge, self.config.model.device),
            is_quiet=options.quiet,
        )

    def _announce(self, plan: Plan, pending: Iterable[Batch]) -> None:
        """Say what the pending outputs will cost. Raises UsageError when that is more than was allowed."""
        positions = (position for batch in pending for position in batch.positions)
        kind = self.task.kind
        self._say(costs.of_outputs(self.model, (make_request(plan, p, self.config, kind) for p in positions)))

    def _announce_judging(self, plan: Plan, outputs: Scan) -> None:
        """The same for the judge, before anything is made."""
        self._say(costs.of_judging(self.judge, self.task, plan, outputs, self._scores(plan)))

    # -- scoring ------------------------------------------------------------------------------

    def _scores(self, plan: Plan) -> Scan:
        scores = self.store.scan_scores(plan, self._judge_batch_size)
        for place in scores.damaged:
            log.warning("%s/%s is damaged: its batch is scored again", self.store.root, place)
        if scores.files and not scores.is_clean:
            with writing(self.store.root):
                scores.rewrite(scores.files[0])
            scores = self.store.scan_scores(plan, self._judge_batch_size)
        return scores

    def _score(self, plan: Plan, outputs: Scan) -> None:
        scores = self._scores(plan)
        batches = cut(len(plan), self._judge_batch_size)
        pending = [b for b in batches if not scores.has_batch(b)]
        if not pending:
            return
        left = sum(len(b) for b in pending)
        attempts = self.store.attempts("score")
        if self.judge is not None:
            self._say(f"load judge {self.judge.identity.name}")
        with (
            loaded_calls(
                "score",
                self.judge,
                lambda part: self.task.score(part, self.judge),
                attempts,
                self.store,
                self.session,
                timeout_s=self.options.sample_timeout_s,
            ) as caller,
            Progress(
                "score", len(plan), len(plan) - left, is_quiet=self.options.quiet
            ) as progress,
        ):
            before, is_here = self.session.data, caller.is_here
            try:
                score_outputs(self.store, plan, outputs, pending, caller, attempts, progress)
            finally:
                if is_here:
                    costs.note_judging(self.judge, self.session)
            self.session.note(
                scored=left + before.get("scored", 0), score_s=round(progress.seconds + before.get("score_s", 0.0), 2)
            )
        if scores.num_done and not self._scores(plan).is_clean:
            raise StoreError(f"{self.store.root}: scores.jsonl changed while it was written")

    def _forget_judge_failures(self, plan: Plan) -> None:
        scores = self._scores(plan)
        for batch in cut(len(plan), self._judge_batch_size):
            if any(scores.is_error[p] and scores.has(p) for p in batch.positions):
                scores.forget(batch)
        if scores.files and not scores.is_clean:
            with writing(self.store.root):
                scores.rewrite(scores.files[0])

    def _say(self, text: str | None) -> None:
        if text is not None and not self.options.quiet:
            print(text, file=sys.stderr, flush=True)

    # -- finishing ----------------------------------------------------------------------------

    def _is_finished(self, plan: Plan, outputs: Scan) -> bool:
        root = self.store.root
        return (
            self.store.manifest["status"] == "finished"
            and json_problem(root / RESULTS) is None
            and self._has_further_metrics()
            and outputs.num_done == len(plan)
            and not self.store.shard_files()
            and self._scores(plan).num_done == len(plan)
        )

    def _has_further_metrics(self) -> bool:
        results = load(self.store.root).results or {"metrics": {}}
        return all(metric.name in results["metrics"] for metric in self.further_metrics)

    def _finish(self, plan: Plan) -> Run:
        rows = read_scores(self._scores(plan))
        results = compute_results(
            self.task, self.store.manifest, rows, timing(self.store.manifest["sessions"]), self.further_metrics
        )
        write_json(self.store.root / RESULTS, results)
        self.store.clear_leavings()
        self.store.update_manifest(lambda m: m.update(status="finished"))
        return self._publish()

    def _finish_again(self) -> Run:
        self.store.clear_leavings()
        return self._publish(is_again=True)

    def _publish(self, is_again: bool = False) -> Run:
        root = self.store.root
        if self.options.report and not (is_again and self._has_report()):
            self._say("write report")
            publish.write_report(root)
            record = {"sha256": _sha256_of(root / REPORT)}
            self.store.update_manifest(lambda m: m.update(report=record))
        mlflow = self.store.manifest["mlflow"]
        if self.config.tracking.enabled and not (is_again and publish.is_logged(mlflow)):
            self._say("track in MLflow")
            publish.track(self.store, self.config.tracking, mlflow)
        data = load(root)
        return Run(data, problem=problem_of(data, self.config.max_errors))

    def _has_report(self) -> bool:
        """Whether the report is there and whole."""
        recorded = self.store.manifest.get("report") or {}
        path = self.store.root / REPORT
        return path.exists() and recorded.get("sha256") == _sha256_of(path)

    # -- manifest -----------------------------------------------------------------------------

    def _new_manifest(self) -> dict[str, Any]:
        return new_manifest(
            self.config,
            self.task,
            self.model,
            self.judge,
            samples=self.samples,
            num_official=len(self.official),
            per_sample=self.per_sample,
            fingerprint=self.fingerprint,
            findings=self.findings,
            parent=self.options.parent,
        )

    def _renew_parent(self, wanted: Mapping[str, Any]) -> None:
        """The parent of a rescored run may have made more outputs since the last time."""
        news = {key: wanted[key] for key in ("parent", "warnings")}
        if any(self.store.manifest.get(key) != value for key, value in news.items()):
            self.store.update_manifest(lambda m: m.update(news))
