"""Judging beside generation: the same files as judging afterwards, whatever happens to model, judge or process."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from evals.errors import JudgeError, UsageError
from evals.judges.dummy import DummyJudge
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments
from evals.phases import beside
from evals.results import comparable, load

SLOW = {"model": {"size": 16, "seconds": 0.004}, "judge": {"seconds": 0.004}}


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sessions(root: Path) -> list[dict]:
    return json.loads((root / "manifest.json").read_text())["sessions"]


def test_the_files_are_those_of_judging_afterwards(evaluate, tmp_path: Path, whole: Path) -> None:
    made = evaluate(tmp_path / "run", judge_when="beside")
    assert made.problem is None and comparable(made.root) == comparable(whole)
    assert (made.root / "scores.jsonl").read_bytes() == (whole / "scores.jsonl").read_bytes()
    (session,) = sessions(made.root)
    assert session["scored"] == session["scored_beside"] == 36
    assert "scored_beside" not in sessions(whole)[0]
    assert threading.active_count() < 5 and not list(made.root.glob(".working-*"))


def test_pictures_are_judged_while_others_are_drawn(evaluate, tmp_path: Path, monkeypatch) -> None:
    events: list[str] = []
    draw, look = DummyModel.generate, DummyJudge.detect
    monkeypatch.setattr(DummyModel, "generate", lambda self, r: events.append("draw") or draw(self, r))
    monkeypatch.setattr(DummyJudge, "detect", lambda self, i, c: events.append("judge") or look(self, i, c))
    evaluate(tmp_path / "run", judge_when="beside", **SLOW)
    assert "draw" in events[events.index("judge") :]
    events.clear()
    evaluate(tmp_path / "after", judge_when="after", **SLOW)
    assert "draw" not in events[events.index("judge") :]


def test_where_both_wait_for_others_it_takes_the_longer_of_the_two_times(evaluate, tmp_path: Path) -> None:
    """36 pictures, 20 ms each on either side: 1.44 s one after the other."""
    slow = {"model": {"size": 16, "seconds": 0.02}, "judge": {"seconds": 0.02}}
    evaluate(tmp_path / "run", judge_when="beside", **slow)
    (session,) = sessions(tmp_path / "run")
    assert session["score_s"] >= 0.7  # what the judge worked
    began = time.monotonic()
    evaluate(tmp_path / "again", judge_when="beside", **slow)
    is_beside = time.monotonic() - began
    began = time.monotonic()
    evaluate(tmp_path / "after", judge_when="after", **slow)
    assert is_beside < time.monotonic() - began


def test_killed_at_random_moments_it_resumes_to_the_same_files(evaluate, in_child, tmp_path: Path, whole: Path) -> None:
    moments, expected = random.Random(3), comparable(whole)
    kills = 0
    for number in range(6):
        root = tmp_path / f"run-{number}"
        for _ in range(2):
            pid = in_child(lambda root=root: evaluate(root, judge_when="beside", **SLOW))
            time.sleep(moments.uniform(0.0, 0.2))
            os.kill(pid, signal.SIGKILL)
            kills += wait(pid) == -signal.SIGKILL
        # The two ways resume each other's runs.
        when = ("beside", "after")[number % 2]
        assert evaluate(root, judge_when=when).problem is None
        assert comparable(root) == expected
    assert kills >= 4  # a quick machine finishes some runs first


def test_a_judge_that_fails_as_a_whole_costs_no_picture(evaluate, tmp_path, whole, monkeypatch, caplog) -> None:
    look, calls = DummyJudge.detect, []

    def detect(self, images, classes):
        calls.append(len(images))
        if len(calls) > 2:
            raise JudgeError("the judge's endpoint is gone")
        return look(self, images, classes)

    monkeypatch.setattr(DummyJudge, "detect", detect)
    root = tmp_path / "run"
    with pytest.raises(JudgeError, match="endpoint is gone"):
        evaluate(root, judge_when="beside")
    assert "judging beside generation has ended (JudgeError: the judge's endpoint is gone)" in caplog.text
    assert len(list(load(root).outputs())) == 36 and len(list(load(root).scores())) == 14
    monkeypatch.setattr(DummyJudge, "detect", look)
    assert evaluate(root, judge_when="beside").problem is None
    assert comparable(root) == comparable(whole)


def test_a_picture_that_kills_the_judges_process_is_found(evaluate, in_child, tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "run"
    poison = {"judge": {"exit_every": 20}, "max_errors": 1.0, "judge_when": "beside"}
    codes = [wait(in_child(lambda: evaluate(root, **poison))) for _ in range(4)]
    assert codes[0] != 0 and codes[-1] == 0
    unscored = [row for row in load(root).scores() if row["value"] is None]
    assert unscored and all("ended with exit code 3" in row["unscored"] for row in unscored)
    assert evaluate(root, retry_errors=True, judge_when="beside").problem is None
    assert comparable(root) == comparable(whole)


def test_ctrl_c_ends_both_and_loses_nothing(evaluate, tmp_path: Path, whole: Path) -> None:
    root, made = tmp_path / "run", DummyModel(ModelArguments(size=16))
    draw, calls = made.generate, []

    def generate(requests):
        calls.append(len(requests))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw(requests)

    made.generate = generate  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        evaluate(root, made=made, judge_when="beside", judge={"seconds": 0.01})
    assert not [t for t in threading.enumerate() if t.name == "judge"]
    assert len(list(load(root).outputs())) == 20
    assert evaluate(root, judge_when="beside").problem is None
    assert comparable(root) == comparable(whole)


def test_failed_outputs_are_made_and_judged_again(evaluate, tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "run"
    evaluate(root, model={"size": 16, "fail_every": 5}, max_errors=1.0, judge_when="beside")
    assert any(row["status"] == "error" for row in load(root).outputs())
    assert evaluate(root, retry_errors=True, judge_when="beside").problem is None
    assert comparable(root) == comparable(whole)


def test_auto_is_beside_unless_both_would_share_the_cpu(monkeypatch) -> None:
    local, remote = SimpleNamespace(device="cpu"), SimpleNamespace(device="endpoint api.example.org")
    assert beside.pays(remote, local, "cpu") and beside.pays(local, remote, "cpu")
    assert not beside.pays(local, object(), "cpu")
    monkeypatch.setitem(beside.sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    assert beside.pays(local, local, "auto") and not beside.pays(local, local, "cpu")


def test_another_word_is_refused(evaluate, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="judge_when 'before': give one of auto, beside, after"):
        evaluate(tmp_path / "run", judge_when="before")
