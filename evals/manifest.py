"""What ``manifest.json`` says about a run when it begins (keys: ``evals.results``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals import config as configs
from evals import provenance
from evals.api import Judge, Model, Sample, Task
from evals.config import RunConfig
from evals.fingerprint import sha256_of
from evals.phases.readymade import Findings
from evals.plugins.lookup import identity_json
from evals.results import SCHEMA_VERSION

_JUDGE_BATCH_SIZE = 64  # for tasks that need no judge


def new_manifest(
    config: RunConfig,
    task: Task,
    model: Model,
    judge: Judge | None,
    *,
    samples: Sequence[Sample],
    num_official: int,
    per_sample: int,
    fingerprint: Mapping[str, Any],
    findings: Findings | None = None,
    parent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a run that has just begun.

    Args: samples: those of this run. num_official: all that the task has. per_sample: outputs of each.
    findings: what was seen in outputs that lie ready. parent: the run whose outputs are judged again.
    """
    findings = findings or Findings()
    groups: dict[str, int] = {}
    for sample in samples:
        groups[sample.group] = groups.get(sample.group, 0) + 1
    described_judge = None
    if judge is not None:
        described_judge = {**identity_json(judge), "accuracy": dict(judge.accuracy())}
    return {
        "schema": SCHEMA_VERSION,
        "status": "running",
        "config": configs.public_config(config),
        "fingerprint": fingerprint,
        "config_sha256": sha256_of(fingerprint),
        "auto": resolved_batch_sizes(config, task, model, judge),
        "task": {
            "name": task.name,
            "version": task.version,
            "kind": task.kind,
            "prompts_sha256": task.digest(),
            "groups": groups,
            "card": dict(task.card),
            **({"data": dict(task.data_origin())} if hasattr(task, "data_origin") else {}),
        },
        "model": identity_json(model),
        "judge": described_judge,
        "plan": {
            "samples": len(samples),
            "official_samples": num_official,
            "per_sample": per_sample,
            "official_per_sample": task.num_images,
            "outputs": len(samples) * per_sample,
        },
        "partial": len(samples) < num_official,
        "deviations": [
            *_deviations(task, len(samples), num_official, per_sample),
            *findings.deviations,
        ],
        "warnings": [*_warnings(model, judge), *findings.warnings],
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "platform": provenance.platform_info(),
        "sessions": [],
        "mlflow": None,
        **({"parent": dict(parent)} if parent is not None else {}),
    }


def auto_batch_size(task: Task, model: Model) -> int:
    """Outputs per call when nobody says: the model's ``answer_batch_size`` for answers, if it has one."""
    own = model.identity.batch_size
    return int(getattr(model, "answer_batch_size", own)) if task.kind == "understanding" else own


def resolved_batch_sizes(
    config: RunConfig, task: Task, model: Model, judge: Judge | None
) -> dict[str, int]:
    """What "auto" becomes; recorded once, so that a resumed run cuts the same batches."""
    wanted = config.batch_size
    sizes = {"batch_size": auto_batch_size(task, model) if wanted == "auto" else int(wanted)}
    wanted = config.judge.batch_size
    default = judge.identity.batch_size if judge else _JUDGE_BATCH_SIZE
    sizes["judge.batch_size"] = default if wanted == "auto" else int(wanted)
    return sizes


def _deviations(task: Task, num_samples: int, num_official: int, per_sample: int) -> list[str]:
    found = []
    if num_samples < num_official:
        found.append(f"{num_samples} of {num_official} samples were run (--limit)")
    if task.kind == "generation" and per_sample != task.num_images:
        pictures = f"{per_sample} picture{'s' * (per_sample != 1)}"
        found.append(f"{pictures} per prompt, the protocol has {task.num_images}")
    return found


def _warnings(model: Model, judge: Judge | None) -> list[str]:
    """Of a judge outside its domain, and what the judge itself says in its ``info["warnings"]``."""
    if judge is None:
        return []
    own = [str(text) for text in judge.identity.info.get("warnings", ())]
    if judge.identity.domain == model.identity.domain:
        return own
    if model.identity.domain == "unknown":
        return [
            *own,
            f"nobody has said what kind of pictures these are; judge {judge.identity.name!r} was made for "
            f"pictures of domain {judge.identity.domain!r} and means little on others",
        ]
    return [
        *own,
        f"judge {judge.identity.name!r} was made for pictures of domain {judge.identity.domain!r}, this model "
        f"makes {model.identity.domain!r}: its verdicts mean little here",
    ]
