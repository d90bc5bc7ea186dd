"""Headers of weight files: what is there is found, what is wrong is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from blip3o.checkpoint_files import check_fit, file_headers, folder_headers, iter_tensors
from blip3o.errors import WeightsError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.zeros(0, 5)}


def write(path: Path, header: object, body: int = 8, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(body))


def test_headers_say_what_the_library_reads(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = folder_headers(tmp_path)
    assert {name: header.shape for name, header in found.items()} == {k: tuple(v.shape) for k, v in TENSORS.items()}
    assert found["b"].dtype == "F16" and found["b"].num_bytes == 8
    read = dict(iter_tensors(tmp_path, lambda name: name != "c"))
    assert read.keys() == {"a", "b"} and torch.equal(read["a"], TENSORS["a"])


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"", 0), (b"{}", 10**15), (b"not json", None), (b"[1]", None), (b"[" * 50000, None), (b"\xff\xfe{}", None),
        ({"x": 3}, None), ({"x": {**ENTRY, "dtype": "F4"}}, None), ({"x": {**ENTRY, "shape": [1.5]}}, None),
        ({"x": {**ENTRY, "shape": [True, 2]}}, None), ({"x": {**ENTRY, "shape": [-2]}}, None),
        ({"x": {**ENTRY, "shape": "2"}}, None), ({"x": {**ENTRY, "data_offsets": [8, 0]}}, None),
        ({"x": {**ENTRY, "data_offsets": [0]}}, None), ({"x": {**ENTRY, "shape": [2**62, 2**62]}}, None),
        ({"x": {**ENTRY, "data_offsets": [4, 12]}}, None), ({"x": ENTRY | {"dtype": ["F32"]}}, None),
    ],
    ids=str,
)  # fmt: skip
def test_damaged_headers_are_one_line(tmp_path: Path, header: object, length: int | None) -> None:
    path = tmp_path / "model.safetensors"
    write(path, header, length=length)
    with pytest.raises(WeightsError, match="model.safetensors is damaged or cut short") as caught:
        file_headers(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
        ({"a": 3}, "names shards that are no texts"),
        ({"a": "../secret.safetensors"}, "'../secret.safetensors', which is outside the folder"),
        ({"a": "one.safetensors", "b": "two.safetensors"}, "shard .*two.safetensors is missing"),
        ({"z": "one.safetensors"}, "one.safetensors lacks z"),
    ],
)
def test_damaged_indexes_are_one_line(tmp_path: Path, weight_map: object, message: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=message):
        folder_headers(tmp_path)


def test_folders_without_weights_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        folder_headers(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match="model-00001-of-00002.safetensors but no model.safetensors.index.json"):
        folder_headers(tmp_path)


def test_shapes_are_compared_by_name() -> None:
    check_fit({"a": (1,)}, {"a": (1,)}, "here")
    for found, wanted, message in (
        ({}, {"a": (1,), "b": (2,)}, "in here lack a and 1 more"),
        ({"a": (1,), "c": (1,)}, {"a": (1,)}, "have unknown c"),
        ({"a": (7168,)}, {"a": (4864,)}, r"a: \(7168,\) in the file, \(4864,\) by the configuration"),
    ):
        with pytest.raises(WeightsError, match=message):
            check_fit(found, wanted, "here")
