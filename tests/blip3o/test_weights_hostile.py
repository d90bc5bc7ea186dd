"""Hostile weight files: whole tensors that fit, or one line; never a guess, never a traceback."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from blip3o.errors import Blip3oError, WeightsError
from blip3o.parity import replay_file
from blip3o.storage import load_strict, read_json, read_tensors

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "I8", "BOOL", "F8_E4M3", "F4", "U16", "C64", "F99", 1]
NUMBERS = st.integers(-2, 20) | st.sampled_from([2**40, 2**63, 2**64, -(2**63), 1.5, "8", None, True])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(DTYPES),
        "shape": st.lists(NUMBERS, max_size=3) | NUMBERS,
        "data_offsets": st.lists(NUMBERS, max_size=3) | NUMBERS,
    },
)


def weights(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)
    return path


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), ENTRIES | st.just(ENTRY) | NUMBERS)
    | st.binary(max_size=30),
    st.integers(0, 40),
    st.none() | st.sampled_from([0, 1, 7, 10**8, 2**62, 2**64 - 1]),
)
@example(b"[" * 100_000, 0, None)
@example(b'{"a":' * 50_000, 0, None)
def test_any_header_gives_tensors_or_one_line(
    tmp_path: Path, header: Any, body: int, length: int | None
) -> None:
    path = weights(tmp_path / "model.safetensors", header, b"\0" * body, length)
    try:
        tensors = read_tensors(path)
    except WeightsError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert sum(t.numel() * t.element_size() for t in tensors.values()) <= body


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """The safetensors library keeps the last of two entries with one name; the format forbids it."""
    entry = json.dumps(ENTRY)
    header = f'{{"a": {entry}, "a": {entry}}}'.encode()
    with pytest.raises(WeightsError, match="its header names a twice"):
        read_tensors(weights(tmp_path / "model.safetensors", header, b"\0" * 8))


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool", "float8_e4m3fn", "complex64"])
def test_numbers_of_another_kind_are_not_cast(dtype: str) -> None:
    """Quantised weights without their scales loaded as if they were the weights."""
    tensor = torch.ones(2).to(getattr(torch, dtype))
    with pytest.raises(WeightsError, match=f"weight holds {dtype}, which Linear cannot take for float32"):
        load_strict(torch.nn.Linear(2, 1, bias=False), {"weight": tensor[None]}, "file")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(WeightsError, match="holds values that are not finite"):
        load_strict(torch.nn.Linear(1, 1, bias=False), {"weight": torch.tensor([[value]])}, "file")


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,019eEN \n\ufeff', max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b"\xff\xfe{\0}\0")
def test_any_json_file_is_an_object_or_one_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(raw)
    try:
        assert isinstance(read_json(path), dict)
    except WeightsError as error:
        assert str(path) in str(error) and len(str(error)) < 400 + len(str(path))


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read .Is a directory."):
        read_json(tmp_path)
    with pytest.raises(WeightsError, match="is missing"):
        read_tensors(tmp_path)


@given(
    st.dictionaries(
        st.sampled_from(["kind", "config", "weights", "batch", "target"]),
        st.sampled_from(["dit", "eva", "collator", "train", "generate", "schedulers", "weights", "x", "",
                         "{}", "[]", "null", '{"hidden_size": -1}', "[" * 5000, "../../etc/passwd", "\0",
                         '{"hidden_size": 1e400}', "recording.safetensors"]),
    )
)  # fmt: skip
def test_recordings_with_any_metadata_are_reported_in_one_line(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    path = weights(
        tmp_path / "recording.safetensors",
        {"__metadata__": metadata, "out.x": ENTRY},
        b"\0" * 8,
    )
    try:
        report = replay_file(path)
    except Blip3oError as error:
        assert "\n" not in str(error)
    else:
        assert report.kind == "weights" or report.failures
        assert "\n" not in report.line()
