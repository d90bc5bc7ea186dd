"""The type checker: over the packages as pyproject.toml configures it, and strictly over what users write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
MYPY = shutil.which("mypy")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MYPY is None, reason="mypy is not installed"),
    pytest.mark.skipif(not (ROOT / "blip3o").is_dir(), reason="the sources are not here"),
]

USER = '''
import torch
from flat_colors.judge import Pixels
from flat_colors.metric import WorstGroup
from flat_colors.model import Painter
from flat_colors.task import FlatColors
from PIL import Image
from typing_extensions import assert_type

import blip3o
import evals
from blip3o import Blip3oModel
from blip3o.pipeline import Blip3oPipeline, PipelineOutput
from evals.api import ImageGenerator, Judge, Metric, Sample, Score, Task
from evals.config import ModelConfig, RunConfig

pipe = Blip3oPipeline.from_pretrained("nano")
assert_type(blip3o.Blip3oPipeline.from_pretrained("nano").to("cpu"), Blip3oPipeline)
output = pipe("a photo of a dog", generator=torch.Generator().manual_seed(1))
assert_type(output, PipelineOutput)
picture: Image.Image = output.images[0]
assert_type(pipe.edit(picture, "make the dog red"), PipelineOutput)
assert_type(pipe.ask(picture, "Is there a dog?"), str)
assert_type(pipe.ask_batch([picture, None], ["What is it?", "Who are you?"]), list[str])
assert_type(pipe.model.config.num_queries, int)
assert_type(Blip3oModel.from_pretrained("folder").eval().to("cpu"), Blip3oModel)

task: Task = FlatColors()
model: ImageGenerator = Painter(0.1)
judge: Judge = Pixels()
metric: Metric = WorstGroup()
sample = Sample(id="a", number=0, group="all", prompt="a dog")
score = Score(1.0, reason="", details={"seen": "dog"})
assert_type(evals.evaluate(task=task, model=model, judge=judge, limit=4), evals.Run)
config = RunConfig(task="geneval", model=ModelConfig(name="nano"), limit=4)
'''


def check(folder: Path, *arguments: str, cache: Path) -> None:
    assert MYPY is not None
    command = [MYPY, "--python-executable", sys.executable, "--cache-dir", str(cache), *arguments]
    environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, (ROOT, PLUGIN)))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_packages_pass(tmp_path: Path) -> None:
    check(ROOT, cache=tmp_path)


def test_users_get_types_under_strict(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    files = [str(path) for path in sorted((PLUGIN / "flat_colors").glob("*.py"))]
    # silent: what is reported is the user's, as for an installed package
    check(tmp_path, "--strict", "--follow-imports=silent", "user.py", *files, cache=tmp_path / "cache")
