"""docs/configuration.md says what the program does: its options, its settings, its Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not part of a wheel")


def text() -> str:
    return (DOCS / "configuration.md").read_text()


def test_the_table_names_every_option_of_run_with_its_key() -> None:
    from evals.cli.run import command
    from evals.cli.settings import KEYS

    rows = dict(re.findall(r"^\| `(--[a-z-]+)[^`]*` \| `?([\w.]*)", text(), re.MULTILINE))
    options = {next(o for o in p.opts if o.startswith("--")): p.name for p in command.params}
    assert set(rows) == set(options)
    for option, name in options.items():
        if name in KEYS:
            assert rows[option] == KEYS[name]


def test_the_shown_settings_are_what_the_command_prints(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(console|yaml)\n(.*?)^```$", text(), re.MULTILINE | re.DOTALL)
    (_, console), (_, settings) = blocks
    (tmp_path / "study.yaml").write_text(settings)
    line, _, expected = console.partition("\n")
    arguments = line.removeprefix("$ blip3o-eval ").split()
    done = subprocess.run(
        [sys.executable, "-c", "from evals.cli.main import main; main()", *arguments],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # What the bundled weights bring along changes with them; the rest is the program's word.
    volatile = re.compile(r"(guidance_scale|steps|height|width|dtype|batch_size):.*preset.*")
    assert volatile.sub("", done.stdout) == volatile.sub("", expected)


def test_the_python_of_the_page_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", text(), re.MULTILINE | re.DOTALL)
    quick = code.replace('model="nano"', 'model="dummy"')  # the page's own model takes a minute
    assert quick != code
    done = subprocess.run(
        [sys.executable, "-c", quick + "\nimport json\nprint(json.dumps(sorted(frame.columns)))"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    columns = json.loads(done.stdout.splitlines()[-1])
    assert {"sample_id", "prompt", "value", "reason", "details", "path"} <= set(columns)
    assert "colors" in done.stdout and (tmp_path / "runs").is_dir()


def test_the_export_formats_of_the_page_are_those_of_the_command() -> None:
    from evals.cli.export import _FORMATS
    from evals.export import FORMATS

    assert tuple(FORMATS) == _FORMATS
    assert f"--format {'|'.join(_FORMATS)}" in text()
