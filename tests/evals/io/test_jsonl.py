from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from evals.io.jsonl import LineWriter, dumps, read_rows, scan
from evals.phases.plan import cut


def position_of(row: Mapping) -> int | None:
    p = row.get("p")
    return p if isinstance(p, int) and 0 <= p < 12 else None


def write(path: Path, positions: list[int], tail: bytes = b"") -> Path:
    with LineWriter(path) as writer:
        writer.append({"p": p, "text": f"{p}é"} for p in positions)
    with open(path, "ab") as file:
        file.write(tail)
    return path


def scan12(*files: Path):
    return scan(list(files), 12, list(cut(12, 4)), position_of)


def test_a_torn_last_line_and_its_unfinished_batch_are_forgotten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [0, 1, 2, 3, 4, 5], b'{"p": 6, "te')
    found = scan12(path)
    assert found.num_done == 4 and not found.is_clean and found.damaged == []
    found.rewrite(path)
    assert [r["p"] for r in read_rows(path)] == [0, 1, 2, 3]
    assert scan12(path).is_clean


@pytest.mark.parametrize("cut_at", range(0, 120, 7))
def test_a_file_cut_at_any_byte_keeps_its_whole_batches(tmp_path: Path, cut_at: int) -> None:
    path = write(tmp_path / "a.jsonl", list(range(8)))
    data = path.read_bytes()
    path.write_bytes(data[:cut_at])
    whole_lines = data[:cut_at].count(b"\n")
    found = scan12(path)
    assert found.num_done == whole_lines // 4 * 4
    found.rewrite(path)
    assert path.read_bytes() == b"".join(data.splitlines(keepends=True)[: whole_lines // 4 * 4])


@pytest.mark.parametrize(
    "bad", [b"{broken}\n", b"[]\n", b'{"p": "x"}\n', b'{"p": 99}\n', b"\xff\xfe\n", b"\n"]
)
def test_a_damaged_line_in_the_middle_is_named_and_its_batch_made_again(
    tmp_path: Path, bad: bytes
) -> None:
    path = write(tmp_path / "a.jsonl", list(range(12)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], bad, *lines[6:]]))
    found = scan12(path)
    assert [found.has_batch(b) for b in cut(12, 4)] == [True, False, True]
    assert found.damaged == ["a.jsonl:6"]


def test_rows_of_several_files_come_out_once_and_in_order(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [8, 9, 10, 11, 0, 1, 2, 3])
    b = write(tmp_path / "b.jsonl", [4, 5, 6, 7, 0, 1, 2, 3])
    found = scan12(a, b)
    assert found.num_done == 12 and not found.is_clean
    with found.reader() as reader:
        assert [json.loads(reader.line(p))["p"] for p in (5, 6, 0, 11)] == [5, 6, 0, 11]
    found.rewrite(tmp_path / "merged.jsonl")
    assert [r["p"] for r in read_rows(tmp_path / "merged.jsonl")] == list(range(12))


def test_an_unusable_row_takes_its_batch_with_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", list(range(12)))
    found = scan([path], 12, list(cut(12, 4)), position_of, lambda row: row["p"] != 5)
    assert [found.has_batch(b) for b in cut(12, 4)] == [True, False, True]


def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps({"value": float("nan")})
