"""Names and paths of every kind: the run lands where it was asked to, or one line says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from evals.cli.main import main
from evals.prepared import default_folder
from reports.tracking_values import metric_name

FAKE = ["run", "--task", "geneval", "--model", "dummy", "--judge", "dummy", "--limit", "1", "--num-images", "1",
        "--no-track", "-q"]  # fmt: skip


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


@pytest.mark.parametrize(
    "name", ["with space", "ünï-日本-🎈", "-v", "--fresh", "a'b\"c$d`e;f&g|h*?", "x\ny", "%s{0}", "é" * 100]
)
def test_a_folder_of_any_name_holds_the_whole_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*FAKE, f"--output={name}")
    assert result.exit_code == 0, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "report.html").exists() and (tmp_path / name / "images").is_dir()


def test_dots_and_links_in_a_path_are_followed_and_nothing_else_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert call(*FAKE, f"--output={tmp_path}/link/../link/run").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "real" / "run" / "results.json").exists()


@pytest.mark.parametrize("value", ["x" * 5000, "-", "../..", "a/../b", "\x1b[2J", "名" * 300, "--help"])
@pytest.mark.parametrize("option", ["--model", "--task", "--judge", "--shard", "--device"])
def test_a_name_that_means_nothing_ends_in_one_short_line(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model name longer than a path may be was a traceback (File name too long)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = call("run", "--task", "geneval", "--model", "dummy", "--limit", "1", "--no-track", "-q",
                  f"{option}={value}")  # fmt: skip
    assert result.exit_code in (1, 2) and result.stdout == ""
    last = result.stderr.rstrip("\n").split("\n")[-1]
    assert last.startswith("Error: ") and len(last) < 6000 and "Traceback" not in result.stderr


@given(st.text(max_size=60))
@example("")
@example("..")
@example("a" * 9000)
@example("//a//b/../c.")
@example("CLIP(ViT-B/32)")
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    validation = pytest.importorskip("mlflow.utils.validation") if "mlflow" in sys.modules else None
    made = metric_name(name)
    assert 0 < len(made) <= 250 and made.isascii() and not made.startswith("/") and ".." not in made.split("/")
    if validation is not None:
        validation._validate_metric_name(made)
        validation._validate_param_name(made)
        validation._validate_tag_name(made)


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_default_folder_lies_in_runs(task: str, model: str) -> None:
    folder = default_folder(task, model, "0123456789")
    assert folder.parent == Path("runs") and folder.name not in ("", ".", "..")
    assert folder.name.isascii() and not folder.name.startswith(("-", "."))
