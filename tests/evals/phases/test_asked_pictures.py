"""Small copies of what questions are about: kept once, found again, and never in the way of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import evals
from evals.api import Sample
from evals.phases import asked_pictures


def picture(color: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, color)


def sample(number: int, *images: object) -> Sample:
    return Sample(f"s{number}", number, "all", f"question {number}", {}, images=images)


def test_each_picture_is_kept_once_and_large_ones_small(tmp_path: Path) -> None:
    red, large = picture("red"), picture("blue", (2000, 1000))
    asked_pictures.keep(tmp_path, [sample(0, red), sample(1, red.copy(), large)], ("all",))
    found = asked_pictures.read(tmp_path)
    assert found["s0"] == found["s1"][:1] and len(list((tmp_path / "inputs").glob("*.webp"))) == 2
    sizes = [Image.open(path).size for path in found["s1"]]
    assert sizes == [(40, 30), (256, 128)]
    assert Image.open(found["s0"][0]).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_many_samples_are_thinned_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_pictures, "MAX_SAMPLES", 4)
    asked_pictures.keep(tmp_path, [sample(n, picture("red")) for n in range(100)], ("all",))
    assert len(found := asked_pictures.read(tmp_path)) == 4 and found.keys() != {f"s{n}" for n in range(4)}


def test_a_picture_that_cannot_be_read_costs_its_own_copy(tmp_path: Path) -> None:
    class Damaged:
        def __len__(self):
            raise ValueError("no picture")

        def __iter__(self):
            raise KeyError("no picture")

    broken = Sample("s1", 1, "all", "question", {}, images=Damaged())  # type: ignore[arg-type]
    asked_pictures.keep(tmp_path, [broken, sample(0, picture("red"))], ("all",))
    assert [len(paths) for paths in asked_pictures.read(tmp_path).values()] == [0, 1]


def test_without_pictures_nothing_is_written(tmp_path: Path) -> None:
    asked_pictures.keep(tmp_path, [sample(0), sample(1)], ("all",))
    assert asked_pictures.read(tmp_path) == {} and not list(tmp_path.iterdir())


def test_a_list_from_elsewhere_leads_to_no_file_outside(tmp_path: Path) -> None:
    asked_pictures.keep(tmp_path, [sample(0, picture("red"))], ("all",))
    index = tmp_path / "inputs" / "index.json"
    assert asked_pictures.read(tmp_path)
    index.write_text(json.dumps({"samples": {"s0": ["../../secret.webp", "/etc/passwd", 3]}}))
    assert asked_pictures.read(tmp_path) in ({}, {"s0": []})


def test_a_finished_run_shows_them_with_what_was_expected(tmp_path: Path) -> None:
    run = evals.evaluate(
        "mme_stickers", "dummy", limit=8, output=tmp_path / "run", quiet=True, tracking__enabled=False
    )
    assert run.report_path is not None
    page = run.report_path.read_text()
    from evals.results import load
    from reports.gallery import build_gallery
    from reports.tables import samples_frame

    shown = build_gallery(run.root, samples_frame(load(run.root)))
    assert shown.n_asked == 8 and len(shown.pictures) == 4  # two questions about each
    assert {sample["o"][0]["e"] for sample in shown.data["samples"]} == {"yes", "no"}
    assert "kept in the run folder under inputs/" in page
