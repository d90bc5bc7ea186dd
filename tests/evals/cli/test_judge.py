"""`blip3o-eval judge agree` on a few of the bundled labels, with the bundled judge."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from evals.cli.main import main
from evals.labels import bundled_path
from evals.recorded import read_file


@pytest.fixture
def few(tmp_path):
    """Header and the first 12 rows of the bundled labels, with the sheet beside them."""
    lines = read_file(bundled_path()).decode("utf-8").splitlines()[:13]
    path = tmp_path / "few labels.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(bundled_path().with_name("nano.webp"), tmp_path / "nano.webp")
    return path


def test_json_and_table_tell_the_same(few):
    runner = CliRunner()
    as_json = runner.invoke(main, ["judge", "agree", str(few), "--json"])
    assert as_json.exit_code == 0, as_json.output
    found = json.loads(as_json.stdout)
    assert found["overall"]["n"] == 12 and found["judge"]["name"] == "stickers"
    assert sum(found["overall"]["confusion"].values()) == 12
    equal = found["overall"]["confusion"]["both"] + found["overall"]["confusion"]["neither"]
    assert equal == 12 - len(found["disagreements"])
    table = runner.invoke(main, ["judge", "agree", str(few)])
    assert table.exit_code == 0
    assert f"{found['overall']['agreement']['value']:.3f}" in table.stdout
    assert "labeller: one labeller, a vision-language model" in table.stdout
    for one in found["disagreements"]:
        assert f"{one['sample_id']}/{one['image_index']}" in table.stdout
    again = runner.invoke(main, ["judge", "agree", str(few), "--json"])
    assert json.loads(again.stdout) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such.jsonl"], "no-such.jsonl: cannot be read"),
        (["--judge", "stikers"], "Unknown judge 'stikers'"),
        (["--run", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message):
    done = CliRunner().invoke(main, ["judge", "agree", *arguments])
    assert done.exit_code == 2
    assert message in done.output and "Traceback" not in done.output
