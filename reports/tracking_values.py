"""What a finished run says in MLflow: figures, parameters, tags and a note, within MLflow's limits.

Names may hold letters, digits, space and `_ - . : /` and no more than 250 characters; values are cut, control
characters and lone surrogates (which no database stores) are taken out, and so are secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from evals.io.redact import redact
from evals.results import RunData
from reports.format import interval, number, words

# MLflow's own limits on lengths are a little higher.
MAX_PARAM, MAX_TAG, MAX_NAME = 500, 5000, 250

Value = TypeVar("Value")


def metric_name(name: str) -> str:
    """A name that MLflow accepts: `CLIP(ViT-B/32)` -> `CLIP_ViT-B/32`."""
    name = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    name = re.sub(r"_{2,}", "_", name).strip("_/ .") or "unnamed"
    # MLflow takes a name for a path and refuses what a path can be written shorter as: "a//b", "a/../b".
    parts = [part for part in name[:MAX_NAME].split("/") if part.strip(".")]
    return "/".join(parts)


def clean(text: str, limit: int) -> str:
    """Text that every store takes: no lone surrogates, no control characters but line ends, not longer than `limit`."""
    text = text[: 4 * limit].encode("utf-8", "replace").decode()
    return "".join(c for c in redact(text) if c in "\n\t" or c.isprintable() or c == " ")[:limit]


def unique_names(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values under names that MLflow accepts; names that become equal get `_2`, `_3`, ..."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        base = made = metric_name(name)
        number = 1
        while made in found:
            number += 1
            made = f"{base[: MAX_NAME - 8]}_{number}"
        found[made] = value
    return found


def metrics_of(run: RunData) -> dict[str, float]:
    """Every figure as `name`, its bounds as `name_ci_low` and `name_ci_high`, then counts and times."""
    assert run.results is not None
    found: dict[str, float] = {}
    figures = unique_names({m.name: m for m in run.metric_values() if m.value is not None})
    for name, metric in figures.items():
        assert metric.value is not None
        found[name] = float(metric.value)
        if metric.ci95 is not None:
            bounds = name[: MAX_NAME - 8]
            found[f"{bounds}_ci_low"], found[f"{bounds}_ci_high"] = map(float, metric.ci95)
    for section, prefix in (("counts", "outputs"), ("timing", "timing")):
        for key, value in run.results[section].items():
            if isinstance(value, (int, float)):
                found[metric_name(f"{prefix}/{key}")] = float(value)
    return found


def params_of(run: RunData) -> dict[str, str]:
    """What changes outputs or scores, flat."""
    return unique_names(
        {k: clean(str(v), MAX_PARAM) for k, v in run.manifest["fingerprint"].items()}
    )


def tags_of(run: RunData, extra: Mapping[str, str]) -> dict[str, str]:
    """Who made the figures, from what, and the caveats; `extra` wins."""
    manifest, results = run.manifest, run.results
    assert results is not None
    git = manifest.get("git") or {}
    found = {
        "mlflow.source.name": "blip3o-eval",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.note.content": description(run),
        "git.is_dirty": git.get("is_dirty"),
        "task": manifest["task"]["name"],
        "task.version": manifest["task"]["version"],
        "model": manifest["model"]["name"],
        "judge": (manifest["judge"] or {}).get("name"),
        "judge.domain": (manifest["judge"] or {}).get("domain"),
        "partial": manifest["partial"],
        "test_double": results["is_test_double"],
        "config_sha256": manifest["config_sha256"],
        **{
            f"version.{name}": version for name, version in (manifest.get("versions") or {}).items()
        },
    }
    texts = {
        k: str(v).lower() if isinstance(v, bool) else str(v)
        for k, v in found.items()
        if v is not None
    }
    texts |= unique_names({str(k): str(v) for k, v in extra.items()})
    return {key: clean(value, MAX_TAG) for key, value in texts.items()}


def description(run: RunData) -> str:
    """The run's note in MLflow, Markdown: caveats first, then the figures."""
    manifest, results = run.manifest, run.results
    assert results is not None
    caveats = []
    if results["is_test_double"]:
        caveats.append("**Made with a test double: these figures mean nothing.**")
    if manifest["partial"]:
        caveats.append("**Partial run: not the benchmark's score.**")
    if manifest["judge"] and manifest["judge"]["domain"] == "stickers":
        caveats.append("Sticker judge: not comparable with published figures.")
    lines = ["| figure | value | 95 % interval | scored |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {words(m.name)} | {number(m.value, m.unit)} | {interval(m.ci95, m.unit)} | {m.n} |"
        for m in run.metric_values()
    ]
    return "\n\n".join([*caveats, "\n".join(lines)])
