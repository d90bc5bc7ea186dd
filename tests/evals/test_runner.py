from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import evals
from evals import store
from evals.api import Identity
from evals.errors import (
    ConfigError,
    ConfigMismatchError,
    LockedError,
    ModelError,
    StoreError,
    UsageError,
)
from evals.io import files, jsonl
from evals.io.jsonl import dumps
from evals.judges.dummy import DummyJudge
from evals.judges.dummy import _Arguments as JudgeArguments
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments
from evals.results import comparable, load
from evals.runner import merge
from evals.store import RunStore


@pytest.fixture
def run(tmp_path: Path, fruit) -> Callable[..., evals.Run]:
    def call(task=fruit, model="dummy", output=tmp_path / "run", **settings) -> evals.Run:
        settings.setdefault("report", False)
        settings.setdefault("tracking__enabled", False)
        return evals.evaluate(task, model, output=output, quiet=True, **settings)

    return call


class Forbidden(DummyModel):
    """Fails the test when it is built."""

    def load(self) -> None:
        raise AssertionError("a finished run must not build the model")


class ForbiddenJudge(DummyJudge):
    def load(self) -> None:
        raise AssertionError("a finished run must not build the judge")


class Dies(BaseException):
    """Ends the process's work at once, as a signal would; nothing catches it."""


class MortalModel(DummyModel):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def generate(self, requests: Sequence) -> Sequence:
        if self.calls == 0:
            raise Dies
        self.calls -= 1
        return super().generate(requests)


class MortalJudge(DummyJudge):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def detect(self, images: Sequence, color_classes: Sequence) -> Sequence:
        if self.calls == 0:
            raise Dies
        self.calls -= 1
        return super().detect(images, color_classes)


def test_what_is_no_task_model_or_judge_is_said_in_one_line(run) -> None:
    for arguments, expected in (
        ({"task": "geneval,mme"}, "task 'geneval,mme': evaluate takes one task; call it once for each"),
        ({"task": 3}, "task 3: give a name, or an object like evals.api.Task"),
        ({"model": 3}, "model 3: give a name, or an object like evals.api.Model"),
        ({"model": None}, "model None: give a name"),
        ({"judge": ["dummy"]}, r"judge \['dummy'\]: give a name, or an object like evals.api.Judge"),
    ):
        with pytest.raises(ConfigError, match=f"^{expected}"):
            run(**arguments)


def test_names_of_the_package_are_completed_and_a_run_is_short_to_show(run) -> None:
    assert {"Run", "evaluate"} <= set(dir(evals))
    made = run()
    assert repr(made) == f"<Run {made.root}: ok>"


def test_a_run_leaves_everything_a_reader_needs(run, fruit) -> None:
    made = run()
    assert made.problem is None and made.pending == 0
    assert made.results["counts"] == {
        "samples": 24,
        "outputs": 96,
        "failed": 0,
        "scored": 96,
        "unscored": 0,
    }
    overall = made.results["metrics"]["overall"]
    low, high = overall["ci95"]
    assert low < overall["value"] < high and overall["n"] == 96 and overall["clusters"] == 24
    means = [made.results["groups"][g]["mean"] for g in fruit.groups]
    assert overall["value"] == pytest.approx(sum(means) / 3)
    assert made.results["is_test_double"] is True and made.results["partial"] is False
    manifest = made.manifest
    assert manifest["status"] == "finished"
    assert manifest["model"]["weights_sha256"] and manifest["judge"]["accuracy"] == {
        "scripted": 0.7
    }
    assert manifest["task"]["prompts_sha256"] == fruit.digest()
    rows = list(load(made.root).outputs())
    assert [(r["sample_id"], r["image_index"]) for r in rows[:5]] == [
        ("fruit-000", 0), ("fruit-000", 1), ("fruit-000", 2), ("fruit-000", 3), ("fruit-001", 0),
    ]  # fmt: skip
    assert rows[4]["path"] == "images/00001/samples/00000.png"
    record = json.loads((made.root / "images/00001/metadata.jsonl").read_text())
    assert record == fruit.samples()[1].metadata
    frame = made.to_pandas()
    assert len(frame) == 96 and {"value", "path", "reason"} <= set(frame.columns)


def test_scores_hold_no_times_and_no_run_names(run) -> None:
    row = next(load(run().root).scores())
    assert set(row) == {"sample_id", "image_index", "group", "value", "reason", "answer", "details"}


def test_a_finished_run_is_only_read(run) -> None:
    first = run()
    before = {
        p: p.stat().st_mtime_ns
        for p in first.root.rglob("*")
        if p.is_file() and "lock" not in p.name
    }
    again = run(model=Forbidden(), judge=ForbiddenJudge())
    assert again.results == first.results
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("calls", [0, 1, 5, 11])
def test_a_run_that_dies_while_generating_ends_equal_file_for_file(
    run, tmp_path: Path, calls: int
) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    with pytest.raises(Dies):
        run(model=MortalModel(calls))
    assert comparable(run().root) == whole


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_a_run_that_dies_while_judging_keeps_its_scores(run, tmp_path: Path, calls: int) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    with pytest.raises(Dies):
        run(judge=MortalJudge(calls))
    assert sum(1 for _ in open(tmp_path / "run/scores.jsonl")) == calls * 16
    again = run(model=Forbidden(), judge=MortalJudge(6 - calls))
    assert comparable(again.root) == whole


@pytest.mark.parametrize("lines", [1, 8, 12, 50])
@pytest.mark.parametrize("name", ["outputs.jsonl", "scores.jsonl"])
def test_torn_lines_are_dropped_and_their_batch_made_again(
    run, tmp_path: Path, name: str, lines: int
) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    path = tmp_path / "run" / name
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(data[:lines]) + data[lines][:20])
    assert comparable(run().root) == whole


def test_a_missing_or_shortened_picture_is_made_again_with_its_batch(run, tmp_path: Path) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    (tmp_path / "run/images/00003/samples/00002.png").unlink()
    picture = tmp_path / "run/images/00010/samples/00000.png"
    picture.write_bytes(picture.read_bytes()[:-10])
    assert comparable(run().root) == whole


def test_a_changed_picture_is_refused_by_its_checksum(run, tmp_path: Path) -> None:
    run()
    root = tmp_path / "run"
    (root / "scores.jsonl").unlink()
    picture = root / "images/00003/samples/00002.png"
    data = bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 1
    picture.write_bytes(data)
    with pytest.raises(
        StoreError, match="00003/samples/00002.png differs from its recorded checksum: delete it"
    ):
        run()
    picture.unlink()
    assert run().problem is None


def test_resume_names_the_keys_that_differ(run) -> None:
    run()
    with pytest.raises(ConfigMismatchError) as caught:
        run(seed=7, num_images=2)
    message = str(caught.value)
    assert (
        "seed: recorded 42, wanted 7" in message and "num_images: recorded 4, wanted 2" in message
    )
    assert "--fresh" in message and "--output" in message


def test_fresh_starts_over_and_leaves_other_files_alone(run, tmp_path: Path) -> None:
    run()
    (tmp_path / "run/notes.txt").write_text("mine")
    made = run(seed=7, fresh=True, num_images=1)
    assert made.results["counts"]["outputs"] == 24
    assert not list((tmp_path / "run").glob("images/*/samples/00001.png"))
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_folder_is_refused_even_with_fresh(run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="not empty and is not a run folder .*'thesis.tex'"):
            run(fresh=fresh)


def test_an_output_folder_that_cannot_be_made_is_one_clear_line(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written .*--output"):
        run(output=tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_clear_line(run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be written .*--output"):
        run(output=tmp_path / "locked" / "run")


@pytest.mark.parametrize(
    ("kind", "after"),
    [("LineWriter.append", n) for n in (0, 3, 14)]
    + [("_replace", n) for n in (0, 3, 14)]
    + [("write_atomically", n) for n in (0, 3, 6)],
)
def test_a_full_disk_says_so_and_the_run_goes_on_afterwards(
    run, tmp_path: Path, kind: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are torn in the middle, pictures and results stop before they are in place."""
    whole = comparable(run(output=tmp_path / "whole").root)
    left = after

    def full(*arguments) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            return real(*arguments)
        if kind == "LineWriter.append":
            writer, rows = arguments
            writer._file.write(b"".join(dumps(r).encode() + b"\n" for r in rows)[:300])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_in_writing(path: Path, data: bytes, *durable: bool) -> None:
        with store.writing(path):
            full(path, data)

    home, name = {
        "LineWriter.append": (jsonl.LineWriter, "append"),
        "_replace": (store, kind),
        "write_atomically": (files, kind),
    }[kind]
    real = getattr(home, name)
    with monkeypatch.context() as patch:
        patch.setattr(home, name, full_in_writing if kind == "write_atomically" else full)
        with pytest.raises(
            StoreError, match="no space left on the device .*run the same command again"
        ):
            run()
    assert comparable(run().root) == whole


def test_a_second_process_on_the_same_run_is_refused(run, tmp_path: Path) -> None:
    run()
    holder = RunStore(tmp_path / "run")
    holder.lock()
    with pytest.raises(
        LockedError, match=f"another process .process {os.getpid()}. works on this run"
    ):
        run()
    holder.close()
    assert run().problem is None


def test_limit_marks_the_run_partial_and_keeps_official_folder_names(run, fruit) -> None:
    made = run(limit=6)
    assert made.results["partial"] is True
    assert made.manifest["plan"]["samples"] == 6 and made.manifest["plan"]["official_samples"] == 24
    assert any("6 of 24 samples" in d for d in made.results["deviations"])
    names = sorted(p.name for p in (made.root / "images").iterdir())
    rows = list(load(made.root).outputs())
    numbers = {s.id: s.number for s in fruit.samples()}
    assert names == sorted({f"{numbers[r['sample_id']]:05d}" for r in rows}) and len(names) == 6


def test_pictures_under_limit_are_those_of_the_whole_run(run, tmp_path: Path) -> None:
    whole, part = (
        comparable(run(output=tmp_path / "a").root),
        comparable(run(limit=5, batch_size=3).root),
    )
    pictures = [n for n in part if n.startswith("images/")]
    assert len(pictures) == 5 * 5
    assert all(part[n] == whole[n] for n in pictures)


def test_overall_is_not_given_when_a_group_is_missing(run) -> None:
    metrics = run(limit=2).results["metrics"]
    assert metrics["overall"]["value"] is None and "colors" in metrics["overall"]["note"]
    assert metrics["one"]["value"] is not None


def test_a_failed_sample_is_an_error_and_never_a_zero(run) -> None:
    made = run(model=DummyModel(ModelArguments(fail_every=10)), max_errors=1.0)
    counts = made.results["counts"]
    assert 0 < counts["failed"] == counts["unscored"] == 96 - counts["scored"]
    rows = {(r["sample_id"], r["image_index"]): r for r in load(made.root).outputs()}
    scores = list(load(made.root).scores())
    for score in scores:
        row = rows[score["sample_id"], score["image_index"]]
        assert (row["status"] == "error") == (score["value"] is None)
        if row["status"] == "error":
            assert "told to fail" in row["error"] and "told to fail" in score["unscored"]
            assert "path" not in row
    values = [s["value"] for s in scores if s["value"] is not None and s["group"] == "one"]
    assert made.results["groups"]["one"]["mean"] == pytest.approx(sum(values) / len(values))
    assert made.problem is None


def test_too_many_failures_are_a_problem_after_everything_is_on_disk(run) -> None:
    made = run(model=DummyModel(ModelArguments(fail_every=10)))
    assert "of 96 outputs failed" in made.problem and "allowed are 1.0%" in made.problem
    assert "--retry-errors" in made.problem and (made.root / "results.json").exists()


def test_errors_stay_until_they_are_retried(run, tmp_path: Path) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    failed = run(model=DummyModel(ModelArguments(fail_every=10)), max_errors=1.0).results["counts"][
        "failed"
    ]
    assert run(model=Forbidden(), max_errors=1.0).results["counts"]["failed"] == failed > 0
    assert comparable(run(retry_errors=True, max_errors=1.0).root).items() >= {
        (k, v) for k, v in whole.items() if k != "manifest.json"
    }


def test_a_call_that_raises_is_split_until_the_culprits_stand_alone(run) -> None:
    made = run(model=DummyModel(ModelArguments(raise_every=10)), max_errors=1.0)
    alone = run(
        model=DummyModel(ModelArguments(fail_every=10)),
        max_errors=1.0,
        output=made.root.parent / "b",
    )
    assert made.results["counts"] == alone.results["counts"]
    assert 0 < made.results["counts"]["failed"] < 30


def test_a_judge_that_fails_on_a_picture_leaves_it_unscored(run) -> None:
    made = run(judge=DummyJudge(JudgeArguments(fail_every=10)), max_errors=1.0)
    unscored = [r for r in load(made.root).scores() if r["value"] is None]
    assert 0 < len(unscored) == made.results["counts"]["failed"] < 30
    assert all("told to fail" in r["unscored"] for r in unscored)


def test_a_model_that_always_fails_is_stopped_early(run, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="the first 16 outputs of model 'dummy' all failed .*--retry-errors"
    ):
        run(model=DummyModel(ModelArguments(fail_every=1)))
    assert sum(1 for _ in open(tmp_path / "run/outputs.jsonl")) == 16
    assert run(retry_errors=True).problem is None


def test_a_run_without_any_score_is_a_problem(run, fruit) -> None:
    made = run(limit=3, model=DummyModel(ModelArguments(fail_every=1)), num_images=1)
    assert made.problem.startswith("none of 3 outputs could be scored")


def test_a_model_that_returns_too_few_pictures_is_refused(run) -> None:
    class Lossy(DummyModel):
        def generate(self, requests: Sequence) -> Sequence:
            return super().generate(requests)[1:]

    with pytest.raises(ModelError, match="8 requests were answered with 7 results"):
        run(model=Lossy())


def test_batches_keep_their_neighbours_on_resume(run) -> None:
    seen: list[list[tuple[str, int]]] = []

    class Spy(MortalModel):
        def generate(self, requests: Sequence) -> Sequence:
            seen.append([(r.sample_id, r.image_index) for r in requests])
            return super().generate(requests)

    with pytest.raises(Dies):
        run(model=Spy(3), batch_size=7)
    dead, seen[:] = list(seen), []
    run(model=Spy(-1), batch_size=7)
    assert seen[0] == dead[3]
    flat = [key for batch in dead[:3] + seen for key in batch]
    assert flat == sorted(flat) and len(flat) == 96
    assert {len(b) for b in seen[:-1]} == {7}


def test_upstream_seeds_send_whole_samples_in_order(run) -> None:
    batches: list[list] = []

    class Spy(DummyModel):
        def generate(self, requests: Sequence) -> Sequence:
            batches.append(list(requests))
            return super().generate(requests)

    run(model=Spy(), seed_mode="upstream", seed=5)
    for batch in batches:
        assert [r.image_index for r in batch] == [0, 1, 2, 3] * (len(batch) // 4)
        assert {r.seed for r in batch} == {5} and all(r.series for r in batch)


def test_questions_are_answered_and_scored_without_a_judge(run, quiz) -> None:
    made = run(task=quiz)
    assert made.manifest["judge"] is None and made.results["judge"] is None
    counts = made.results["counts"]
    assert counts["outputs"] == 24 and 0 < counts["unscored"] < 24 and counts["failed"] == 0
    assert made.problem is None and not (made.root / "images").exists()
    rows = list(load(made.root).outputs())
    assert all(isinstance(r["text"], str) for r in rows)


def test_a_model_without_pictures_cannot_run_a_generation_task(run) -> None:
    class OnlyText:
        identity = Identity("texter", "1", "aa", "test")

        def answer(self, requests: Sequence) -> Sequence:
            return []

    with pytest.raises(
        UsageError, match="model 'texter' makes no pictures, which task 'fruit' needs"
    ):
        run(model=OnlyText(), judge="dummy")


def test_auto_takes_no_judge_of_an_unknown_domain(run) -> None:
    class Photos(DummyModel):
        def __init__(self) -> None:
            super().__init__()
            self.identity = Identity("photo-model", "1", "aa", "photos")

    with pytest.raises(
        UsageError, match="no judge for pictures of domain 'photos'.*--judge.*stickers"
    ):
        run(model=Photos())
    made = run(model=Photos(), judge="dummy")
    assert any("its verdicts mean little here" in w for w in made.results["warnings"])


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_shards_merge_to_the_same_run(run, tmp_path: Path, count: int) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    left = []
    for index in reversed(range(count)):
        made = run(shard=(index, count))
        left.append(made.pending)
    assert left[-1] == 0 and all(left[:-1])
    assert comparable(made.root) == whole


def test_another_number_of_shards_goes_on_with_what_is_there(run, tmp_path: Path) -> None:
    whole = comparable(run(output=tmp_path / "whole").root)
    run(shard=(1, 4))
    with pytest.raises(Dies):
        run(shard=(0, 2), model=MortalModel(1))
    run(shard=(2, 3))
    assert comparable(run().root) == whole


def test_merge_names_what_is_missing(run, fruit, tmp_path: Path) -> None:
    from evals import registry

    run(shard=(1, 2))
    registry.tasks.register("fruit", lambda: fruit)
    try:
        with pytest.raises(
            UsageError, match="48 of 96 outputs are missing, the first is fruit-000, picture 0"
        ):
            merge(tmp_path / "run", quiet=True)
    finally:
        registry.tasks._entries.pop("fruit")


def test_default_folder_carries_task_model_and_fingerprint(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(output=None)
    assert made.root == Path("runs") / f"fruit-dummy-{made.manifest['config_sha256'][:8]}"
    assert run(output=None, seed=43).root != made.root
