from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from evals import checks


def write_safetensors(path: Path, size: int = 16) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def test_a_whole_safetensors_file_is_fine_and_a_shortened_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path)
    assert checks.safetensors_problem(path) is None
    data = path.read_bytes()
    for length in (0, 4, 20, len(data) - 1):
        path.write_bytes(data[:length])
        assert str(path) in checks.safetensors_problem(path)
    path.write_bytes(data[:8] + b"\xff" * (len(data) - 8))
    assert "damaged header" in checks.safetensors_problem(path)


def test_a_changed_weight_file_differs_from_its_recorded_digest(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    write_safetensors(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "judge.json").write_text(json.dumps({"sha256": digest}))
    assert list(checks.recorded_digest_problems(tmp_path)) == []
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert list(checks.recorded_digest_problems(tmp_path)) == [
        f"{path} differs from its recorded sha256"
    ]


def test_a_half_made_tracking_database_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (finding,) = checks.tracking()
    assert finding.status == "ok" and "will be made" in finding.text
    (tmp_path / "runs").mkdir()
    with sqlite3.connect("runs/mlflow.db") as database:
        database.execute("CREATE TABLE _alembic_tmp_runs (x)")
    (finding,) = checks.tracking()
    assert finding.status == "warning" and "half made" in finding.text
    Path("runs/mlflow.db").write_bytes(b"not a database at all" * 100)
    (finding,) = checks.tracking()
    assert finding.status == "warning"


def test_the_four_packages_are_ours() -> None:
    (finding,) = checks.packages()
    assert finding.status == "ok", finding.text


def test_bundled_data_has_licences() -> None:
    (finding,) = checks.licences()
    assert finding.status == "ok", finding.text
