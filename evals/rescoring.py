"""Judge the outputs of a run again, in a folder of its own: by another judge, new weights, or new rules.

The new folder is a whole run: pictures are hard-linked (copied where that is not possible), lines and manifest
are its own, and `parent` in the manifest says where the outputs come from. The parent is only read. Interrupted,
the same command resumes; when the parent has grown meanwhile, what is new is taken over and judged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals import fingerprint as fingerprints
from evals.api import Identity, Judge, Sample, Task
from evals.config import RunConfig, resolve
from evals.errors import UsageError
from evals.io.jsonl import read_rows
from evals.phases.outcome import Run, RunOptions
from evals.phases.plan import Plan, spread_evenly
from evals.phases.readymade import EncodedPicture, Findings, check_apart
from evals.plugins.lookup import find_judge, find_task
from evals.prepared import Prepared, default_folder
from evals.results import RunData, load
from evals.store import OUTPUTS, RunStore

MAY_DIFFER = (
    "judge.",
    "task.version",
)  # beginnings of fingerprint keys that a rescored run may change


class NotMadeError(Exception):
    """The parent run has not made this output yet."""


class ParentError(Exception):
    """The parent run recorded an error in place of this output."""


class ParentOutputs:
    """The outputs of a run as a readymade model that carries the identity of the one that made them."""

    def __init__(self, parent: RunData) -> None:
        recorded = parent.manifest["model"]
        self._parent = parent
        self._rows: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.total = 0
        self.identity = Identity(
            name=recorded["name"],
            version=recorded["version"],
            digest=recorded["weights_sha256"],
            domain=recorded["domain"],
            is_test_double=recorded["is_test_double"],
            settings=recorded["settings"],
            batch_size=parent.manifest["auto"]["batch_size"],
            info=recorded["info"],
        )

    def read(self, plan: Plan) -> None:
        """Find the outputs that are there, those of unmerged shards too. Raises UsageError without any."""
        found = RunStore(self._parent.root).scan_outputs(plan)
        rows = (json.loads(line) for line in found.lines())
        self._rows = {(row["sample_id"], row["image_index"]): row for row in rows}
        self.total = len(plan)
        if not self._rows:
            raise UsageError(f"{self._parent.root} has no outputs yet: run its command first")

    @property
    def reused(self) -> int:
        """Outputs that the parent has made, recorded errors among them."""
        return len(self._rows)

    @property
    def missing(self) -> int:
        """Outputs that the parent has not made."""
        return self.total - len(self._rows)

    def match(
        self, task: Task, official: Sequence[Sample], samples: Sequence[Sample], per_sample: int
    ) -> Findings:
        """Says how much the parent lacks."""
        if not self.missing:
            return Findings()
        return Findings(
            warnings=(
                f"the parent run is unfinished: {self.missing:,} of {self.total:,} outputs are not made yet",
            )
        )

    def can_mend(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that ended in an error here is sound in the parent by now."""
        there = self._rows.get((row["sample_id"], row["image_index"]))
        return row["status"] == "error" and there is not None and there["status"] == "ok"

    def check_output(self, root: Path) -> None:
        """Refuse to write into the parent. Raises UsageError."""
        check_apart(root, self._parent.root, "the run")

    def load(self) -> None:
        """Nothing to build."""

    def close(self) -> None:
        """Nothing to free."""

    def generate(self, requests: Sequence[Any]) -> Sequence[Any]:
        """The parent's pictures, checked against their checksums, or an error object."""
        return [self._output((r.sample_id, r.image_index), self._picture) for r in requests]

    def answer(self, requests: Sequence[Any]) -> Sequence[Any]:
        """The parent's texts, or an error object."""
        return [self._output((r.sample_id, 0), lambda row: row["text"]) for r in requests]

    def _output(self, key: tuple[str, int], read: Any) -> Any:
        row = self._rows.get(key)
        if row is None:
            return NotMadeError("the parent run has not made this output yet")
        return read(row) if row["status"] == "ok" else ParentError(row["error"])

    def _picture(self, row: Mapping[str, Any]) -> Any:
        path = self._parent.root / row["path"]
        try:
            data = path.read_bytes()
        except OSError as error:
            return ParentError(f"{row['path']}: cannot be read ({error.strerror})")
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            return ParentError(f"{row['path']}: differs from its recorded checksum")
        return EncodedPicture(data, link=path)


@dataclass(frozen=True)
class Rescored:
    """A rescored run, and how many outputs its parent had made and not made."""

    run: Run
    parent: Path
    reused: int
    missing: int


def rescore(
    parent: str | Path,
    judge: str | Judge | None = None,
    *,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    task: Task | None = None,
    quiet: bool = False,
    report: bool = True,
) -> Rescored:
    """Judge the outputs of a run again, in a folder of its own.

    Args: judge: a name, "auto" for the judge of the model's domain, an object, or None for the parent's own
    (new weights or new rules under the same name; tasks without a judge). output: the new run folder; default
    beside the parent, `<task>-<model>-<configuration>`. settings: nested sections of RunConfig that replace the
    parent's: judge, tracking, max_errors. task: the task object, for tasks without a registered name.
    Raises: InputError if the folder is no run; UsageError when nothing would change, when the installed task has
    other prompts, or when the folders lie in one another.
    """
    data = load(parent)
    config = _config(data, judge, settings or {})
    task = task if task is not None else find_task(config.task, config.data)
    if judge is not None and not task.judges:
        raise UsageError(f"task {task.name!r} has no judge: rescore it without --judge")
    outputs = ParentOutputs(data)
    the_judge = (
        find_judge(config, task, outputs) if judge is None or isinstance(judge, str) else judge
    )
    wanted = fingerprints.fingerprint(
        config,
        task=(task.name, task.version, task.digest()),
        num_images=data.manifest["plan"]["per_sample"],
        model=outputs.identity,
        judge=the_judge.identity if the_judge is not None else None,
    )
    _check_fingerprints(data, wanted, is_named=output is not None)
    root = Path(output) if output is not None else _default_root(data, task.name, wanted)
    outputs.check_output(root)
    official = task.samples()
    samples = spread_evenly(official, task.groups, config.limit or len(official))
    outputs.read(_plan(data, config, samples))
    options = RunOptions(
        output=root,
        retry_errors=_can_mend(root, outputs),
        quiet=quiet,
        report=report,
        parent=_parent_json(data, root, outputs),
    )
    run = Prepared(config, options, task, outputs, the_judge).run()
    return Rescored(run, data.root, outputs.reused, outputs.missing)


def _config(data: RunData, judge: str | Judge | None, settings: Mapping[str, Any]) -> RunConfig:
    """The parent's configuration with another judge. Raises ConfigError for settings that are not allowed."""
    config = dict(data.manifest["config"])
    for key, value in settings.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, Mapping) else value
    if judge is not None:
        name = judge if isinstance(judge, str) else judge.identity.name
        inherited = {k: v for k, v in config["judge"].items() if k == "batch_size"}
        config["judge"] = {**inherited, **settings.get("judge", {}), "name": name}
    return resolve([("the parent run", config)])[0]


def _check_fingerprints(data: RunData, wanted: Mapping[str, Any], is_named: bool) -> None:
    recorded = data.manifest["fingerprint"]
    keys = [k for k in {**recorded, **wanted} if recorded.get(k) != wanted.get(k)]
    barred = [k for k in keys if not k.startswith(MAY_DIFFER)]
    if barred:
        lines = fingerprints.differing_keys(
            {k: recorded.get(k) for k in barred}, {k: wanted.get(k) for k in barred}, {}
        )
        raise UsageError(
            f"the outputs of {data.root} do not fit what is installed ({'; '.join(lines)}): run it again instead"
        )
    if not keys and not is_named:
        raise UsageError(
            f"{data.root} was judged by the same judge, weights and rules, so nothing would change; its own "
            "command finishes it, and --output makes a second copy"
        )


def _default_root(data: RunData, task_name: str, wanted: Mapping[str, Any]) -> Path:
    name = default_folder(
        task_name, data.manifest["model"]["name"], fingerprints.sha256_of(wanted)
    ).name
    return data.root.parent / name


def _plan(data: RunData, config: RunConfig, samples: Sequence[Sample]) -> Plan:
    recorded = data.manifest
    return Plan(
        samples,
        recorded["plan"]["per_sample"],
        recorded["auto"]["batch_size"],
        config.seed,
        series=config.seed_mode == "upstream",
    )


def _can_mend(root: Path, outputs: ParentOutputs) -> bool:
    """Whether the parent has made outputs that an earlier, interrupted rescoring lacked."""
    path = root / OUTPUTS
    return path.exists() and any(outputs.can_mend(row) for row in read_rows(path))


def _parent_json(data: RunData, root: Path, outputs: ParentOutputs) -> dict[str, Any]:
    """What the manifest says about the parent; its path is relative to the new folder."""
    judge = data.manifest["judge"]
    return {
        "relation": "rescored",
        "run": os.path.relpath(data.root.resolve(), root.resolve()),
        "config_sha256": data.manifest["config_sha256"],
        "judge": judge and {k: judge[k] for k in ("name", "version", "weights_sha256")},
        "task_version": data.manifest["task"]["version"],
        "finished": data.is_finished,
        "reused": outputs.reused,
        "missing": outputs.missing,
    }
