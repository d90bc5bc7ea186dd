"""How commands end when something outside goes wrong: a full disk, a missing folder, a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from evals.cli.main import main

PROGRAM = [sys.executable, "-m", "evals.cli"]
FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["list", "tasks"], ["--help"], ["run", "--help"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_sigterm_ends_a_run_as_ctrl_c_does_and_the_same_command_goes_on(
    tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "r"
    settings = ["--model", "dummy:seconds=0.1", "--no-track", "-q", "--limit", "6", "--judge-when", "after"]
    program = [*PROGRAM, "run", "--task", "geneval", *settings, "--output", str(run)]
    process = subprocess.Popen(
        program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background shell ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(run.glob("outputs*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (code, "Error: interrupted; the same command goes on from here\n")
    assert subprocess.run(program, capture_output=True).returncode == 0


def test_a_missing_folder_is_named_and_no_temporary_file(tmp_path: Path) -> None:
    run = ["run", "--task", "geneval", "--model", "dummy", "--no-track", "-q", "--limit", "2", "--output"]
    assert CliRunner().invoke(main, [*run, str(tmp_path / "r")]).exit_code == 0
    output = tmp_path / "none" / "x.csv"
    for arguments in (["export", "--format", "csv"], ["report"]):
        done = CliRunner().invoke(main, [*arguments, str(tmp_path / "r"), "--output", str(output)])
        assert done.exit_code == 1
        assert done.stderr == f"Error: {output} cannot be written: there is no folder {output.parent}\n"


def test_fid_looks_at_the_folders_before_it_asks_for_weights(tmp_path: Path) -> None:
    empty, pictures = tmp_path / "empty", tmp_path / "pictures"
    empty.mkdir()
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    for places, expected in (
        ((pictures, "nope"), "nope: is neither a folder of pictures nor a statistics file"),
        ((pictures, "nope.safetensors"), "nope.safetensors: there is no such file"),
        ((pictures, empty), f"{empty}: holds no pictures"),
        (("nope", pictures), "nope: is no folder of pictures"),
    ):
        done = CliRunner().invoke(main, ["fid", "score", *map(str, places)])
        assert done.exit_code == 2 and f"Error: {expected}" in done.stderr
