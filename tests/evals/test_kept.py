"""Understanding before and after: identical, kept, lost, gained or undecided, and the page that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import evals
from evals.api import AnswerRequest, Identity
from evals.cli.main import main
from evals.errors import UsageError
from evals.kept import kept
from evals.models.dummy import DummyModel
from evals.plugins.lookup import find_task

SILENT: Any = {"quiet": True, "report": False, "tracking__enabled": False}


class Pupil(DummyModel):
    """Answers the first ``share`` of each hundred questions rightly; ``style`` changes words, not verdicts."""

    def __init__(self, right: dict[str, str], share: float, style: str = "") -> None:
        super().__init__()
        self.right, self.share, self.style = right, share, style
        self.identity = Identity(f"pupil {share} {style}", "1", f"{share}{style}", "stickers")

    def answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
        places = {name: place for place, name in enumerate(self.right)}
        return [
            self.right[r.sample_id] + self.style
            if places[r.sample_id] % 100 < 100 * self.share
            else "nothing"
            for r in requests
        ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs of two tasks by pupils of different strength."""
    root = tmp_path_factory.mktemp("runs")
    for task_name, limit in (("mmmu_stickers", 200), ("vqa_stickers", 60)):
        task = find_task(task_name)
        right = {
            s.id: str(s.metadata.get("multiple_choice_answer") or s.metadata["answer"]) for s in task.samples()
        }
        for name, share, style in (
            ("before", 0.8, ""), ("sequential", 0.8, ""), ("reworded", 0.8, "."), ("joint", 0.5, ""),
            ("slight", 0.78, ""),
        ):  # fmt: skip
            folder = root / name / task_name
            evals.evaluate(task, Pupil(right, share, style), limit=limit, output=folder, **SILENT)
    return root


def verdicts(runs: Path, name: str, **settings: Any) -> dict[str, str]:
    (after,) = kept(runs / "before", [runs / name], **settings).after
    return {one.task: one.verdict for one in after.tasks}


def test_equal_answers_are_identical(runs: Path) -> None:
    found = kept(runs / "before", [runs / "sequential"])
    assert found.after[0].sentence.endswith("answers are the same.")
    assert {one.verdict for one in found.after[0].tasks} == {"identical"}
    assert all(one.same == one.shared and one.better == one.worse == 0 for one in found.after[0].tasks)


def test_likelihoods_count_by_the_answer_that_is_likeliest(tmp_path: Path) -> None:
    class Sure(DummyModel):
        def __init__(self, sureness: float) -> None:
            super().__init__()
            self.sureness = sureness
            self.identity = Identity("sure", "1", str(sureness), "stickers")

        def log_likelihoods(self, requests: Sequence[AnswerRequest], continuations: Sequence[str]) -> list[float]:
            return [-self.sureness * "ABCD".index(text) - 1.0 for text in continuations]

    for name, sureness in (("before", 1.0), ("after", 1.5), ("other", -1.0)):
        evals.evaluate(
            find_task("mmmu_stickers_likelihood"), Sure(sureness), limit=12, output=tmp_path / name, **SILENT
        )
    found = kept(tmp_path / "before", [tmp_path / "after", tmp_path / "other"]).after
    assert [one.tasks[0].same for one in found] == [12, 0]


def test_other_words_with_equal_scores_are_kept(runs: Path) -> None:
    (after,) = kept(runs / "before", [runs / "reworded"]).after
    one = after.tasks[0]
    assert (one.verdict, one.same < one.shared, one.headline.difference) == ("kept", True, 0)


def test_a_loss_beyond_chance_is_lost_and_the_other_way_gained(runs: Path) -> None:
    found = kept(runs / "before", [runs / "joint"]).after[0].tasks
    one = next(task for task in found if task.task == "mmmu_stickers")
    assert one.verdict == "lost" and one.worse > one.better == 0
    assert one.headline.difference == pytest.approx((one.better - one.worse) / one.shared)
    back = kept(runs / "joint", [runs / "before"]).after[0].tasks
    assert next(task for task in back if task.task == "mmmu_stickers").verdict == "gained"


def test_a_difference_within_the_margin_needs_enough_questions(runs: Path) -> None:
    assert verdicts(runs, "slight", margin=0.01)["mmmu_stickers"] == "undecided"
    assert verdicts(runs, "slight", margin=0.2)["mmmu_stickers"] == "kept"


def test_p_values_are_corrected_for_all_headlines(runs: Path) -> None:
    alone = kept(runs / "before", [runs / "joint"]).after[0].tasks[0].headline
    many = kept(runs / "before", [runs / "joint", runs / "slight", runs / "reworded"]).after[0].tasks[0].headline
    assert alone.p_value == many.p_value is not None
    assert (many.p_holm or 0) >= (alone.p_holm or 0)


def test_the_command_prints_and_writes_the_page(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "kept.html"
    arguments = ["kept", str(runs / "before"), str(runs / "sequential"), str(runs / "joint")]
    found = CliRunner().invoke(main, [*arguments, "--html", str(page)])
    assert found.exit_code == 0, found.output
    assert "sequential: understanding is unchanged" in found.stdout and "lost in" in found.stdout
    text = page.read_text()
    assert "Understanding before and after generation training" in text and "joint minus before" in text
    assert text.count("Partial run") == 1 and "mmmu_stickers: 200 of 300 prompts were run; vqa_stickers: 60" in text
    assert str(runs) not in text.replace(str(tmp_path), ""), "folders of this machine stand in the page"
    values = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert [one["name"] for one in values["after"]] == ["sequential", "joint"]
    assert {task["task"] for task in values["after"][0]["tasks"]} == {"mmmu_stickers", "vqa_stickers"}


def test_what_does_not_compare_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run of an understanding task"):
        kept(tmp_path, [runs / "joint"])
    with pytest.raises(UsageError, match="run the same task on both"):
        kept(runs / "before" / "mmmu_stickers", [runs / "joint" / "vqa_stickers"])
    with pytest.raises(UsageError, match="a margin of 2: give a share"):
        kept(runs / "before", [runs / "joint"], margin=2)
    (after,) = kept(runs / "before", [runs / "joint" / "mmmu_stickers"]).after
    assert after.left_out == ("vqa_stickers",) and len(after.tasks) == 1
