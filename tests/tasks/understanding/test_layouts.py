"""The same documents as a parquet file, a hub repository, an imagefolder, and plain bytes: one set of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evals
from evals.errors import InputError
from evals.plugins.lookup import find_task
from tasks.understanding.data import DATA_VARIABLE

# task -> its recorded file, and where the hub's repository keeps the split
TASKS = {
    "mme": ("mme", "data/test-00000-of-00001"),
    "mmmu": ("mmmu_val", "data/validation-00000-of-00001"),
    "vqav2": ("vqav2_val", "data/validation-00000-of-00068"),
    "textvqa": ("textvqa_val", "data/validation-00000-of-00003"),
    "realworldqa": ("realworldqa", "data/test-00000-of-00002"),
    "seedbench": ("seedbench", "data/test-00000-of-00057"),
    "mmbench": ("mmbench_en_dev_static", "en/dev-00000-of-00001"),
}


def is_picture(value: Any) -> bool:
    cell = value[0] if isinstance(value, list) and value else value
    return isinstance(cell, dict) and set(cell) == {"bytes", "path"}


def rows_of(golden: Path, task: str) -> list[dict[str, Any]]:
    return pq.read_table(golden / "understanding" / f"{TASKS[task][0]}.parquet").to_pylist()


def parquet(rows: list[dict[str, Any]], folder: Path, task: str) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    return folder / "x.parquet"


def hub_layout(rows: list[dict[str, Any]], folder: Path, task: str) -> Path:
    for name in (TASKS[task][1], "data/train-00000-of-00001", "cn/dev-00000-of-00001"):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows if name == TASKS[task][1] else rows[:1]), path)
    return folder


def imagefolder(rows: list[dict[str, Any]], folder: Path, task: str) -> Path:
    lines = []
    for number, row in enumerate(rows):
        line = {}
        for column, value in row.items():
            cells = value if isinstance(value, list) else [value]
            pictures = [name for name, one in row.items() if is_picture(one)]
            if column not in pictures and not (value is None and column.startswith("image_")):
                line[column] = value
                continue
            names = []
            for k, cell in enumerate(c for c in cells if c is not None):
                names.append(f"pictures/{number}-{column}-{k}.png")
                (folder / "pictures").mkdir(exist_ok=True)
                (folder / names[-1]).write_bytes(cell["bytes"])
            prefix = "" if column == "image" else f"{column}_"
            if isinstance(value, list):
                line[f"{prefix}file_names"] = names
            else:
                line[f"{prefix}file_name"] = names[0] if names else None
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def plain_bytes(rows: list[dict[str, Any]], folder: Path, task: str) -> Path:
    def plain(value: Any) -> Any:
        if not is_picture(value):
            return value
        return [one["bytes"] for one in value] if isinstance(value, list) else value["bytes"]

    stripped = [{column: plain(value) for column, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(stripped), folder / "plain.parquet")
    return folder / "plain.parquet"


@pytest.mark.parametrize("layout", [parquet, hub_layout, imagefolder, plain_bytes])
@pytest.mark.parametrize("task", TASKS)
def test_a_layout_changes_no_sample(golden: Path, tmp_path: Path, task: str, layout: Any) -> None:
    recorded = find_task(task, golden / "understanding" / f"{TASKS[task][0]}.parquet").samples()
    place = layout(rows_of(golden, task), tmp_path, task)
    found = find_task(task, place).samples()
    for one, wanted in zip(found, recorded, strict=True):
        assert (one.id, one.group, one.prompt) == (wanted.id, wanted.group, wanted.prompt)
        assert one.unit == wanted.unit
        pictures = [image.tobytes() for image in one.images]
        assert pictures == [image.tobytes() for image in wanted.images] and pictures
        assert {k: v for k, v in one.metadata.items() if v is not None} == {
            k: v for k, v in wanted.metadata.items() if v is not None
        }


def test_the_data_folder_may_hold_any_layout(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mme").mkdir()
    imagefolder(rows_of(golden, "mme"), tmp_path / "mme", "mme")
    (tmp_path / "seedbench").mkdir()
    hub_layout(rows_of(golden, "seedbench"), tmp_path / "seedbench", "seedbench")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert len(find_task("mme").samples()) == len(find_task("seedbench").samples()) == 20


def test_splits_of_an_imagefolder_have_folders_of_their_own(golden: Path, tmp_path: Path) -> None:
    for split, rows in (("test", rows_of(golden, "mme")), ("train", rows_of(golden, "mme")[:4])):
        (tmp_path / split).mkdir()
        imagefolder(rows, tmp_path / split, "mme")
    assert len(find_task("mme", tmp_path).samples()) == 20


def test_metadata_may_be_csv(golden: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "red").save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text('file_name,question,answer\na.png,"Which, A or B?",A\n')
    (sample,) = find_task("realworldqa", tmp_path).samples()
    assert sample.prompt == "Which, A or B?" and sample.images[0].size == (5, 4)


def test_what_is_wrong_with_an_imagefolder_is_said(tmp_path: Path) -> None:
    def samples(text: str) -> Any:
        (tmp_path / "metadata.jsonl").write_text(text)
        return find_task("realworldqa", tmp_path).samples()

    with pytest.raises(InputError, match=r"metadata.jsonl: no column file_name"):
        samples('{"question": "q", "answer": "A"}')
    with pytest.raises(InputError, match=r"metadata.jsonl:1"):
        samples('{"question": "q", ')
    with pytest.raises(InputError, match=r"metadata.jsonl, row 0: answer is missing"):
        samples('{"file_name": "a.png", "question": "q"}')
    for name, problem in (("../secret.png", "leads out"), ("/etc/passwd", "leads out"), ("no.png", "No such")):
        (sample,) = samples(json.dumps({"file_name": name, "question": "q", "answer": "A"}))
        with pytest.raises(ValueError, match=f"row 0: column 'image' is no picture: .*{problem}"):
            list(sample.images)


def test_the_digest_of_an_imagefolder_follows_its_pictures(golden: Path, tmp_path: Path) -> None:
    imagefolder(rows_of(golden, "mme"), tmp_path, "mme")
    first = find_task("mme", tmp_path).digest()
    assert find_task("mme", tmp_path).digest() == first
    picture = next((tmp_path / "pictures").iterdir())
    picture.write_bytes(picture.read_bytes() + b"x")
    assert find_task("mme", tmp_path).digest() != first


def test_where_documents_came_from_stands_in_the_manifest(golden: Path, tmp_path: Path) -> None:
    rows = rows_of(golden, "mme")
    snapshot = tmp_path / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for place, revision in ((parquet(rows, tmp_path, "mme"), None), (hub_layout(rows, snapshot, "mme"), "0123abcd")):
        run = evals.evaluate(
            find_task("mme", place), "dummy", limit=2, output=tmp_path / f"run-{revision}", quiet=True,
            tracking__enabled=False,
        )  # fmt: skip
        found = run.data.manifest["task"]["data"]
        assert found["revision"] == revision and len(found["files"]) == 1
        assert found["repository"] == ("lmms-lab-encoder/MME" if revision else None)
        page = (tmp_path / f"run-{revision}" / "report.html").read_text()
        assert ("lmms-lab-encoder/MME at 0123abcd" if revision else "files given by hand") in page
