from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "mlflow", "lmms_eval", "pandas")


def call(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    program = [sys.executable, "-c", "from evals.cli.main import main; main()"]
    env = {**os.environ, **environment}
    return subprocess.run([*program, *arguments], capture_output=True, text=True, cwd=cwd, env=env)


def run_dummy(*arguments: str, **options: str) -> subprocess.CompletedProcess:
    return call("run", "--task", "geneval", "--model", "dummy", "--no-track", *arguments, **options)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list", "tasks"], ["run", "--help"], ["list", "judges"]]
)
def test_listing_and_help_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom evals.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stop: assert not stop.code\n"
        f"found = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resuming_a_finished_run_imports_nothing_heavy(tmp_path: Path) -> None:
    arguments = ["run", "--task", "geneval", "--model", "dummy", "--no-track", "--limit", "6"]
    assert call(*arguments, "--output", "out", cwd=tmp_path).returncode == 0
    code = (
        "import sys\nfrom evals.cli.main import main\n"
        f"try: main({[*arguments, '--output', 'out']!r})\nexcept SystemExit as stop: assert not stop.code\n"
        f"found = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "No such command 'runn'. Did you mean: run?"),
        (["list", "taks"], "Did you mean: tasks?"),
        (["run", "--task", "genval"], "Unknown task 'genval'. Did you mean: geneval, geneval_long?"),
        (
            ["run", "--task", "geneval", "--model", "nanoo"],
            "Unknown model 'nanoo'. Did you mean: nano?",
        ),
        (["run", "--task", "geneval", "--limitt", "3"], "'--limitt'. Did you mean '--limit'?"),
        (["run"], "Missing option '--task'"),
        (["run", "--task", "geneval,geneval"], "each once"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_hint_and_no_traceback(
    arguments: list[str], message: str
) -> None:
    done = call(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "stikers"], "Unknown judge 'stikers'. Did you mean: stickers"),
        (["--set", "generation.stepz=3"], "Did you mean: generation.steps"),
        (["--limit", "0"], "limit = 0 (from flag --limit) is not allowed: must be at least 1"),
        (["--limit", "x"], "'x' is not a valid integer"),
        (["--steps", "0"], "generation.steps = 0"),
        (["--guidance-scale", "nan"], "generation.guidance_scale = nan"),
        (["--seed", "-1"], "seed = -1"),
        (["--batch-size", "none"], "neither a whole number nor 'auto'"),
        (["--max-errors", "200%"], "max_errors = 2.0"),
        (["--shard", "4/4"], "i from 0 to n-1"),
        (["--device", "gpu"], "model.device = 'gpu'"),
        (["--config", "missing.yaml"], "missing.yaml: cannot be read"),
        (["--tag", "x"], "give name=value"),
    ],
)
def test_wrong_values_are_exit_2_and_leave_nothing_behind(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run_dummy(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_prints_a_table_and_json_and_writes_the_report(tmp_path: Path) -> None:
    made = run_dummy("--limit", "12", "--output", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "TEST DOUBLE" in made.stdout and "PARTIAL" in made.stdout and "overall" in made.stdout
    assert "generate: 48 done" in made.stderr and "score: 48 done" in made.stderr
    again = run_dummy("--limit", "12", "--output", "out", "--json", cwd=tmp_path)
    body = json.loads(again.stdout)
    assert body["counts"]["outputs"] == 48 and body["partial"] is True and body["pending"] == 0
    assert body["metrics"]["overall"]["n"] == 48
    assert (tmp_path / body["report"]).exists() and again.stderr == ""


def test_options_come_from_the_environment_and_flags_win(tmp_path: Path) -> None:
    made = run_dummy(
        "--seed", "3", "--output", "out", "--json", cwd=tmp_path,
        BLIP3O_EVAL_RUN_LIMIT="6", BLIP3O_EVAL_RUN_SEED="9", BLIP3O_EVAL_RUN_NUM_IMAGES="1",
    )  # fmt: skip
    body = json.loads(made.stdout)
    assert body["counts"]["outputs"] == 6 and body["seed"]["seed"] == 3


def test_set_wins_over_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nlimit: 6\nnum_images: 1\n")
    made = run_dummy(
        "--config", "a.yaml", "--set", "seed=4", "--output", "out", "--json", cwd=tmp_path,
        BLIP3O_EVAL_RUN_SEED="2",
    )  # fmt: skip
    assert json.loads(made.stdout)["seed"]["seed"] == 4


def test_another_configuration_in_the_folder_is_exit_2_with_the_keys(tmp_path: Path) -> None:
    assert run_dummy("--limit", "6", "--output", "out", cwd=tmp_path).returncode == 0
    done = run_dummy("--limit", "7", "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "limit: recorded 6, wanted 7" in done.stderr and done.stderr.count("\n") == 1


def test_failures_beyond_max_errors_are_exit_1_with_results_kept(tmp_path: Path) -> None:
    spec = [
        "run",
        "--task",
        "geneval",
        "--model",
        "dummy:fail_every=9",
        "--no-track",
        "--limit",
        "12",
    ]
    done = call(*spec, "--output", "out", "--json", cwd=tmp_path)
    assert (
        done.returncode == 1 and "outputs failed" in done.stderr and "Traceback" not in done.stderr
    )
    assert json.loads(done.stdout)["counts"]["failed"] > 0
    assert call(*spec, "--output", "out", "--max-errors", "50%", cwd=tmp_path).returncode == 0


def test_an_unfinished_shard_exits_0_and_merge_names_what_is_missing(tmp_path: Path) -> None:
    first = run_dummy("--limit", "6", "--shard", "1/2", "--output", "out", cwd=tmp_path)
    assert first.returncode == 0 and "left to other shards" in first.stdout
    early = call("merge", "out", cwd=tmp_path)
    assert early.returncode == 2 and "outputs are missing" in early.stderr
    last = run_dummy("--limit", "6", "--shard", "0/2", "--output", "out", "--json", cwd=tmp_path)
    assert last.returncode == 0 and json.loads(last.stdout)["counts"]["outputs"] == 24


def test_a_launcher_s_rank_and_world_size_make_shards(tmp_path: Path) -> None:
    options = ("--limit", "6", "--output", "out", "--json")
    first = run_dummy(*options, cwd=tmp_path, RANK="0", WORLD_SIZE="2")
    assert json.loads(first.stdout)["pending"] > 0
    last = run_dummy(*options, cwd=tmp_path, RANK="1", WORLD_SIZE="2")
    assert json.loads(last.stdout)["counts"]["outputs"] == 24
