"""Sources: what they list and read, and what they refuse."""

from __future__ import annotations

import gzip
import json
import tarfile

import pytest

from blip3o.data.records import CaptionRecord, RawRecord, Reading
from blip3o.data.sources import (
    JsonLinesSource,
    JsonSource,
    ParquetSource,
    TableSource,
    WebDatasetSource,
    expand,
    journeydb,
)
from blip3o.errors import DataError

READ = Reading().caption
GOOD, CUT = "a good picture", "a picture cut short"


def test_archives_are_read_in_order_and_from_any_record(shards):
    source = WebDatasetSource([shards(2, 5)])
    first, second = source.shards()
    records = list(source.read(second))
    assert [r.key for r in records] == [f"{n:05d}" for n in range(5, 10)]
    assert records[0].fields["txt"] == b"number 5"
    assert list(source.read(first, 3)) == list(source.read(first))[3:]
    assert list(source.read(first, 5)) == []


def test_a_compressed_archive_is_streamed_too(tmp_path, picture, write_tar):
    plain = write_tar(tmp_path / "a.tar", [("1.txt", b"one"), ("1.png", picture(1))])
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert list(WebDatasetSource([plain]).read(plain)) == list(
        WebDatasetSource([str(packed)]).read(str(packed))
    )


def test_thousands_of_archives_are_listed_without_being_opened():
    names = WebDatasetSource(["/nowhere/{00000..04999}.tar"]).shards()
    assert len(names) == 5000 and names[17] == "/nowhere/00017.tar"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../evil.txt", tarfile.REGTYPE, "leaves the archive"),
        ("/etc/evil.txt", tarfile.REGTYPE, "leaves the archive"),
        ("a.txt", tarfile.SYMTYPE, "a link or device"),
        ("a.txt", tarfile.CHRTYPE, "a link or device"),
    ],
)
def test_unsafe_members_are_refused_by_name(tmp_path, name, kind, message, write_tar):
    info = tarfile.TarInfo(name)
    info.type = kind
    path = write_tar(tmp_path / "bad.tar", [("0.txt", b"fine"), (info, b"")])
    with pytest.raises(DataError, match=message) as caught:
        list(WebDatasetSource([path]).read(path))
    assert name in str(caught.value) and "bad.tar" in str(caught.value)


def test_missing_empty_and_cut_archives_are_named(tmp_path, shards, write_tar):
    source = WebDatasetSource([shards(1, 20)])
    (shard,) = source.shards()
    content = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(content[: len(content) // 2 - 100])
    with pytest.raises(DataError, match=r"00000\.tar is damaged or cut short"):
        list(source.read(shard))
    empty = write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(DataError, match=r"empty\.tar holds no records"):
        list(WebDatasetSource([empty]).read(empty))
    with pytest.raises(DataError, match=r"gone\.tar does not exist"):
        list(WebDatasetSource(["gone.tar"]).read("gone.tar"))
    with pytest.raises(DataError, match="no file matches"):
        expand([str(tmp_path / "*.nothing")])


def test_files_of_one_record_must_stand_together(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", [("1.txt", b"a"), ("2.txt", b"b"), ("1.png", b"")])
    with pytest.raises(DataError, match="do not stand together"):
        list(WebDatasetSource([path]).read(path))


@pytest.mark.parametrize("shard_bytes", [1, 7, 40, 64, 1000])
def test_json_lines_give_every_line_once_whatever_the_shards(tmp_path, shard_bytes):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": n, "caption": "x" * (n * 7 % 23)} for n in range(40)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    source = JsonLinesSource([str(path)], shard_bytes=shard_bytes)
    read = [record for shard in source.shards() for record in source.read(shard)]
    assert [record.fields for record in read] == rows
    longest = max(source.shards(), key=lambda s: len(list(source.read(s))))
    assert list(source.read(longest, 1)) == list(source.read(longest))[1:]


def test_a_broken_line_is_a_bad_record_with_its_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 1}\nnot json\n[1]\n\xff\xfe\n{"id": 2}\n')
    source = JsonLinesSource([str(path)])
    records = list(source.read(source.shards()[0]))
    assert [r.key for r in records][0::4] == ["1", "2"] and len(records) == 5
    assert "at byte 10" in records[1].key
    with pytest.raises(DataError, match="at byte 10"):
        READ(records[1])


def test_a_json_list_and_journeydb(tmp_path, picture):
    (tmp_path / "imgs" / "000").mkdir(parents=True)
    (tmp_path / "imgs" / "000" / "a.png").write_bytes(picture(9))
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([{"id": "a", "image": "000/a.png", "caption": "nine"}]))
    source = JsonSource([str(listed)])
    record = Reading(root=tmp_path / "imgs").caption(next(source.read(source.shards()[0])))
    assert record.caption == "nine" and record.image.getpixel((0, 0)) == (9, 9, 9)

    train = tmp_path / "train"
    (train / "imgs").mkdir(parents=True)
    (train / "imgs" / "b.png").write_bytes(picture(3))
    (train / "train_anno.jsonl").write_text('{"img_path": "b.png", "prompt": "three"}\n')
    source = journeydb(tmp_path)
    record = Reading(root=train / "imgs").caption(next(source.read(source.shards()[0])))
    assert (record.key, record.caption) == ("b.png", "three")


def test_parquet_row_groups_are_shards(tmp_path, picture):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"id": str(n), "image": {"bytes": picture(n), "path": None}, "caption": f"number {n}"}
        for n in range(10)
    ]
    path = str(tmp_path / "a.parquet")
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    source = ParquetSource([path], batch_rows=3)
    assert source.shards() == [f"{path}#0", f"{path}#1", f"{path}#2"]
    records = [record for shard in source.shards() for record in source.read(shard)]
    assert [record.key for record in records] == [str(n) for n in range(10)]
    assert [r.key for r in source.read(f"{path}#1", 2)] == ["6", "7"]
    assert READ(records[7]).image.getpixel((0, 0)) == (7, 7, 7)


def test_a_table_is_cut_into_ranges(picture):
    rows = [{"caption": f"number {n}", "image": picture(n)} for n in range(10)]
    source = TableSource(rows, name="mine", shard_rows=4)
    assert source.shards() == ["0", "4", "8"]
    assert [READ(r).caption for r in source.read("4", 1)] == ["number 5", "number 6", "number 7"]
    with pytest.raises(DataError, match="data set 'mine' is empty"):
        TableSource([], name="mine")


def test_a_hugging_face_dataset_is_a_table(picture):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"caption": "one", "image": picture(1)}])
    record = READ(next(TableSource(table).read("0")))
    assert isinstance(record, CaptionRecord) and record.caption == "one"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"txt": b"x"}, "has no picture"),
        ({"png": GOOD}, "has no caption"),
        ({"png": GOOD, "txt": b"\xff\xfe"}, "'txt' is not UTF-8 text"),
        ({"png": GOOD, "txt": 3}, "'txt' must be text, got int"),
        ({"png": GOOD, "txt": b"  "}, "'txt' is empty"),
        ({"png": CUT, "txt": b"x"}, "'png' does not decode"),
        ({"png": b"nothing", "txt": b"x"}, "'png' does not decode"),
        ({"image": 5, "txt": b"x"}, "'image' must be a picture, got int"),
        ({"image": "../secret.png", "txt": b"x"}, "lies outside"),
    ],
)
def test_bad_fields_are_named(tmp_path, picture, fields, message):
    pictures = {GOOD: picture(1), CUT: picture(1)[:40]}
    fields = {name: pictures.get(value, value) for name, value in fields.items()}
    with pytest.raises(DataError, match=message) as caught:
        Reading(root=tmp_path).caption(RawRecord("r7", fields))
    assert "'r7'" in str(caught.value)


def test_a_huge_picture_is_refused_before_it_is_decoded(picture):
    with pytest.raises(DataError, match="8x8 px; at most 63 pixels"):
        Reading(max_pixels=63).caption(RawRecord("r", {"png": picture(1), "txt": b"x"}))


def test_conversations_in_both_forms(picture):
    llava = {
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "A dog"},
        ],
        "image": picture(4),
    }
    chat = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "<image>\nWhat?"},
            {"role": "assistant", "content": "A dog"},
        ],
        "image": [picture(4)],
    }
    one, two = (Reading().conversation(RawRecord("c", fields)) for fields in (llava, chat))
    assert one.turns == two.turns == (("<image>\nWhat?", "A dog"),)
    assert one.images[0].tobytes() == two.images[0].tobytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no list 'conversations'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "turn 0 must be text from human"),
        ({"messages": [{"role": "user", "content": "x"}]}, "last question has no answer"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "turn 0 must be text"),
        (
            {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": ""}]},
            "1 <image> in its turns but 0 pictures",
        ),
    ],
)
def test_bad_conversations_are_named(fields, message):
    with pytest.raises(DataError, match=message):
        Reading().conversation(RawRecord("c", fields))
