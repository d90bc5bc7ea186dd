"""The task: its prompts, the question file it needs, its scores and figures through a judge."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.api import Identity, Output, ScoreItem, ScoreRow, Task
from evals.errors import InputError, JudgeError, MissingRequirementError
from evals.judges.dummy import DummyJudge
from evals.models.dummy import DummyModel
from tasks.generation import dpg
from tasks.generation.dpg import Dpg
from tasks.generation.dpg_graph import LEVEL_1, LEVEL_2

COLUMNS = ["item_id", "proposition_id", "dependency", "tuple", "question_natural_language"]


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what the user's own runs remember."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dpg:
    """The task with three made-up questions about every prompt, in place of the official file."""
    path = tmp_path / "dpg_bench.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for item in ITEMS:
            for pid, (parents, category) in enumerate(QUESTIONS, start=1):
                cells = [item, pid, parents, f"{category} (x, {pid})", f"Question {pid} of {item}?"]
                writer.writerow(dict(zip(COLUMNS, cells, strict=True)))
    raw = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
    monkeypatch.setattr(dpg, "QUESTIONS_BLOB", blob)
    monkeypatch.setenv(dpg.QUESTIONS_VARIABLE, str(path))
    return Dpg()


QUESTIONS = (("0", "entity - whole"), ("1", "attribute - color"), ("1, 2", "relation - spatial"))
ITEMS = [json.loads(line)["id"] for line in Dpg()._prompts.splitlines()]


class Script:
    """Answers question texts from a table; "yes" to the rest."""

    identity = Identity("script", "1", "0", "test")

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        assert len(images) == len(questions)
        self.asked += questions
        return [self.answers.get(f"q{q.split()[1]}", "yes") for q in questions]


def item(sample: Any, index: int = 0) -> ScoreItem:
    return ScoreItem(sample, Output(sample.id, index, 1, path="x.png"), image="picture")


def test_it_has_the_official_prompts_in_families(task: Dpg) -> None:
    assert isinstance(task, Task)
    samples = task.samples()
    assert len(samples) == len({s.id for s in samples}) == 1065
    assert {s.group for s in samples} == set(task.groups)
    families = {s.id: s.group for s in samples}
    assert families["0"] == "plain" and families["partiprompts97"] == "partiprompts"
    assert sum(group == "COCOval" for group in families.values()) == 100


def test_without_the_question_file_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(dpg.QUESTIONS_VARIABLE, raising=False)
    with pytest.raises(MissingRequirementError, match="curl -LO https.*--data or set BLIP3O_EVAL_DPG"):
        Dpg().samples()
    other = tmp_path / "other.csv"
    other.write_text("item_id\n1\n")
    monkeypatch.setenv(dpg.QUESTIONS_VARIABLE, str(other))
    with pytest.raises(InputError, match="is not the official question file"):
        Dpg().samples()
    monkeypatch.setenv(dpg.QUESTIONS_VARIABLE, str(tmp_path / "no.csv"))
    with pytest.raises(InputError, match="No such file"):
        Dpg().samples()


def test_a_file_that_was_right_once_is_found_again(task: Dpg, monkeypatch, tmp_path: Path) -> None:
    given = Path(task._questions)
    monkeypatch.delenv(dpg.QUESTIONS_VARIABLE)
    with pytest.raises(MissingRequirementError, match="later runs remember it"):
        Dpg().samples()
    digest = Dpg(given).samples() and Dpg(given).digest()
    assert len(Dpg().samples()) == 1065 and Dpg().digest() == digest
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("item_id\n")
    with pytest.raises(InputError):
        Dpg(wrong).samples()
    assert Dpg()._questions == given  # what proved wrong is not remembered
    given.unlink()
    with pytest.raises(MissingRequirementError):
        Dpg().samples()


def test_other_line_ends_and_a_byte_order_mark_make_no_other_file(task: Dpg, tmp_path: Path) -> None:
    plain = Path(task._questions).read_bytes()
    rows, digest = list(task.rows), task.digest()
    unix = plain.replace(b"\r\n", b"\n")
    for text in (unix, unix.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + unix):
        path = tmp_path / "copy.csv"
        path.write_bytes(text)
        assert list(Dpg(path).rows) == rows and Dpg(path).digest() == digest
    path.write_bytes(unix.replace(b"Question 1", b"Question one", 1))
    with pytest.raises(InputError, match="is not the official question file"):
        Dpg(path).samples()


def test_the_judge_is_asked_every_question_and_the_score_is_the_share_that_holds(task: Dpg) -> None:
    sample = task.samples()[5]
    judge = Script(q1="no")
    scores = task.score([item(sample), item(sample, 1)], judge)
    assert judge.asked == [f"Question {i} of {sample.id}?" for i in (1, 2, 3)] * 2
    assert [s.value for s in scores] == [0.0, 0.0]  # both others depend on question 1
    assert scores[0].reason == "not yes: entity"  # the cause, not what follows from it
    assert scores[0].details["answers"] == {"1": "no", "2": "yes", "3": "yes"}
    assert scores[0].details["questions"]["3"] == {
        "text": f"Question 3 of {sample.id}?",
        "tuple": "relation - spatial (x, 3)",
        "parents": [1, 2],
    }
    (last,) = task.score([item(sample)], Script(q3="No"))
    assert last.value == pytest.approx(2 / 3) and last.reason == "not yes: relation"
    with pytest.raises(JudgeError, match="answers questions about pictures"):
        task.score([item(sample)], None)


def test_figures_are_percentages_over_prompts_in_both_modes(task: Dpg) -> None:
    samples = task.samples()[:3]
    rows = []
    for sample, judge in zip(samples, (Script(), Script(q2="no"), Script(q3="no")), strict=True):
        for index in range(2):
            (score,) = task.score([item(sample, index)], judge)
            rows.append(ScoreRow(sample.id, index, sample.group, score))
    figures = {m.name: m.compute(rows) for m in task.metrics()}
    assert list(figures)[:7] == ["overall", "official", *LEVEL_1]
    assert list(figures)[7:12] == [f"official_{name}" for name in LEVEL_1]
    assert len(figures) == 12 + 2 * len(LEVEL_2) and "relation_non_spatial" in figures
    assert figures["overall"].value == pytest.approx(100 * (1 + 1 / 3 + 2 / 3) / 3)
    assert figures["overall"].clusters == 3 and figures["overall"].n == 6
    assert figures["overall"].unit == "percent"
    # The first row of the file, question 1 of the first prompt, is lost: its dependents fail.
    assert figures["official"].value == pytest.approx(100 * (1 / 3 + 2 / 3) / 2)
    assert figures["official"].unscored == 2
    assert figures["attribute"].value == pytest.approx(200 / 3)
    assert figures["relation"].value == pytest.approx(200 / 3)
    assert figures["entity"].value == 100.0
    assert figures["attribute_color"].value == figures["attribute"].value
    # Official: the last picture of each prompt that did not fail.
    assert figures["official_attribute"].value == 50.0 and figures["official_attribute"].n == 2
    assert figures["global"].value is None and figures["global"].note == "nothing was scored"


class Broken(Script):
    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[Any]:
        return [
            ValueError("'maybe' is neither yes nor no") if q.split()[1] == "2" else "yes"
            for q in questions
        ]


def test_a_picture_with_an_answer_that_cannot_be_read_is_unscored_and_says_so(task: Dpg) -> None:
    (score,) = task.score([item(task.samples()[0])], Broken())
    assert score.value is None
    assert score.unscored_reason == "question 2: 'maybe' is neither yes nor no"
    assert score.details["answers"] == {"1": "yes", "3": "yes"}
    assert score.details["failed"] == "judge"  # counts against --max-errors


def test_with_more_than_a_twentieth_of_the_pictures_unscored_there_is_no_overall(task: Dpg) -> None:
    rows = [
        ScoreRow(s.id, 0, s.group, task.score([item(s)], Broken() if n < 2 else Script())[0])
        for n, s in enumerate(task.samples()[1:23])
    ]
    overall = task.metrics()[0]
    almost = overall.compute(rows[1:])
    assert almost.value == 100.0 and almost.unscored == 1 and almost.n == 20
    refused = overall.compute(rows)
    assert refused.value is None and refused.ci95 is None and overall.terms(rows) is None
    assert refused.note == "not given: 2 of 22 pictures have no score, at most 5% may"


def test_a_run_with_fakes_is_scored_and_reports_percentages(task: Dpg, tmp_path: Path) -> None:
    run = evals.evaluate(
        task, DummyModel(), judge=DummyJudge(), output=tmp_path / "run", limit=12, num_images=2,
        report=False, quiet=True, tracking__enabled=False,
    )  # fmt: skip
    overall = run.results["metrics"]["overall"]
    assert run.problem is None and overall["n"] == 24 and overall["unit"] == "percent"
    assert 20 < overall["value"] < 95 and overall["ci95"][0] < overall["value"]
