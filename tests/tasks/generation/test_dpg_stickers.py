"""Dense captions of sticker scenes: what is asked, a ceiling, a floor, and a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pytest
from PIL import Image

import evals
from blip3o.stickers import render
from blip3o.stickers.splits import is_held_out
from evals.api import ModelOptions, Output, Sample, Score, ScoreItem, ScoreRow, Task
from evals.errors import JudgeError
from evals.judges.stickers import create
from evals.models.dummy import DummyModel
from evals.models.images import create as create_images
from evals.phases.plan import spread_evenly
from tasks.generation import dpg_rules as rules
from tasks.generation.dpg_stickers import KINDS, PER_KIND, DpgStickers


@pytest.fixture(scope="module")
def task() -> DpgStickers:
    return DpgStickers()


@pytest.fixture(scope="module")
def judge():
    judge = create("", ModelOptions(device="cpu"))
    judge.load()
    return judge


def test_two_hundred_captions_half_of_them_unseen(task: DpgStickers) -> None:
    assert isinstance(task, Task)
    samples = task.samples()
    assert [sum(s.group == kind for s in samples) for kind in KINDS] == list(PER_KIND.values())
    assert len({s.id for s in samples}) == len(samples) == 200
    assert not any("." in s.id for s in samples)  # ids name grids
    unseen = [s for s in samples if s.metadata["split"] == "test_unseen"]
    assert len(unseen) == 80 and all(is_held_out(task.scenes[s.id].spec()) for s in unseen)
    assert not any(is_held_out(task.scenes[s.id].spec()) for s in samples if s not in unseen)
    assert task.digest() == DpgStickers().digest()


def test_the_graph_has_the_form_of_the_benchmark(task: DpgStickers) -> None:
    items = rules.fixed_items(task.rows)
    assert sum(map(len, items.values())) == len(task.rows) == 1635
    for item_id, questions in items.items():
        assert list(questions) == list(range(1, len(questions) + 1))
        for pid, row in questions.items():
            assert all(0 <= parent < pid for parent in row.parents), item_id
            assert rules.level_1_of(row.category or "") in ("global", "entity", "attribute", "relation", "other")


def scores(task: DpgStickers, judge, samples: Sequence[Sample], of: Sequence[Sample]) -> list[Score]:
    """The judge's scores where each prompt is answered with the scene's own picture of ``of``."""
    pictures = [Image.fromarray(render(task.scenes[s.id]).image) for s in of]
    items = [
        ScoreItem(s, Output(s.id, 0, 0, path="x.png"), picture)
        for s, picture in zip(samples, pictures, strict=True)
    ]
    return list(task.score(items, judge))


def test_the_scenes_own_pictures_are_the_ceiling_and_other_scenes_the_floor(task, judge) -> None:
    samples = task.samples()[::8]
    own = scores(task, judge, samples, samples)
    assert mean(s.value for s in own) > 0.97
    other = scores(task, judge, samples, [*samples[3:], *samples[:3]])
    assert mean(s.value for s in other) < 0.2
    rows = [ScoreRow(s.id, 0, s.group, score) for s, score in zip(samples, own, strict=True)]
    figures = {m.name: m.compute(rows) for m in task.metrics()}
    for name in ("overall", "official", "entity", "attribute", "relation", "other", "global"):
        assert figures[name].value > 97 and figures[name].unit == "percent", name


def test_each_picture_is_looked_at_once_for_all_its_questions(task, judge, monkeypatch) -> None:
    seen = []
    find = judge._judge.find
    monkeypatch.setattr(judge._judge, "find", lambda pictures: seen.append(len(pictures)) or find(pictures))
    samples = task.samples()[:5]
    scores(task, judge, samples, samples)
    assert seen == [5]


def test_the_sticker_judge_reads_no_words(judge) -> None:
    with pytest.raises(JudgeError, match="answers the questions of dpg_stickers only.*'Is there a cat"):
        judge.ask([Image.new("RGB", (64, 64))], ["Is there a cat?"])


def test_a_run_goes_from_grids_to_a_report(task: DpgStickers, tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    folder.mkdir()
    samples = spread_evenly(task.samples(), task.groups, 4)
    for sample in samples:
        grid = Image.new("RGB", (128, 128))
        picture = Image.fromarray(render(task.scenes[sample.id]).image)
        for place in ((0, 0), (64, 0), (0, 64)):
            grid.paste(picture, place)  # the fourth stays black
        grid.save(folder / f"{sample.id}.png")
    run = evals.evaluate(
        "dpg_stickers", create_images(str(folder), ModelOptions()), judge="stickers",
        output=tmp_path / "run", limit=4, quiet=True, tracking__enabled=False,
    )  # fmt: skip
    metrics = run.results["metrics"]
    assert 72 < metrics["overall"]["value"] <= 75 and metrics["overall"]["n"] == 16
    assert metrics["official_entity"]["value"] == 0.0  # the official categories know the last picture only
    assert metrics["entity"]["value"] == pytest.approx(75, abs=3)
    assert "dpg_stickers" in (tmp_path / "run" / "report.html").read_text()


def test_fakes_run_it_without_a_network(tmp_path: Path) -> None:
    run = evals.evaluate(
        "dpg_stickers", DummyModel(), output=tmp_path / "run", limit=8, num_images=1,
        report=False, quiet=True, tracking__enabled=False,
    )  # fmt: skip
    assert run.problem is None and run.results["metrics"]["overall"]["n"] == 8
