"""Rescoring: what is reused, what is refused, and that the parent is only read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import evals
from evals.errors import InputError, JudgeError, UsageError
from evals.judges.dummy import DummyJudge
from evals.judges.dummy import _Arguments as JudgeArguments
from evals.models.dummy import DummyModel
from evals.rescoring import rescore
from evals.results import load

QUIET = {"quiet": True, "report": False, "tracking__enabled": False}


@pytest.fixture
def make(tmp_path: Path, fruit) -> Callable[..., Path]:
    def call(task=fruit, model: object = "dummy", name="parent", **settings) -> Path:
        return evals.evaluate(task, model, output=tmp_path / name, **QUIET, **settings).root

    return call


def again(parent: Path, task, accuracy: float = 0.2, **options):
    judge = DummyJudge(JudgeArguments(accuracy=accuracy))
    options.setdefault("output", parent.parent / "again")
    settings = {"tracking": {"enabled": False}}
    return rescore(parent, judge, task=task, settings=settings, quiet=True, report=False, **options)


def snapshot(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_a_rescored_run_equals_a_run_with_that_judge_and_the_parent_stays(make, fruit) -> None:
    parent = make()
    before = snapshot(parent)
    found = again(parent, fruit)
    assert snapshot(parent) == before
    direct = make(judge=DummyJudge(JudgeArguments(accuracy=0.2)), name="direct")
    assert found.run.results["metrics"] == load(direct).results["metrics"]
    assert found.run.manifest["config_sha256"] == load(direct).manifest["config_sha256"]
    assert (found.reused, found.missing) == (96, 0)
    link = found.run.manifest["parent"]
    assert (link["run"], link["reused"], link["missing"]) == ("../parent", 96, 0)
    assert link["config_sha256"] == load(parent).manifest["config_sha256"]
    assert found.run.results["parent"] == link


def test_pictures_are_linked_not_drawn_and_not_doubled(make, fruit) -> None:
    parent = make()
    found = again(parent, fruit)
    ours, theirs = (r / "images/00000/samples/00000.png" for r in (found.run.root, parent))
    assert ours.stat().st_ino == theirs.stat().st_ino
    rows = list(load(found.run.root).outputs())
    assert [r["sha256"] for r in rows] == [r["sha256"] for r in load(parent).outputs()]
    assert [r["seed"] for r in rows] == [r["seed"] for r in load(parent).outputs()]
    assert "generate_s" not in found.run.manifest["sessions"][0]


def test_without_links_pictures_are_copied(make, fruit, monkeypatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    found = again(make(), fruit)
    assert found.run.results["counts"]["scored"] == 96


def test_the_same_judge_changes_nothing_and_says_so(make, fruit) -> None:
    parent = make()
    with pytest.raises(UsageError, match="was judged by the same judge, weights and rules"):
        again(parent, fruit, accuracy=0.7, output=None)
    second = again(parent, fruit, accuracy=0.7)  # a named copy is allowed
    assert second.run.results["metrics"] == load(parent).results["metrics"]


def test_by_default_the_new_folder_lies_beside_the_parent(make, fruit) -> None:
    parent = make()
    found = again(parent, fruit, output=None)
    assert found.run.root.parent == parent.parent
    digest = found.run.manifest["config_sha256"][:8]
    assert found.run.root.name == f"fruit-dummy-{digest}"


def test_a_rescoring_that_was_stopped_goes_on(make, fruit) -> None:
    class Stops(DummyJudge):
        calls = 0

        def detect(self, *args):
            Stops.calls += 1
            if Stops.calls == 3:
                raise JudgeError("the judge is gone")
            return super().detect(*args)

    parent = make()
    judge = Stops(JudgeArguments(accuracy=0.2))
    options = {"output": parent.parent / "again", "task": fruit, "quiet": True, "report": False}
    options["settings"] = {"tracking": {"enabled": False}}
    with pytest.raises(JudgeError):
        rescore(parent, judge, **options)
    scored = (parent.parent / "again" / "scores.jsonl").read_text().count("\n")
    assert scored == 32  # two batches of sixteen are kept
    run = rescore(parent, judge, **options).run
    assert run.manifest["sessions"][-1]["scored"] == 96 - 32
    assert run.results["counts"]["scored"] == 96


class Halfway(DummyModel):
    """Stops after some calls, as an interruption would."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def generate(self, requests):
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return super().generate(requests)


def test_an_unfinished_parent_is_scored_as_far_as_it_went_and_later_in_full(
    make, fruit, tmp_path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(model=Halfway(10))
    parent = tmp_path / "parent"
    found = again(parent, fruit)
    assert (found.reused, found.missing) == (80, 16)
    overall, *groups = found.run.results["metrics"].values()
    assert overall["value"] is None
    assert overall["note"].startswith(
        "not given: 16 of 96 outputs are missing or unreadable (fruit-"
    )
    assert groups[0]["value"] is not None
    assert found.run.problem is not None and "16 of 96 outputs failed" in found.run.problem
    assert "the parent run is unfinished: 16 of 96" in found.run.results["warnings"][-1]
    make()  # the parent goes on
    whole = again(parent, fruit)
    assert whole.missing == 0 and whole.run.problem is None
    assert whole.run.results["metrics"]["overall"]["value"] is not None
    assert whole.run.manifest["parent"]["missing"] == 0
    assert whole.run.manifest["sessions"][-1]["scored"] <= 32  # only the batches that gained


def test_recorded_errors_stay_errors(make, fruit) -> None:
    from evals.models.dummy import _Arguments

    parent = make(model=DummyModel(_Arguments(fail_every=5)), max_errors=1.0)
    failed = load(parent).results["counts"]["failed"]
    found = again(parent, fruit)
    assert failed > 0 and found.run.results["counts"]["failed"] == failed
    first = next(r for r in load(found.run.root).outputs() if r["status"] == "error")
    assert "dummy model was told to fail" in first["error"]


def test_a_picture_that_changed_is_named_and_not_judged(make, fruit) -> None:
    parent = make()
    path = parent / "images/00001/samples/00002.png"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    found = again(parent, fruit)
    row = next(r for r in load(found.run.root).outputs() if r["status"] == "error")
    assert "images/00001/samples/00002.png: differs from its recorded checksum" in row["error"]


def test_texts_are_scored_again_by_new_rules(make, quiz) -> None:
    parent = make(task=quiz)
    options = {"output": parent.parent / "again", "quiet": True, "report": False}
    options["settings"] = {"tracking": {"enabled": False}}
    with pytest.raises(UsageError, match="task 'quiz' has no judge: rescore it without --judge"):
        rescore(parent, "dummy", task=quiz, **options)
    quiz.version = "2"
    found = rescore(parent, task=quiz, **options)
    assert found.run.manifest["task"]["version"] == "2"
    assert found.run.manifest["parent"]["task_version"] == "1"
    assert found.run.results["metrics"] == load(parent).results["metrics"]


def test_other_prompts_are_refused(make, fruit) -> None:
    parent = make()
    fruit._samples = fruit._samples[:-1]
    with pytest.raises(UsageError, match="do not fit what is installed .task.prompts_sha256"):
        again(parent, fruit)


def test_what_cannot_be_rescored_is_refused(make, fruit, tmp_path) -> None:
    parent = make()
    with pytest.raises(UsageError, match="lie in one another"):
        again(parent, fruit, output=parent / "inside")
    with pytest.raises(UsageError, match="lie in one another"):
        again(parent, fruit, output=parent)
    with pytest.raises(InputError, match="is not a run folder"):
        again(tmp_path / "nothing", fruit)
    (parent / "outputs.jsonl").unlink()
    with pytest.raises(UsageError, match="has no outputs yet"):
        again(parent, fruit)


def test_a_rescored_run_can_be_rescored(make, fruit) -> None:
    first = again(make(), fruit)
    second = again(first.run.root, fruit, accuracy=0.5, output=first.run.root.parent / "third")
    assert second.run.manifest["parent"]["run"] == "../again"
    assert json.loads((second.run.root / "results.json").read_text())["counts"]["scored"] == 96
