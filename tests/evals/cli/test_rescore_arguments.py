"""`rescore --set judge.args.X=V`: arguments of the new judge, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

import evals
from evals.cli.main import main
from evals.models.dummy import DummyModel


def test_arguments_reach_the_judge_and_other_settings_are_refused(tmp_path: Path) -> None:
    evals.evaluate(
        "dpg_stickers", DummyModel(), output=tmp_path / "run", limit=4, num_images=1,
        report=False, quiet=True, tracking__enabled=False,
    )  # fmt: skip
    command = ["rescore", str(tmp_path / "run"), "--judge", "vlm:dummy", "--no-track", "-q", "--output"]
    said = CliRunner().invoke(
        main, [*command, str(tmp_path / "new"), "--max-errors", "1", "--set", "judge.args.prompt=Well, {question}"]
    )
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert manifest["judge"]["settings"]["prompt"] == "Well, {question}", said.output
    refused = CliRunner().invoke(main, [*command, str(tmp_path / "other"), "--set", "seed=3"])
    assert refused.exit_code == 2 and not (tmp_path / "other").exists()
    assert "rescore changes the judge only" in str(refused.output) + str(refused.exception)
