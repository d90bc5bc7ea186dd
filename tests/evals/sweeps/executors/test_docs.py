"""The page about executors names every setting there is, and its example is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evals.settings.yaml import parse as parse_yaml
from evals.sweeps.executors.settings import SETTINGS, parse

DOCS = Path(__file__).parents[4] / "docs"


def _page() -> str:
    page = DOCS / "sweeps-executors.md"
    return (page if page.exists() else DOCS / "sweeps.md").read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_on_the_page(name: str) -> None:
    page = _page()
    missing = [key for key in SETTINGS[name].model_fields if f"`{key}" not in page]
    assert not missing


def test_the_example_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(executor:.*?)```", _page(), re.DOTALL)
    settings = dict(parse_yaml(example)["executor"])
    name = settings.pop("name")
    assert parse(SETTINGS[name], name, settings).memory_gb == 64
