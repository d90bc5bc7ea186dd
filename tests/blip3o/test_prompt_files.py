"""Several prompts in one command: the same pictures as one by one, a folder with an index, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from blip3o.cli import main
from blip3o.pipeline import Blip3oPipeline
from blip3o.prompt_files import INDEX, Wish, wishes_of

PROMPTS = ["a dog", "a photo of two much longer cats", "a bus"]


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained("tiny")


@pytest.fixture(autouse=True)
def here(pipe, monkeypatch, tmp_path: Path) -> None:
    """Commands get the pipeline of this module and an empty current folder."""
    monkeypatch.setattr("blip3o.cli.load_pipeline", lambda *a: pipe)
    monkeypatch.chdir(tmp_path)


def generate(*words: str, **more):
    return CliRunner().invoke(main, ["generate", *words], **more)


def rows(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, INDEX).read_text("utf-8").splitlines()]


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


@pytest.mark.parametrize("size", ["1", "4", "6"])
def test_pictures_are_those_of_each_prompt_alone(size: str) -> None:
    result = generate(*PROMPTS, "--num-images", "2", "--batch-size", size, "-o", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"out/0000{p}-0{i}.png" for p in range(3) for i in range(2)]
    assert rows("out") == [
        {"prompt": prompt, "seed": 42 + i, "path": f"0000{p}-0{i}.png"}
        for p, prompt in enumerate(PROMPTS)
        for i in range(2)
    ]
    for number, prompt in enumerate(PROMPTS):
        assert generate(prompt, "--num-images", "2", "-o", "alone.png").exit_code == 0
        for i in range(2):
            alone, together = pixels(f"alone-{i}.png"), pixels(f"out/0000{number}-0{i}.png")
            assert np.abs(alone - together).max() <= 1
    assert np.abs(pixels("out/00000-00.png") - pixels("out/00000-01.png")).max() > 20  # the next seed
    assert np.abs(pixels("out/00000-00.png") - pixels("out/00001-00.png")).max() > 0  # another prompt


@pytest.mark.parametrize("words", [[], ["--batch-size", "2"]])
def test_one_prompt_is_drawn_as_a_call_of_the_pipeline_draws_it(pipe, words: list[str]) -> None:
    import torch

    generators = [torch.Generator().manual_seed(42 + i) for i in range(2)]
    expected = pipe(["a dog"] * 2, generator=generators).images
    result = generate("a dog", "--num-images", "2", *words)
    assert result.stdout.splitlines() == ["picture-0.png", "picture-1.png"]
    assert all(np.array_equal(pixels(f"picture-{i}.png"), np.asarray(expected[i])) for i in range(2))
    assert not Path("runs").exists()


def test_at_most_a_batch_is_drawn_at_once_by_default_the_models_own(pipe, monkeypatch) -> None:
    sizes: list[int] = []
    call = Blip3oPipeline.__call__
    monkeypatch.setattr(Blip3oPipeline, "__call__", lambda s, p, *a, **k: sizes.append(len(p)) or call(s, p, *a, **k))
    size = pipe.card.batch_size
    assert generate("a", "b", "--num-images", str(size), "-o", "own").exit_code == 0
    assert generate("a", "b", "--num-images", "2", "--batch-size", "3", "-o", "three").exit_code == 0
    assert generate("a", "--num-images", str(size + 1)).exit_code == 0
    assert sizes == [size, size, 3, 1, size + 1]


def test_a_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffa dog\r\n  zwei Bären \n\n".encode())
    assert generate("--prompts", "p.txt", "-o", "new/file").exit_code == 0
    assert generate("--prompts", "-", "-o", "input", input="a dog\nzwei Bären").exit_code == 0
    assert rows("new/file") == rows("input") and [row["prompt"] for row in rows("input")] == ["a dog", "zwei Bären"]
    assert "Bären" in Path("input", INDEX).read_text("utf-8")


def test_a_file_with_one_prompt_makes_a_folder_of_its_own() -> None:
    Path("p.txt").write_text("a dog\n")
    result = generate("--prompts", "p.txt")
    [line] = result.stdout.splitlines()
    assert line.startswith("runs/generate-") and line.endswith("/00000-00.png") and Path(line).exists()
    assert f"{Path(line).parent / INDEX} has prompt, seed and path of each" in result.stderr


def test_instructions_are_all_about_the_same_picture(pipe) -> None:
    import torch

    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))
    photo.save("photo.png")
    assert generate("make it red", "remove the small green book", "--image", "photo.png", "-o", "out").exit_code == 0
    for number, wish in enumerate(["make it red", "remove the small green book"]):
        [alone] = pipe.edit(photo, wish, generator=[torch.Generator().manual_seed(42)]).images
        assert np.abs(pixels(f"out/0000{number}-00.png") - np.asarray(alone, dtype=int)).max() <= 1


def test_an_index_names_what_was_drawn_before_a_kill(pipe, monkeypatch) -> None:
    calls: list[int] = []
    call = Blip3oPipeline.__call__

    def stop(self, *args, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return call(self, *args, **settings)

    monkeypatch.setattr(Blip3oPipeline, "__call__", stop)
    assert generate(*PROMPTS, "--batch-size", "2", "-o", "out").exit_code == 1
    assert [row["path"] for row in rows("out")] == sorted(p.name for p in Path("out").glob("*.png"))
    assert len(rows("out")) == 2


def test_names_sort_and_seeds_count_on() -> None:
    wishes = wishes_of(["a"] * 12, 11, 7)
    assert wishes[0] == Wish("a", 7, "00000-00.png") and wishes[-1] == Wish("a", 17, "00011-10.png")
    assert [wish.path for wish in wishes] == sorted({wish.path for wish in wishes})


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "give PROMPT, or several, or --prompts FILE"),
        (["a", "--prompts", "p.txt"], 2, "give PROMPT, or several, or --prompts FILE, not both"),
        (["--prompts", "nowhere.txt"], 2, "File 'nowhere.txt' does not exist"),
        (["--prompts", "gap.txt"], 1, "line 2 of gap.txt is empty; write a prompt there or remove the line"),
        (["--prompts", "blank.txt"], 1, "blank.txt holds no prompt; write one a line"),
        (["--prompts", "latin.txt"], 1, "line 2 of latin.txt is not UTF-8"),
        (["a", " "], 1, "prompt 1 is empty; write what is wanted"),
        ([""], 1, "prompt is empty; write what is wanted"),
        (["a", "b", "-o", "dog.png"], 1, "--output dog.png is one file, and several prompts need a folder"),
        (["a", "b", "-o", "p.txt"], 1, "--output p.txt is one file, and several prompts need a folder"),
        (["a", "b", "-o", "done"], 1, f"done holds pictures of an earlier command ({INDEX}); give another --output"),
        (["a", "b", "-o", "/proc/x"], 1, "/proc/x cannot be made (No such file or directory)"),
        (["a", "-o", "done"], 2, "done is a folder; one PROMPT needs a file"),
        (["a", "b", "--batch-size", "0"], 2, "0 is not in the range x>=1"),
        (["a", "b", "dog " * 2000, "-o", "long"], 1, "prompt 2 has "),
    ],
)
def test_mistakes_are_said_in_one_line_and_nothing_is_drawn(words, code, message) -> None:
    Path("p.txt").write_text("a\n")
    Path("gap.txt").write_text("a\n\nb\n")
    Path("blank.txt").write_text(" \n")
    Path("latin.txt").write_bytes(b"a\nB\xe4r\n")
    Path("done").mkdir()
    Path("done", INDEX).touch()
    before = sorted(Path().rglob("*"))
    result = generate(*words)
    assert result.exit_code == code and isinstance(result.exception, SystemExit)
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert sorted(Path().rglob("*")) == before
