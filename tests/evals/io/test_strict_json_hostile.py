"""Strict JSON and the lines of recorded inputs under hostile bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.io.strict_json import NotJsonError, parse
from evals.recorded import Field, read_lines

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(VALUES, st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_what_json_writes_is_read_back(value: Any, mark: bytes) -> None:
    assert parse(mark + json.dumps(value).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,.-+eEIN0129 \\un\n\r\ttrfalsy', max_size=60))
@example(b"[" * 200_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 100_000)
@example(b"-Infinity")
@example(b'{"a": NaN}')
@example("\ufeff{}".encode("utf-16"))
def test_other_bytes_are_refused_in_one_short_line(data: bytes | str) -> None:
    raw = data.encode() if isinstance(data, str) else data
    try:
        value = parse(raw)
    except NotJsonError as error:
        assert 0 < len(str(error)) < 200 and "\n" not in str(error)
    else:
        json.dumps(value)


def test_a_key_twice_is_refused() -> None:
    """A verdict hung on which of two keys a reader keeps: Python keeps the last without a word."""
    with pytest.raises(NotJsonError, match='key "score" stands twice in one object'):
        parse(b'{"detections": [{"score": 0.9, "score": 0.1}]}')
    assert parse(b'[{"score": 1}, {"score": 2}]') == [{"score": 1}, {"score": 2}]


def test_a_number_beyond_floats_is_never_finite() -> None:
    assert parse(b"1e400") == math.inf
    with pytest.raises(InputError, match="must be a finite number, got Infinity"):
        Field(parse(b"1e400"), "f:1", "score").number()


@given(st.integers(0, 6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_marks_blank_lines_and_windows_line_ends_change_nothing(
    tmp_path: Path, blanks: int, end: str, has_mark: bool
) -> None:
    path = tmp_path / "lines.jsonl"
    body = end.join(['{"id": "a"}', *[" "] * blanks, '{"id": "\\ud800"}', ""])
    path.write_bytes((b"\xef\xbb\xbf" if has_mark else b"") + body.encode())
    lines = read_lines(path)
    assert [line.value for line in lines] == [{"id": "a"}, {"id": "\ud800"}]
    assert lines[1].where == f"{path}:{blanks + 2}"


@pytest.mark.parametrize("depth", [100, 950, 985, 990, 993, 996])
def test_a_value_that_can_just_be_read_can_be_complained_about(tmp_path: Path, depth: int) -> None:
    """Reading took less of the stack than writing it into the message: RecursionError, a traceback."""
    path = tmp_path / "deep.jsonl"
    path.write_text('{"id": %s}\n' % ("[" * depth + "]" * depth))
    with pytest.raises(InputError) as caught:
        read_lines(path)[0]["id"].text()
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_long_value_does_not_fill_the_message() -> None:
    """A list of 100,000 numbers in place of two made an error line of 300 kB."""
    with pytest.raises(InputError) as caught:
        Field([1] * 100_000, "f:1", "box").numbers(4)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [b"\x00", {1, 2}, 3 + 4j, Path("a")])
def test_values_that_are_not_json_are_complained_about_too(value: Any) -> None:
    """Columns of a parquet file hold bytes and dates; the message could not be written."""
    with pytest.raises(InputError, match=r"f, row 3: question must be a string, got "):
        Field(value, "f, row 3", "question").text()


@pytest.mark.parametrize("path", ["/dev/zero", "no\0file", ".", "x" * 5000])
def test_paths_that_are_no_files_are_refused(path: str) -> None:
    """`/dev/zero` filled the memory, a zero byte in the path was a traceback."""
    with pytest.raises(InputError):
        read_lines(path)
