"""What is in a run folder, key by key, and loading it.

``manifest.json`` - what was run
    schema             version of this page, an integer
    status             "running" or "finished"
    config             the resolved RunConfig (``evals.config``); passwords taken out of URLs
    fingerprint        flat keys: everything that changes outputs or scores
    config_sha256      sha256 of the fingerprint's canonical JSON; its first 8 digits name the folder
    auto               what "auto" batch sizes became
    task               name, version, kind, prompts_sha256, groups, card; data (files, repository, revision) of those
                       that read files
    model, judge       name, version, weights_sha256, domain, is_test_double, settings, info;
                       judge also accuracy (its stored figures); judge is null for tasks without one
    plan               samples, official_samples, per_sample, official_per_sample, outputs
    partial            true if not all official samples were run (``--limit``)
    deviations         sentences: where the run differs from the official protocol
    warnings           sentences: what a reader has to know, such as a judge outside its domain
    versions, git, platform   of the first session
    sessions           one per start: started, versions, device, shard, seconds per phase; splits:
                       calls made again in parts because they raised (out of memory), first ten
    mlflow             status ("pending" | "logged" | "failed"), key (a tag of the MLflow run), run_id,
                       experiment, tracking_uri without password, error; null without tracking
    parent             of a rescored run only: relation, run (path from this folder), config_sha256, judge,
                       task_version, finished, reused, missing (outputs the parent has not made)
    report             sha256 of the report that belongs to these results; absent before the first
    content_sha256     checksum of all the rest; ``.manifest.copy.json`` is a second copy

``outputs.jsonl`` - one line per output, in plan order (a shard writes ``outputs.i-of-n.jsonl``)
    sample_id, image_index, group, prompt, seed, status ("ok" | "error"),
    path (relative, of a picture) or text; sha256 and bytes of the picture file; error (one line)
    seconds            its share of the batch's time; null for outputs that were only read (and ``seed``
                       is null for pictures that others made)
    crc32              checksum of the line up to here (``evals.io.checksums``); readers take it off

``scores.jsonl`` - one line per output, in the same order; no times, no run names
    sample_id, image_index, group, value (a number, or null), reason, answer, details
    unscored           why there is no value; present only then
    crc32              checksum of the line up to here

``results.json`` - the figures
    schema, task, model, judge, config_sha256, partial, is_test_double, deviations, warnings
                       as in the manifest, shortened to what names a result
    seed               seed and mode; both null for pictures that others made
    parent             as in the manifest, of a rescored run only
    metrics            name -> value, n, unscored, ci95 [lo, hi] or null, unit, higher_is_better,
                       clusters, method, note; in the order in which they are printed
    groups             group -> samples, outputs, failed, scored, unscored, mean (of the scores, or null)
    counts             samples, outputs, failed, scored, unscored
    judge_accuracy     the judge's stored figures
    timing             seconds per phase and outputs per second; the only part that changes from one
                       run to the next
    content_sha256     checksum of all the rest

``images/NNNNN/`` - GenEval's layout: ``metadata.jsonl`` (the official record), ``samples/00000.png``
``inputs/`` - small copies of pictures that questions are about, for the report (`evals.phases.asked_pictures`)
``report.html`` - the report
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue, Output, Score, ScoreRow
from evals.errors import InputError
from evals.io.checksums import JSON_KEY, is_sound
from evals.io.jsonl import dumps, read_rows
from evals.io.strict_json import parse
from evals.run_shape import check_manifest, check_results, checked_outputs, checked_scores

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1

VOLATILE_MANIFEST_KEYS = ("config", "sessions", "mlflow", "versions", "git", "platform", "report")
"""Keys of the manifest that may differ between two runs with equal fingerprints."""


@dataclass(frozen=True)
class RunData:
    """A run folder, read."""

    root: Path
    manifest: Mapping[str, Any]
    results: Mapping[str, Any] | None

    @property
    def is_finished(self) -> bool:
        return self.manifest["status"] == "finished" and self.results is not None

    def outputs(self) -> Iterator[dict[str, Any]]:
        """Rows of ``outputs.jsonl``. Raises InputError naming a damaged line."""
        path = self.root / "outputs.jsonl"
        return checked_outputs(read_rows(path), path)

    def scores(self) -> Iterator[dict[str, Any]]:
        """Rows of ``scores.jsonl``. Raises InputError naming a damaged line."""
        path = self.root / "scores.jsonl"
        return checked_scores(read_rows(path), path)

    def metric_values(self) -> list[MetricValue]:
        """The metrics as typed values, in printing order."""
        if self.results is None:
            return []
        return [metric_from_json(name, m) for name, m in self.results["metrics"].items()]

    def to_pandas(self) -> pandas.DataFrame:
        """One row per output with its score (``evals.frames.samples_frame``)."""
        from evals.frames import samples_frame

        return samples_frame(self)


def load(root: str | Path) -> RunData:
    """Read a run folder. Raises InputError naming the folder and what is missing or damaged."""
    from evals.frames import encodable

    root = Path(root)
    manifest = _read_json(root / "manifest.json", f"{root} is not a run folder")
    if manifest.get("schema") != SCHEMA_VERSION:
        raise InputError(
            f"{root / 'manifest.json'}: schema {manifest.get('schema')!r}, this version reads {SCHEMA_VERSION}"
        )
    results_path = root / "results.json"
    results = _read_json(results_path, "") if results_path.exists() else None
    check_manifest(manifest, root / "manifest.json")
    if results is not None:
        check_results(results, results_path)
    return RunData(root, encodable(manifest), encodable(results))


def _read_json(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        data = parse(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{if_missing}: there is no {path.name}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged ({error}); the command that made the run mends it"
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object")
    if JSON_KEY in data and not is_sound(data):
        raise InputError(
            f"{path}: damaged, its checksum differs; the command that made the run mends it"
        )
    data.pop(JSON_KEY, None)
    return data


def output_to_json(output: Output, *, group: str, prompt: str, **extra: Any) -> dict[str, Any]:
    """A line of ``outputs.jsonl``."""
    row: dict[str, Any] = {
        "sample_id": output.sample_id,
        "image_index": output.index,
        "group": group,
        "prompt": prompt,
        "seed": output.seed,
        "status": output.status,
    }
    for key in ("path", "text", "error"):
        if getattr(output, key) is not None:
            row[key] = getattr(output, key)
    row.update(extra)
    row["seconds"] = None if output.seconds is None else round(output.seconds, 4)
    return row


def output_from_json(row: Mapping[str, Any]) -> Output:
    """The Output of a line of ``outputs.jsonl``."""
    return Output(
        sample_id=row["sample_id"],
        index=row["image_index"],
        seed=row["seed"],
        status=row["status"],
        path=row.get("path"),
        text=row.get("text"),
        error=row.get("error"),
        seconds=row.get("seconds"),
    )


def score_to_json(row: ScoreRow) -> dict[str, Any]:
    """A line of ``scores.jsonl``."""
    line: dict[str, Any] = {
        "sample_id": row.sample_id,
        "image_index": row.index,
        "group": row.group,
        "value": row.score.value,
        "reason": row.score.reason,
        "answer": row.score.answer,
        "details": dict(row.score.details),
    }
    if row.score.unscored_reason is not None:
        line["unscored"] = row.score.unscored_reason
    return line


def score_from_json(row: Mapping[str, Any]) -> ScoreRow:
    """The ScoreRow of a line of ``scores.jsonl``."""
    score = Score(
        value=row["value"],
        answer=row.get("answer"),
        reason=row.get("reason", ""),
        details=row.get("details", {}),
        unscored_reason=row.get("unscored"),
    )
    return ScoreRow(row["sample_id"], row["image_index"], row["group"], score)


def metric_to_json(metric: MetricValue) -> dict[str, Any]:
    """An entry of ``results.json``'s metrics."""
    return {
        "value": metric.value,
        "n": metric.n,
        "unscored": metric.unscored,
        "ci95": None if metric.ci95 is None else list(metric.ci95),
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "clusters": metric.clusters,
        "method": metric.method,
        "note": metric.note,
    }


def metric_from_json(name: str, data: Mapping[str, Any]) -> MetricValue:
    """The typed value of an entry of ``results.json``'s metrics."""
    ci95 = data.get("ci95")
    fields = {k: data.get(k) for k in ("value", "clusters", "method", "note")}
    return MetricValue(
        name=name,
        n=data["n"],
        unscored=data["unscored"],
        ci95=None if ci95 is None else (ci95[0], ci95[1]),
        unit=data["unit"],
        higher_is_better=data["higher_is_better"],
        **fields,
    )


def comparable(root: str | Path) -> dict[str, str]:
    """Everything in a run folder that must be equal when the same configuration is run again.

    Relative path -> sha256. Left out are times (``seconds`` in outputs, ``timing`` in results) and the
    checksums over them, the manifest's volatile keys and its copy, lock files, and the report, which
    prints those times.
    """
    root = Path(root)
    digests = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if path.name.startswith(".") and path.name.endswith(("lock", ".copy.json")):
            continue
        if name == "report.html":
            continue
        digests[name] = hashlib.sha256(_stable_bytes(name, path)).hexdigest()
    return digests


def _stable_bytes(name: str, path: Path) -> bytes:
    if name == "outputs.jsonl":
        rows = ({k: v for k, v in row.items() if k != "seconds"} for row in read_rows(path))
        return "\n".join(map(dumps, rows)).encode()
    if name in ("manifest.json", "results.json"):
        data = json.loads(path.read_bytes())
        for key in ("timing", JSON_KEY, *VOLATILE_MANIFEST_KEYS):
            data.pop(key, None)
        return json.dumps(data).encode()
    return path.read_bytes()
