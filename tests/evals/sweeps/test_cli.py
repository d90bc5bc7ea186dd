"""``blip3o-eval sweep`` on the jobs of this machine: output, exit codes, environment."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from click.testing import CliRunner

from evals.cli.main import main


def test_run_resumes_and_says_with_its_exit_code_that_a_point_failed(definition, tmp_path: Path) -> None:
    path, root = tmp_path / "s.yaml", tmp_path / "s"
    data = definition(train={"schedule": "joint", "only_once": True}, axes={"train.fail_at": [0, 2]})
    path.write_text(yaml.safe_dump(data))
    arguments = ["sweep", "run", str(path), "--output", str(root), "--no-track", "--no-report"]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 1 and "TEST DOUBLE" in first.stdout
    assert "1 of 2 points failed" in first.stderr and "told to fail at step 2" in first.stderr
    assert "[2/2] " in first.stderr and "sweep trial: 2 points" in first.stderr
    second = CliRunner().invoke(main, [*arguments, "--json"], env={"BLIP3O_EVAL_SWEEP_RUN_QUIET": "1"})
    assert second.exit_code == 0 and second.stderr == ""
    assert [row["cell"] for row in json.loads(second.stdout)["rows"]] == ["fail_at=0", "fail_at=2"]
    assert (root / "table.csv").exists() and not (root / "report.html").exists()
    told = CliRunner().invoke(main, ["sweep", "status", str(root)]).stdout
    assert "2 points: 2 done; nobody works on it" in told


def test_plan_prints_text_or_json_and_writes_nothing(definition, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    axes = {"train.target": ["clip", "vae"], "train.objective": ["flow", "mse"]}
    path.write_text(yaml.safe_dump(definition(axes=axes, seeds=[0, 1]), sort_keys=False))
    told = CliRunner().invoke(main, ["sweep", "plan", str(path)])
    assert told.exit_code == 0
    for text in (
        "trial: 6 points = 3 combinations, 2 seeds each",
        "target=clip,objective=flow  understanding -> generation; 1 evaluation, 6 pictures  (baseline)",
        "left out, a VAE's latents are no features",
        "shared stage understanding: runs 2 times, for 3 points each",
    ):
        assert text in told.stdout
    body = json.loads(CliRunner().invoke(main, ["sweep", "plan", str(path), "--json"]).stdout)
    assert body["total"]["points"] == 6 and len(body["left_out"]) == 2 and body["total"]["images"] == 36
    assert sum(len(stage["users"]) == 3 for stage in body["stages"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s.yaml"]


def test_wrong_usage_exits_with_2_and_leaves_nothing(definition, tmp_path: Path) -> None:
    path = str(tmp_path / "s.yaml")
    Path(path).write_text(yaml.safe_dump(definition()))
    out = ["--output", str(tmp_path / "o"), "--no-track"]
    for arguments, text in (
        (["plan", "guidanc"], "Did you mean: guidance?"),
        (["run", path, "--executor", "slrum", *out], "Did you mean: slurm"),
        (["run", path, "--executor-set", "corse=2", *out], "cores"),
        (["plan", path, "--set", "executor={name: ray, adress: x}"], "address"),
        (["plan", path, "--set", "base.run.limt=3"], "unknown key 'limt'. Did you mean: limit?"),
        (["status", str(tmp_path)], "is not a sweep folder: there is no sweep.json"),
    ):
        done = CliRunner().invoke(main, ["sweep", *arguments])
        assert done.exit_code == 2 and text in done.stderr, (arguments, done.stderr)
        assert [p.name for p in tmp_path.iterdir()] == ["s.yaml"]
