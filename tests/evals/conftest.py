"""A small generation task and a small question task, so that harness tests depend on no benchmark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.api import Sample, Score, ScoreItem
from evals.metrics.accuracy import GroupMean, MeanOfGroups
from evals.results import RunData, load


class FruitTask:
    """Asks for fruit; a picture is right if the fake judge finds the fruit in it."""

    name = "fruit"
    version = "1"
    kind = "generation"
    groups = ("one", "two", "colors")
    num_images = 4
    judges = {"stickers": "stickers"}
    card = {"measures": "fruit"}

    def __init__(self, per_group: int = 8) -> None:
        self._samples = [
            Sample(
                id=f"fruit-{number:03d}",
                number=number,
                group=group,
                prompt=f"a photo of {words} apple {number}",
                metadata={"tag": group, "prompt": f"a photo of {words} apple {number}"},
            )
            for number, (group, words) in enumerate(
                (g, w)
                for g, w in (("one", "an"), ("two", "two"), ("colors", "a red"))
                for _ in range(per_group)
            )
        ]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def digest(self) -> str:
        return hashlib.sha256("\n".join(s.prompt for s in self._samples).encode()).hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: object) -> Sequence[Score]:
        wanted = [["apple"] if i.sample.group == "colors" else [] for i in items]
        found = judge.detect([i.image for i in items], wanted)
        return [
            Score(float(len(f) > 0), reason="" if f else "no fruit", details={"found": len(f)})
            for f in found
        ]

    def metrics(self) -> Sequence[object]:
        return [MeanOfGroups(self.groups), *(GroupMean(g, g) for g in self.groups)]


class QuizTask(FruitTask):
    """The same samples as questions; right if the answer is "yes"."""

    name = "quiz"
    kind = "understanding"
    num_images = 1
    judges: dict[str, str] = {}

    def score(self, items: Sequence[ScoreItem], judge: object) -> Sequence[Score]:
        assert judge is None
        return [
            Score(float(i.output.text == "yes"), answer=i.output.text)
            if i.output.text in ("yes", "no")
            else Score.unscored("neither yes nor no")
            for i in items
        ]


@pytest.fixture
def fruit() -> FruitTask:
    return FruitTask()


@pytest.fixture
def quiz() -> QuizTask:
    return QuizTask()


def write_scores(
    root: Path,
    values: Mapping[tuple[str, int], float | None],
    *,
    task: Mapping[str, Any],
    groups: Sequence[str],
    model: str = "nano",
    judge: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    deviations: Sequence[str] = (),
    status: str = "finished",
) -> RunData:
    """A whole run folder around `values`: (sample id, image index) -> score, None for one without.

    A sample's group is what its id begins with, up to the last dash.
    """
    root.mkdir()
    part = {
        "name": model, "version": "1", "weights_sha256": "0" * 64, "domain": "test",
        "is_test_double": False, "settings": {}, "info": {},
    }  # fmt: skip
    named = {"name": "pets", "version": "1", "prompts_sha256": "p", "kind": "generation", "card": {}}
    described_judge = None if judge is None else {**part, **judge}
    shared = {
        "config_sha256": f"{model:0<8}" * 8, "partial": False, "deviations": list(deviations),
        "warnings": [], "model": part, "judge": described_judge,
        "task": {**named, **task, "groups": {group: 1 for group in groups}},
    }  # fmt: skip
    n = len(values)
    manifest = {
        **shared, "schema": 1, "status": status, "auto": {}, "sessions": [], "mlflow": None,
        "config": {"task": "pets", "model": {}, "generation": {}, "judge": {}},
        "fingerprint": {"model.name": model, "seed": 42, "limit": None, **(settings or {})},
        "plan": {"samples": n, "official_samples": n, "per_sample": 1, "outputs": n},
    }  # fmt: skip
    counts = {"samples": n, "outputs": n, "failed": 0, "scored": n, "unscored": 0}
    results = {
        **shared, "schema": 1, "is_test_double": False, "metrics": {}, "groups": {},
        "counts": counts, "timing": {},
    }  # fmt: skip
    rows = [
        {"sample_id": s, "image_index": i, "group": s.rpartition("-")[0], "value": v}
        | ({} if v is not None else {"unscored": "judge failed"})
        for (s, i), v in values.items()
    ]
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "results.json").write_text(json.dumps(results))
    (root / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(root)


@pytest.fixture
def folder_of_scores() -> Callable[..., RunData]:
    """`write_scores`: a run folder that holds given scores."""
    return write_scores
