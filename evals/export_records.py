"""Finished runs as records for programs: a model card's ``model-index``, and lmms-eval's results file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evals.errors import UsageError
from evals.export import caveats, marks
from evals.frames import encodable
from evals.results import RunData

_HUB_DATA = re.compile(r"hub data set ([\w.-]+/[\w.-]+)(?:, (\w+))??,? split (\w+)")
_TASK_TYPES = {"generation": "text-to-image", "understanding": "visual-question-answering"}


def to_model_index(runs: Sequence[RunData]) -> str:
    """The metadata block of a Hugging Face model card, with one entry per model and run.

    Made and read back by ``huggingface_hub``'s own classes. Intervals, counts and caveats stand in the
    ``args`` of metrics and data sets, and a caveat also in the data set's name, which sites show.
    """
    import yaml
    from huggingface_hub import EvalResult, ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index

    by_model: dict[str, list[EvalResult]] = {}
    for run in runs:
        mine = by_model.setdefault(encodable(run.manifest["model"]["name"]), [])
        mine += [EvalResult(**encodable(fields)) for fields in _eval_results(run)]
    index = [
        entry for name, results in by_model.items() for entry in eval_results_to_model_index(name, results)
    ]
    block = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=10_000)
    text = f"---\n{block}---\n"
    count = len(ModelCard(text).data.eval_results or [])  # type: ignore[attr-defined]  # ModelCardData
    if count != sum(map(len, by_model.values())):
        raise AssertionError(f"a card of {count} results was made of {sum(map(len, by_model.values()))}")
    return text


def _eval_results(run: RunData) -> list[dict[str, Any]]:
    manifest, results = run.manifest, run.results
    assert results is not None
    task, judge = manifest["task"], manifest["judge"]
    hub = _HUB_DATA.search(task["card"].get("data", ""))
    found = caveats(run)
    mark = marks(run)
    config = [f"version {task['version']}", *([f"judge {judge['name']}"] if judge else [])]
    shared = {
        "task_type": _TASK_TYPES[task["kind"]],
        "dataset_type": hub[1] if hub else task["name"],
        "dataset_name": f"{task['name']} ({mark})" if mark else task["name"],
        # Part of what tells two entries apart, so it names the run.
        "dataset_config": ", ".join([*config, f"run {manifest['config_sha256'][:8]}"]),
        "dataset_split": hub[3] if hub else None,
        "dataset_args": {
            "prompts_sha256": task["prompts_sha256"],
            "samples": results["counts"]["samples"],
            "seed": manifest["config"]["seed"],
            "model_sha256": manifest["model"]["weights_sha256"],
            **({"judge_sha256": judge["weights_sha256"]} if judge else {}),
            **({"caveats": found} if found else {}),
        },
    }
    return [
        {
            **shared,
            "metric_type": metric.name,
            "metric_name": f"{task['name']} {metric.name}",
            "metric_value": metric.value,
            "metric_args": {
                "unit": metric.unit,
                "n": metric.n,
                "unscored": metric.unscored,
                **({"ci95": list(metric.ci95)} if metric.ci95 else {}),
            },
        }
        for metric in run.metric_values()
        if metric.value is not None
    ]


def to_lmms_eval(runs: Sequence[RunData]) -> str:
    """One JSON object in the form of lmms-eval 0.7.3's ``*_results.json``: one model, one or more tasks.

    Figures keep the names that they have here, under ``"<metric>,none"``; their standard errors are
    "N/A", as intervals here are not symmetric. What the form has no place for (intervals, judge,
    caveats, digests) stands under ``blip3o_eval``.

    Raises: UsageError for runs of several models, or two of one task.
    """
    first = runs[0].manifest
    model = first["model"]
    seen: dict[str, RunData] = {}
    for run in runs:
        other = run.manifest["model"]
        if (other["name"], other["weights_sha256"]) != (model["name"], model["weights_sha256"]):
            raise UsageError(
                f"a results file of lmms-eval holds one model, these runs have {model['name']!r} "
                f"({model['weights_sha256'][:8]}) and {other['name']!r} ({other['weights_sha256'][:8]}): export "
                "them apart"
            )
        task = run.manifest["task"]["name"]
        if task in seen:
            raise UsageError(
                f"a results file of lmms-eval holds a task once, {seen[task].root} and {run.root} are both "
                f"{task!r}: export them apart"
            )
        seen[task] = run
    body: dict[str, Any] = {
        "results": {task: _lmms_results(run) for task, run in seen.items()},
        "group_subtasks": {task: [] for task in seen},
        "configs": {task: _lmms_config(run) for task, run in sorted(seen.items())},
        "versions": {task: run.manifest["task"]["version"] for task, run in sorted(seen.items())},
        "n-shot": dict.fromkeys(sorted(seen), 0),
        "higher_is_better": {
            task: {_lmms_name(m.name): m.higher_is_better for m in run.metric_values()}
            for task, run in sorted(seen.items())
        },
        "n-samples": {
            task: {
                "original": run.manifest["plan"]["official_samples"],
                "effective": run.manifest["plan"]["samples"],
            }
            for task, run in seen.items()
        },
        "config": _lmms_run(runs[0], list(seen.values())),
        "git_hash": (first["git"] or {}).get("commit"),
        "git_branch": None,
        "lmms_eval_version": None,
        "date": _date(first),
        "usage": None,
        "task_hashes": {t: r.manifest["task"]["prompts_sha256"] for t, r in seen.items()},
        **_lmms_tracker(runs[0], list(seen.values())),
        "blip3o_eval": {task: _own(run) for task, run in seen.items()},
    }
    return json.dumps(encodable(body), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _lmms_results(run: RunData) -> dict[str, Any]:
    assert run.results is not None
    found: dict[str, Any] = {"alias": run.manifest["task"]["name"]}
    for metric in run.metric_values():
        if metric.value is not None:
            name = _lmms_name(metric.name)
            found[f"{name},none"] = metric.value
            found["samples"] = run.results["counts"]["samples"]
            found[f"{name}_stderr,none"] = "N/A"
    return found


def _lmms_name(metric: str) -> str:
    return metric.replace(",", ";")  # a comma ends the name: what follows is the filter


def _lmms_config(run: RunData) -> dict[str, Any]:
    task = run.manifest["task"]
    return {
        "task": task["name"],
        "dataset_path": task["card"].get("data"),
        "output_type": "generate_until",
        "repeats": run.manifest["plan"]["per_sample"],
        "num_fewshot": 0,
        "metric_list": [
            {"metric": _lmms_name(m.name), "higher_is_better": m.higher_is_better} for m in run.metric_values()
        ],
        "metadata": {"version": task["version"], "scorer": task["card"].get("scorer")},
    }


def _lmms_run(first: RunData, runs: Sequence[RunData]) -> dict[str, Any]:
    manifest = first.manifest
    config = manifest["config"]
    return {
        "model": manifest["model"]["name"],
        "model_args": _pairs(manifest["model"]["settings"]),
        "model_backend": f"blip3o-eval {(manifest['versions'] or {}).get('blip3o-eval')}",
        "batch_size": manifest["auto"]["batch_size"],
        "batch_sizes": [run.manifest["auto"]["batch_size"] for run in runs],
        "device": config["model"]["device"],
        "use_cache": None,
        "limit": config["limit"],
        "offset": 0,
        "bootstrap_iters": None,
        "process_docs_parallel": None,
        "gen_kwargs": _pairs(config["generation"]),
        "random_seed": config["seed"],
        "numpy_seed": config["seed"],
        "torch_seed": config["seed"],
        "fewshot_seed": None,
    }


def _lmms_tracker(first: RunData, runs: Sequence[RunData]) -> dict[str, Any]:
    name = first.manifest["model"]["name"]
    seconds = sum(
        (run.results or {}).get("timing", {}).get(key) or 0.0
        for run in runs
        for key in ("generate_s", "score_s")
    )
    return {
        "model_source": "blip3o-eval",
        "model_name": name,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "start_time": None,
        "end_time": None,
        "total_evaluation_time_seconds": str(round(seconds, 2)),
    }


def _own(run: RunData) -> dict[str, Any]:
    manifest, results = run.manifest, run.results
    assert results is not None
    return {
        "run": str(run.root),
        "config_sha256": manifest["config_sha256"],
        "model_sha256": manifest["model"]["weights_sha256"],
        "judge": results["judge"],
        "caveats": caveats(run),
        "counts": results["counts"],
        "metrics": results["metrics"],
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items() if value is not None)


def _date(manifest: Mapping[str, Any]) -> str | None:
    """Start of the first session in lmms-eval's form, ``20261122_015500``."""
    sessions = manifest["sessions"]
    if not sessions:
        return None
    return datetime.fromisoformat(sessions[0]["started"]).strftime("%Y%m%d_%H%M%S")
