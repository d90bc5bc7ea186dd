"""A tiny random pipeline of diffusers through every generation task that needs no weights from a hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evals import evaluate
from evals.errors import UsageError
from tasks import TASKS

JUDGES = {
    "geneval": "stickers",
    "geneval_long": "stickers",
    "dpg_stickers": "stickers",
    "fid_stickers": "sticker-features",
    "fid": "sticker-features",
    "vqascore": "vlm:nano",
}
ELSEWHERE = {
    "dpg": "its question file is the user's",
    "wise": "its prompts are the user's",
    "wise_verified": "its prompts are the user's",
    "clipscore": "its encoder comes from the hub",
    "edit_stickers": "the model takes no source picture",
}


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for n in range(6):
        lines.append(json.dumps({"id": n, "prompt": f"a photo of {n} dogs"}))
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / "images" / f"{n}.png")
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def test_every_generation_task_is_in_the_lists() -> None:
    assert {*JUDGES, *ELSEWHERE} == {n for n, (place, _) in TASKS.items() if place.startswith("tasks.generation.")}


@pytest.mark.slow
@pytest.mark.parametrize("task", JUDGES)
def test_a_tiny_pipeline_runs_through(task: str, tiny_pipeline, captions: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = evaluate(
        task, f"diffusers:{tiny_pipeline('sd')}", judge=JUDGES[task], output=tmp_path / "run", limit=4, num_images=1,
        generation__steps=1, quiet=True, tracking__enabled=False, judge_when="beside",
        **({"data": str(captions)} if task in ("fid", "vqascore") else {}),
    )  # fmt: skip
    assert made.problem is None and made.results is not None and made.results["counts"]["scored"] == 4
    figures = {name: m["value"] for name, m in made.results["metrics"].items() if m["value"] is not None}
    assert figures and made.report_path is not None and made.report_path.stat().st_size > 20_000
    print(f"\n{task}: {figures}")


@pytest.mark.slow
def test_edits_are_refused_before_anything_is_drawn(tiny_pipeline, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gives each prompt a source picture"):
        evaluate("edit_stickers", f"diffusers:{tiny_pipeline('sd')}", judge="stickers", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
