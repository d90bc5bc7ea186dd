"""Documents and pictures from parquet files, and runs on them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evals
from evals import discovery, registry
from evals.api import ModelOptions, Sample, Task
from evals.errors import InputError, MissingRequirementError, UsageError
from evals.models.dummy import DummyModel
from evals.models.dummy import create as create_dummy
from tasks.understanding.data import DATA_VARIABLE
from tasks.understanding.mmbench import MmBench
from tasks.understanding.mme import Mme
from tasks.understanding.table import Pictures

FILES = {
    "mme": "mme",
    "mmmu": "mmmu_val",
    "vqav2": "vqav2_val",
    "textvqa": "textvqa_val",
    "realworldqa": "realworldqa",
    "seedbench": "seedbench",
    "mmbench": "mmbench_en_dev_static",
}


def make(task: str, data: Path | None = None) -> Any:
    discovery.discover()
    return registry.tasks.get(task)(data)


def picture(color: str = "red") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "x.png"}


def mme_rows(count: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "question_id": f"count/{i // 2}.png", "image": picture(), "question": f"Number {i}?",
            "answer": "Yes" if i % 2 else "No", "category": "count", **changes,
        }
        for i in range(count)
    ]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


@pytest.mark.parametrize("task", FILES)
def test_samples_have_the_recorded_prompts_and_pictures(golden: Path, task: str) -> None:
    folder = golden / "understanding"
    found = make(task, folder / f"{FILES[task]}.parquet")
    assert isinstance(found, Task)
    samples = found.samples()
    lines = (folder / f"{FILES[task]}.jsonl").read_text().splitlines()
    assert len(samples) == len({s.id for s in samples}) == len(lines) == 20
    for number, (sample, line) in enumerate(zip(samples, lines, strict=True)):
        case = json.loads(line)
        assert sample.number == number and sample.prompt == case["prompt"]
        assert dict(sample.metadata) == case["doc"]
        images = list(sample.images)
        count = len(case["visuals"]) if "visuals" in case else case["visuals_n"]
        assert len(images) == len(sample.images) == count
        assert all(image.mode == "RGB" and image.size == (16, 16) for image in images)
        assert sample.group in found.groups or not found.groups


def test_several_pictures_come_in_the_order_of_their_columns(golden: Path) -> None:
    task = make("mmmu", golden / "understanding" / "mmmu_val.parquet")
    sample = task.samples()[5]  # names <image 2> before <image 1>
    table = pq.read_table(golden / "understanding" / "mmmu_val.parquet")
    stored = [table[f"image_{k}"][5].as_py()["bytes"] for k in (1, 2)]
    wanted = [Image.open(io.BytesIO(one)).convert("RGB").tobytes() for one in stored]
    assert [image.tobytes() for image in sample.images] == wanted
    assert sample.images[1].tobytes() == wanted[1]


@pytest.mark.parametrize("task", FILES)
def test_missing_data_is_named_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr("tasks.understanding.data._hub_cache", lambda hub_id: None)
    with pytest.raises(MissingRequirementError) as caught:
        make(task).samples()
    message = str(caught.value)
    assert make(task).source.hub_id in message and "\n" not in message
    assert f"`blip3o-eval data get --task {task} --output DATA`" in message
    assert f"give --data DATA/{task} or set BLIP3O_EVAL_DATA=DATA" in message
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(MissingRequirementError, match=f"--output {tmp_path}` gets it; or give"):
        make(task).samples()


def test_the_data_folder_holds_a_file_or_the_hub_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, golden: Path
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(golden / "understanding"))
    assert len(make("mme").samples()) == len(make("vqav2").samples()) == 20
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    rows = mme_rows(6)
    for part, name in ((rows[:2], "test-00000-of-00002"), (rows[2:], "test-00001-of-00002")):
        write(tmp_path / "mme" / "data" / f"{name}.parquet", part)
    write(tmp_path / "mme" / "data" / "train-00000-of-00001.parquet", mme_rows(2, question="no"))
    assert [s.prompt[:9] for s in make("mme").samples()] == [f"Number {i}?" for i in range(6)]
    bench = {"index": 1, "image": picture(), "question": "q", "answer": "A", "category": "c"}
    for subset in ("cn", "en"):
        path = tmp_path / "mmbench" / subset / "dev-00000-of-00001.parquet"
        write(path, [{**bench, "question": subset}])
    assert [s.metadata["question"] for s in make("mmbench").samples()] == ["en"]


def test_the_hub_cache_is_used_when_nothing_else_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "data" / "test-00000-of-00001.parquet", mme_rows(2))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr("tasks.understanding.data._hub_cache", lambda hub_id: tmp_path)
    assert len(Mme().samples()) == 2


def test_rows_and_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    rows = mme_rows()
    rows[2]["answer"] = "Perhaps"
    path = write(tmp_path / "mme.parquet", rows)
    with pytest.raises(InputError, match=r"mme.parquet, row 2: answer must be yes or no"):
        Mme(path).samples()
    path = write(tmp_path / "b.parquet", [{"question": "x", "image": picture()}])
    with pytest.raises(InputError, match="b.parquet, row 0: answer is missing"):
        Mme(path).samples()
    (tmp_path / "c.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="c.parquet: cannot be read as parquet"):
        Mme(tmp_path / "c.parquet").samples()
    with pytest.raises(InputError, match="no-such-folder does not exist: give a parquet file"):
        Mme(tmp_path / "no-such-folder").samples()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no parquet file of the test split of lmms-lab"):
        Mme(tmp_path / "folder").samples()
    empty = pa.Table.from_pylist(mme_rows(1)).slice(0, 0)
    path = write(tmp_path / "e.parquet", [{**row, "image": None} for row in mme_rows()])
    with pytest.raises(InputError, match="e.parquet, row 0: there is no picture column 'image'"):
        Mme(path).samples()
    pq.write_table(empty, tmp_path / "d.parquet")
    with pytest.raises(InputError, match="d.parquet: the file holds no rows"):
        Mme(tmp_path / "d.parquet").samples()


def test_two_rows_with_one_id_are_refused(tmp_path: Path) -> None:
    row = {"index": 1, "image": picture(), "question": "q", "answer": "A", "category": "c"}
    path = write(tmp_path / "x.parquet", [row, row])
    with pytest.raises(InputError, match="row 1: id '1' is that of row 0"):
        MmBench(path).samples()


def test_a_damaged_picture_fails_alone(tmp_path: Path) -> None:
    rows = mme_rows(6)
    rows[1]["image"] = {"bytes": b"no picture", "path": "x.png"}
    rows[2]["image"] = None
    rows[3]["image"] = {"bytes": rows[0]["image"]["bytes"][:40], "path": "x.png"}
    samples = Mme(write(tmp_path / "mme.parquet", rows)).samples()
    assert len(list(samples[0].images)) == len(list(samples[5].images)) == 1
    for number, problem in ((1, "is no picture"), (2, "holds no picture"), (3, "is no picture")):
        with pytest.raises(ValueError, match=f"row {number}: column 'image' {problem}"):
            list(samples[number].images)


def test_pictures_beside_the_file_are_found(tmp_path: Path) -> None:
    Image.new("L", (3, 5)).save(tmp_path / "p.png")
    rows = mme_rows(2, image={"bytes": None, "path": "p.png"})
    (image,) = Mme(write(tmp_path / "mme.parquet", rows)).samples()[0].images
    assert image.mode == "RGB" and image.size == (3, 5)


def test_pictures_stand_upright(tmp_path: Path) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(buffer, "JPEG", exif=exif)
    rows = mme_rows(2, image={"bytes": buffer.getvalue(), "path": None})
    (image,) = Mme(write(tmp_path / "mme.parquet", rows)).samples()[0].images
    assert image.size == (4, 8)


def test_rows_of_several_row_groups_keep_their_pictures(tmp_path: Path) -> None:
    colors = ["red", "blue", "green", "white", "black"]
    rows = [{**row, "image": picture(c)} for row, c in zip(mme_rows(5), colors, strict=True)]
    samples = Mme(write(tmp_path / "mme.parquet", rows, row_group_size=2)).samples()
    order = [4, 0, 3, 1, 2]
    found = [samples[i].images[0].getpixel((0, 0)) for i in order]
    assert found == [Image.new("RGB", (1, 1), colors[i]).getpixel((0, 0)) for i in order]


def test_a_row_group_is_read_once_for_each_column(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of MMMU with two pictures once read both columns of the whole group anew, row after row."""
    samples = make("mmmu", golden / "understanding" / "mmmu_val.parquet").samples()
    read, real = [], pq.ParquetFile.read_row_group

    def counting(self: Any, group: int, columns: list[str]) -> Any:
        read.append((group, *columns))
        return real(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    assert sum(len(list(sample.images)) for sample in samples) > 20
    assert len(read) == len(set(read))


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    first = Mme(write(tmp_path / "a.parquet", mme_rows())).digest()
    assert Mme(write(tmp_path / "b.parquet", mme_rows())).digest() == first
    assert Mme(write(tmp_path / "c.parquet", mme_rows(6))).digest() != first


class Looking(DummyModel):
    """Decodes the pictures it is asked about, as a real model does."""

    def answer(self, requests: Any) -> Any:
        for request in requests:
            assert all(image.mode == "RGB" for image in request.images)
        return super().answer(requests)


@pytest.mark.parametrize("task", FILES)
def test_a_run_answers_scores_and_resumes(golden: Path, tmp_path: Path, task: str) -> None:
    settings: Any = {
        "output": tmp_path / "run", "report": False, "quiet": True, "tracking__enabled": False,
    }  # fmt: skip
    data = golden / "understanding" / f"{FILES[task]}.parquet"
    run = evals.evaluate(make(task, data), Looking(), **settings)
    assert run.problem is None
    counts, metrics = run.results["counts"], run.results["metrics"]
    assert counts["outputs"] == counts["scored"] == 20 and counts["failed"] == 0
    assert metrics["unparsed"]["n"] == 20
    again = evals.evaluate(make(task, data), Looking(), **settings)
    assert again.results == run.results


def test_failed_answers_have_no_score_and_a_damaged_picture_fails_its_question(
    tmp_path: Path,
) -> None:
    rows = mme_rows(40)
    rows[7]["image"] = {"bytes": b"no picture", "path": "x.png"}
    task = Mme(write(tmp_path / "mme.parquet", rows))
    run = evals.evaluate(
        task, Looking(), output=tmp_path / "run", report=False, quiet=True, max_errors=0.05,
        tracking__enabled=False,
    )  # fmt: skip
    assert run.problem is None and run.results["counts"]["failed"] == 1
    (failed,) = [row for row in run.data.scores() if row["value"] is None]
    assert failed["sample_id"] == "00007" and "is no picture" in failed["unscored"]
    assert run.results["metrics"]["count"]["n"] == 38
    assert run.results["metrics"]["count"]["unscored"] == 2


def test_samples_hold_no_pictures_until_they_are_looked_at(tmp_path: Path) -> None:
    sample: Sample = Mme(write(tmp_path / "mme.parquet", mme_rows())).samples()[0]
    assert isinstance(sample.images, Pictures)
    (tmp_path / "mme.parquet").unlink()
    with pytest.raises(OSError):
        list(sample.images)


def test_a_model_that_fails_is_no_answer(tmp_path: Path) -> None:
    task = Mme(write(tmp_path / "mme.parquet", mme_rows(40)))
    model = create_dummy("fail_every=5", ModelOptions())
    run = evals.evaluate(
        task, model, output=tmp_path / "run", report=False, quiet=True, max_errors=1.0,
        tracking__enabled=False,
    )  # fmt: skip
    failed = run.results["counts"]["failed"]
    assert 0 < failed < 40
    assert run.results["metrics"]["unparsed"]["n"] == 40 - failed


@pytest.mark.parametrize("place", ["", "mme", "mme.parquet"])
def test_data_is_a_file_its_folder_or_a_folder_of_several_tasks(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, "/no/such/folder")  # --data wins
    if place == "mme":
        write(tmp_path / "mme" / "data" / "test-00000.parquet", mme_rows())
    else:
        write(tmp_path / "mme.parquet", mme_rows())
    run = evals.evaluate(
        "mme", "dummy", data=str(tmp_path / place), output=tmp_path / "run", quiet=True,
        report=False, tracking__enabled=False,
    )  # fmt: skip
    assert run.results is not None and run.results["counts"]["outputs"] == 4


def test_a_task_that_brings_its_data_takes_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task 'geneval' brings its own data"):
        evals.evaluate("geneval", "dummy", data=str(tmp_path))


@pytest.mark.parametrize(("limit", "rows"), [(1, 2), (2, 2), (3, 4), (5, 6), (99, 12)])
def test_limit_keeps_both_questions_about_a_picture_together(
    tmp_path: Path, limit: int, rows: int
) -> None:
    """lmms-eval stops after everything was generated when a limit cuts a pair of MME."""
    run = evals.evaluate(
        Mme(write(tmp_path / "mme.parquet", mme_rows(12))), "dummy", limit=limit,
        output=tmp_path / "run", quiet=True, report=False, tracking__enabled=False,
    )  # fmt: skip
    pairs = [row["details"]["pair"] for row in run.data.scores()]
    assert len(pairs) == rows and {pairs.count(pair) for pair in pairs} == {2}
    assert run.results is not None and run.results["partial"] is (rows < 12)


def test_where_answers_end_reaches_the_model(tmp_path: Path) -> None:
    seen = []

    class Listener(DummyModel):
        def answer(self, requests: Any) -> Any:
            seen.extend((r.max_new_tokens, r.stop) for r in requests)
            return super().answer(requests)

    evals.evaluate(
        Mme(write(tmp_path / "mme.parquet", mme_rows())), Listener(), output=tmp_path / "run",
        quiet=True, report=False, tracking__enabled=False,
    )  # fmt: skip
    assert seen == [(16, ("\n\n",))] * 4
