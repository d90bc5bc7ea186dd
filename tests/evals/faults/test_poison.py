"""Samples that raise, hang or end the process; too little memory. The rest of the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from evals.errors import ModelError, UsageError
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments
from evals.phases.calls import Caller, is_out_of_memory
from evals.results import comparable, load


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errors_of(root: Path) -> dict[tuple[str, int], str]:
    rows = load(root).outputs()
    return {(r["sample_id"], r["image_index"]): r["error"] for r in rows if r["status"] == "error"}


def devices_of(root: Path) -> list[str]:
    return [session.get("device") for session in load(root).manifest["sessions"]]


def check_the_others_are_unharmed(root: Path, whole: Path, failed: set) -> None:
    assert failed
    good = {(r["sample_id"], r["image_index"]): r for r in load(whole).scores()}
    for row in load(root).scores():
        key = (row["sample_id"], row["image_index"])
        if key in failed:
            assert row["value"] is None and "failed" in row["unscored"]
        else:
            assert row == good[key]


@pytest.mark.parametrize(
    ("fault", "says"),
    [("exit_every", "ended with exit code 3"), ("crash_every", "was ended by SIGSEGV")],
)
def test_a_sample_that_kills_the_process_is_found_and_the_resume_ends(
    evaluate, in_child, tmp_path: Path, whole: Path, fault: str, says: str
) -> None:
    """Nobody asked for a time limit: the same command, started again and again, gets through."""
    root, model = tmp_path / "run", {"size": 16, fault: 9}
    codes = [wait(in_child(lambda: evaluate(root, model=model, max_errors=1.0))) for _ in range(3)]
    assert codes[0] != 0 and codes[1] != 0 and codes[2] == 0
    errors = errors_of(root)
    assert all(says in text and "WorkerDiedError" in text for text in errors.values())
    check_the_others_are_unharmed(root, whole, set(errors))
    assert evaluate(root, retry_errors=True).problem is None
    assert comparable(root) == comparable(whole)


def test_a_sample_that_hangs_is_ended_at_the_time_limit(
    evaluate, tmp_path: Path, whole: Path
) -> None:
    made = evaluate(tmp_path / "run", model={"size": 16, "hang_every": 20}, sample_timeout_s=0.4)
    errors = errors_of(made.root)
    assert all(
        text == "HangError: no answer within 0.4 s, its process was ended"
        for text in errors.values()
    )
    check_the_others_are_unharmed(made.root, whole, set(errors))
    assert "outputs failed" in made.problem and "--retry-errors" in made.problem
    assert evaluate(made.root, retry_errors=True).problem is None
    assert comparable(made.root) == comparable(whole)


@pytest.mark.parametrize(("fault", "limit_s"), [("exit_every", 60), ("hang_every", 0.4)])
def test_a_picture_that_kills_or_hangs_the_judge_has_no_score(
    evaluate, tmp_path: Path, whole: Path, fault: str, limit_s: float
) -> None:
    made = evaluate(tmp_path / "run", judge={fault: 20}, sample_timeout_s=limit_s, max_errors=1.0)
    unscored = {
        (r["sample_id"], r["image_index"]) for r in load(made.root).scores() if r["value"] is None
    }
    check_the_others_are_unharmed(made.root, whole, unscored)
    assert made.results["counts"]["failed"] == len(unscored) and made.problem is None
    assert evaluate(made.root, retry_errors=True).problem is None
    assert comparable(made.root) == comparable(whole)


def test_a_judge_that_kills_the_process_is_isolated_on_the_third_start(
    evaluate, in_child, tmp_path: Path
) -> None:
    root, judge = tmp_path / "run", {"exit_every": 5}
    codes = [wait(in_child(lambda: evaluate(root, judge=judge, max_errors=1.0))) for _ in range(3)]
    assert codes == [3, 3, 0]
    assert load(root).results["counts"]["unscored"] > 0


def test_isolated_or_not_the_results_are_the_same(evaluate, tmp_path: Path, whole: Path) -> None:
    apart = evaluate(tmp_path / "run", sample_timeout_s=60)
    assert comparable(apart.root) == comparable(whole)
    # Once the device that the child's network was on got lost on the way.
    assert devices_of(apart.root) == devices_of(whole)
    assert None not in devices_of(apart.root)


def test_a_run_that_others_kill_is_isolated_too_and_stays_equal(
    evaluate, in_child, tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, slow = tmp_path / "run", {"size": 16, "seconds": 0.2}
    note = root / ".working-generate-0-of-1"
    for deaths in range(2):
        pid = in_child(lambda: evaluate(root, model=slow))
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text().split() == ["0", str(deaths)]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(pid, 9)
        wait(pid)
    assert comparable(evaluate(root).root) == comparable(whole)
    assert "2 processes ended in the batch at output 0" in caplog.text


def test_a_model_that_cannot_be_loaded_in_a_child_says_so(evaluate, tmp_path: Path) -> None:
    class Broken(DummyModel):
        def load(self) -> None:
            raise ModelError("weights are cut short")

    with pytest.raises(ModelError, match="weights are cut short"):
        evaluate(tmp_path / "run", made=Broken(), sample_timeout_s=1)


def test_a_time_limit_of_nothing_is_refused(evaluate, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a number of seconds above 0"):
        evaluate(tmp_path / "run", sample_timeout_s=0)
    assert not (tmp_path / "run").exists()


# --- memory --------------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_the_run_says_so(
    evaluate, tmp_path: Path, whole: Path
) -> None:
    sizes: list[int] = []

    class Spy(DummyModel):
        def generate(self, requests: Sequence) -> Sequence:
            sizes.append(len(requests))
            return super().generate(requests)

    made = evaluate(tmp_path / "run", made=Spy(ModelArguments(size=16, oom_above=2)))
    (session,) = made.manifest["sessions"]
    assert session["num_generate_splits"] == 2
    assert session["generate_splits"][0] == {
        "first": "fruit-000",
        "size": 5,
        "error": "MemoryError: dummy model has no memory for 5 requests",
    }
    # 5 fails, 2 fits, 3 fails and becomes 1 + 2; from then on no call is larger than what fitted.
    assert sizes[:5] == [5, 2, 3, 1, 2] and max(sizes[5:]) <= 2
    assert comparable(made.root) == comparable(whole)


def test_all_words_for_too_little_memory_are_known() -> None:
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_one_sample_that_does_not_fit_is_that_samples_error() -> None:
    def call(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise MemoryError("3 is too large")
        return [10 * item for item in items]

    caller = Caller(call)
    first = caller([1, 2, 3, 4])
    assert [first[0], first[1], first[3]] == [10, 20, 40] and isinstance(first[2], MemoryError)
    assert caller([5, 6]) == [50, 60]


def test_the_memory_of_a_failed_call_is_free_before_the_next() -> None:
    """The traceback of the error holds the frame that holds the tensors."""
    import weakref

    class Tensor: ...

    alive: list[weakref.ref] = []

    def call(items: Sequence[int]) -> list[int]:
        assert not any(ref() for ref in alive), "the failed call still holds its memory"
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        if len(items) > 1:
            raise MemoryError
        return list(items)

    assert Caller(call)([1, 2, 3, 4]) == [1, 2, 3, 4]


def test_a_library_that_calls_sys_exit_fails_its_sample_only() -> None:
    def call(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise SystemExit("no licence")
        return list(items)

    one, two, three = Caller(call)([1, 2, 3])
    assert (one, three) == (1, 3) and "no licence" in str(two)
