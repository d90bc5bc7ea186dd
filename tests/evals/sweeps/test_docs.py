"""docs/sweeps.md says what the program does: the keys of the file, its example, and what is told of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evals.errors import ConfigError
from evals.sweeps.plan import plan_sweep
from evals.sweeps.schema import Evaluate, SweepConfig
from evals.sweeps.sweepfile import shipped

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sweeps.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of a wheel")


def example() -> str:
    (found,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return found


def test_the_table_names_every_key() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text.partition("## The sweeps that ship")[0], re.MULTILINE)
    assert set(rows) == set(SweepConfig.model_fields)
    assert all(f"`{key}" in text for key in Evaluate.model_fields)


def test_the_page_lists_what_ships() -> None:
    part = PAGE.read_text().partition("## The sweeps that ship")[2].partition("## Stages")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", part, re.MULTILINE)) == set(shipped())


def test_the_example_can_be_planned(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(example())
    made = plan_sweep(tmp_path / "s.yaml")
    assert len(made.points) == 10 and made.grid.baseline == "guidance_scale=2,steps=16"


def test_the_problems_shown_are_those_that_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = example()
    for old, new in (
        ("judge: stickers", "judge: stikers"), ("limit: 24", "limt: 24"), ("scale: 1,", "scale: 3,"),
        ("8, 16]", "8, 16, 0]"),
    ):  # fmt: skip
        assert old in wrong
        wrong = wrong.replace(old, new)
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as raised:
        plan_sweep("wrong.yaml")
    shown = PAGE.read_text().partition("$ blip3o-eval sweep plan wrong.yaml\nError: ")[2].partition("```")[0]
    assert str(raised.value) == shown.strip()
