"""Editions that compare log-likelihoods: the likeliest allowed answer is judged as if it had been written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.api import AnswerRequest, ModelOptions
from evals.errors import UsageError
from evals.models.dummy import DummyModel
from evals.plugins.lookup import find_task

# task -> (written task's recorded file, rows with allowed answers, the first ones' answers)
OFFICIAL = {
    "mme_likelihood": ("mme", 20, ("Yes", "No")),
    "mmmu_likelihood": ("mmmu_val", None, None),
    "seedbench_likelihood": ("seedbench", 20, ("A", "B", "C", "D")),
    "mmbench_likelihood": ("mmbench_en_dev_static", 20, None),
    "realworldqa_likelihood": ("realworldqa", None, None),
}
SILENT: Any = {"quiet": True, "report": False, "tracking__enabled": False}


class Knowing(DummyModel):
    """Finds the right answers likelier by ``margin``; counts what it was asked."""

    def __init__(self, right: dict[str, str], margin: float = 1.0) -> None:
        super().__init__()
        self.right, self.margin, self.asked = right, margin, 0

    def log_likelihoods(
        self, requests: Sequence[AnswerRequest], continuations: Sequence[str]
    ) -> list[float]:
        self.asked += len(requests)
        return [
            -2.0 + self.margin * (self.right[r.sample_id] == text.lower())
            for r, text in zip(requests, continuations, strict=True)
        ]


def right_answers(task: Any) -> dict[str, str]:
    return {s.id: str(s.metadata["answer"]).lower().strip() for s in task.samples()}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_documents_have_their_allowed_answers(golden: Path, name: str) -> None:
    file, count, first = OFFICIAL[name]
    task = find_task(name, golden / "understanding" / f"{file}.parquet")
    samples = task.samples()
    written = find_task(name.removesuffix("_likelihood"), golden / "understanding" / f"{file}.parquet")
    assert [s.id for s in samples] == [s.id for s in written.samples()]
    with_choices = [s for s in samples if s.choices]
    assert count is None or len(with_choices) == count
    assert all(c.prompt == s.prompt for s in with_choices for c in s.choices)
    if first is not None:
        assert tuple(c.text for c in samples[0].choices) == first
    for sample in samples:  # open questions are answered in writing
        is_open = sample.metadata.get("question_type") == "open" or sample.group == "open"
        assert is_open == (not sample.choices)
        if sample.choices and sample.metadata.get("answer") is not None and file != "mmmu_val":
            allowed = [c.text.lower() for c in sample.choices]
            answer = str(sample.metadata["answer"]).lower().strip().rstrip(".")
            assert answer in allowed or file == "mmbench_en_dev_static"


@pytest.mark.parametrize(("margin", "wanted"), [(1.0, 800), (-1.0, 0)])
def test_the_likeliest_answer_counts(tmp_path: Path, margin: float, wanted: float) -> None:
    task = find_task("mme_stickers_likelihood")
    model = Knowing(right_answers(task), margin)
    run = evals.evaluate(task, model, limit=16, output=tmp_path / "run", **SILENT)
    assert run.results is not None and run.problem is None
    assert run.results["metrics"]["perception"]["value"] == wanted
    assert run.results["metrics"]["unparsed"]["value"] == 0 and model.asked == 32
    assert all(row["answer"] in ("yes", "no") for row in run.data.scores())


def test_equal_likelihoods_take_the_first_answer(tmp_path: Path) -> None:
    task = find_task("mmmu_stickers_likelihood")
    model = Knowing(right_answers(task), 0.0)
    run = evals.evaluate(task, model, limit=12, output=tmp_path / "run", **SILENT)
    assert {row["answer"] for row in run.data.scores()} == {"A"}


def test_a_model_without_likelihoods_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'dummy' gives no log-likelihoods.*written answers, mme_stickers$"):
        evals.evaluate("mme_stickers_likelihood", "dummy", output=tmp_path / "run", **SILENT)
    assert not (tmp_path / "run").exists()


def test_blip3o_models_are_scored_by_their_likelihoods(tmp_path: Path) -> None:
    from evals.models.blip3o import create_tiny

    model = create_tiny("", ModelOptions(device="cpu"))
    run = evals.evaluate(
        find_task("mmmu_stickers_likelihood"), model, limit=6, output=tmp_path / "run", **SILENT
    )
    assert run.problem is None
    assert run.data.manifest["auto"]["batch_size"] == model.answer_batch_size
    assert {row["answer"] for row in run.data.scores()} <= set("ABCD")
    values = [row["text"] for row in run.data.outputs()]
    assert len(values) == 6 and all(text.startswith("[[-") for text in values)
