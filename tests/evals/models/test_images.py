"""`images:DIR` in a whole run: grids cut into outputs, nothing kept that the folder does not show."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import evals
from evals.api import ModelOptions
from evals.errors import UsageError
from evals.models.images import ImagesModel, create
from evals.pictures.files import read_picture
from evals.results import load

QUIET = {"quiet": True, "report": False, "tracking__enabled": False}


@pytest.fixture
def grids(tmp_path: Path, fruit) -> Path:
    """One 2 x 2 grid per sample, cut from the pictures of a run of the fake model."""
    run = evals.evaluate(fruit, "dummy", output=tmp_path / "run", **QUIET)
    folder = tmp_path / "grids"
    folder.mkdir()
    for sample in fruit.samples():
        pictures = sorted((run.root / "images" / f"{sample.number:05d}" / "samples").iterdir())
        grid = Image.new("RGB", (128, 128))
        for n, path in enumerate(pictures):
            grid.paste(Image.open(path), (n % 2 * 64, n // 2 * 64))
        grid.save(folder / f"{sample.id}.png")
    return folder


def test_grids_are_scored_as_the_pictures_they_were_made_of(grids: Path, fruit, tmp_path) -> None:
    fruit.picture_layouts = ("grids",)
    model = ImagesModel(str(grids))
    run = evals.evaluate(fruit, model, judge="dummy", output=tmp_path / "scored", **QUIET)
    made = load(tmp_path / "run")
    assert run.results["metrics"] == made.results["metrics"]
    for ours, theirs in zip(load(run.root).outputs(), made.outputs(), strict=True):
        one = read_picture(run.root / ours["path"], "a").convert("RGB")
        two = read_picture(made.root / theirs["path"], "b").convert("RGB")
        assert one.tobytes() == two.tobytes()
    assert run.manifest["model"]["info"] == {"made_elsewhere": True, "layout": "grids", "files": 24}


def test_a_broken_grid_costs_its_own_four_pictures(grids: Path, fruit, tmp_path) -> None:
    fruit.picture_layouts = ("grids",)
    path = grids / "fruit-003.png"
    path.write_bytes(path.read_bytes()[:-300])
    run = evals.evaluate(
        fruit, ImagesModel(str(grids)), judge="dummy", output=tmp_path / "scored", **QUIET
    )
    assert run.results["counts"]["failed"] == 4
    assert run.results["metrics"]["overall"]["note"] == (
        "not given: 4 of 96 outputs are missing or unreadable (fruit-003.png)"
    )
    assert run.problem.endswith(
        "Complete the folder and score it again; its old run folder stays as it is"
    )


def test_the_digest_is_of_the_contents_not_of_the_place(grids: Path, tmp_path) -> None:
    first = ImagesModel(str(grids)).identity
    moved = grids.rename(tmp_path / "moved")
    second = ImagesModel(f"{moved}/").identity
    assert first.digest == second.digest
    assert second.name == f"images:{moved}"
    (moved / "fruit-000.png").write_bytes((moved / "fruit-001.png").read_bytes())
    assert ImagesModel(str(moved)).identity.digest != first.digest


def test_bad_arguments_are_refused(grids: Path) -> None:
    with pytest.raises(UsageError, match="give the folder of the pictures after a colon"):
        create("", ModelOptions())
    with pytest.raises(UsageError, match="Did you mean: rewritten_prompts"):
        create(str(grids), ModelOptions(extra={"rewriten_prompts": True}))
    with pytest.raises(UsageError, match="give true or false"):
        create(str(grids), ModelOptions(extra={"rewritten_prompts": "yes"}))


def test_pictures_answer_no_questions(grids: Path, quiz, tmp_path) -> None:
    with pytest.raises(UsageError, match="makes no answers, which task 'quiz' needs"):
        evals.evaluate(quiz, ImagesModel(str(grids)), output=tmp_path / "x", **QUIET)
