"""Prompt lists that come with the package: as upstream wrote them, by name, with ids that stay."""

import csv
import gzip
import json
import logging
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals import evaluate
from evals.cli.main import main
from evals.errors import InputError
from tasks.generation.clip_score import ClipScoreTask
from tasks.generation.prompt_lists import NAMES, is_name, read
from tasks.generation.vqa_score import VqaScoreTask

DATA = resources.files("tasks") / "data"
FILES = ("color", "shape", "texture", "spatial", "3d_spatial", "non_spatial", "numeracy", "complex")


def test_partiprompts_are_the_rows_of_the_table():
    text = gzip.decompress((DATA / "partiprompts/PartiPrompts.tsv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(text.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE))
    data = read("partiprompts")
    assert len(data.samples) == len(rows) == 1632
    assert Counter(s.group for s in data.samples) == Counter(row["Category"] for row in rows)
    assert set(data.groups) == {row["Category"] for row in rows} and len(data.groups) == 12
    assert [s.metadata["challenge"] for s in data.samples] == [row["Challenge"] for row in rows]
    assert [s.prompt.split() for s in data.samples] == [row["Prompt"].split() for row in rows]
    quoted = 'The 1970s logo for a london-area football club called "The Rumbury Wanderers"'
    assert quoted in [s.prompt for s in data.samples]


def test_t2i_compbench_is_its_eight_files():
    data = read("t2i_compbench")
    assert data.groups == FILES and Counter(s.group for s in data.samples) == dict.fromkeys(FILES, 300)
    for file in FILES:
        lines = (DATA / f"t2i_compbench/{file}_val.txt").read_bytes().split(b"\n")
        raw = [line.decode().strip() for line in lines if line.strip()]
        assert [s.prompt for s in data.samples if s.group == file] == raw


def test_a_file_alone_has_the_ids_that_it_has_in_the_whole_list():
    """Seeds hang on ids, so it draws the same pictures."""
    whole = [(s.id, s.prompt) for s in read("t2i_compbench").samples]
    parts = [read(f"t2i_compbench/{file}") for file in FILES]
    assert [(s.id, s.prompt) for part in parts for s in part.samples] == whole
    assert all([s.number for s in part.samples] == list(range(300)) for part in parts)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_prompts_are_texts(name):
    samples = read(name).samples
    assert len({s.id for s in samples}) == len({s.number for s in samples}) == len(samples)
    assert all(s.prompt and s.prompt == s.metadata["prompt"] == s.prompt.strip() for s in samples)


@pytest.mark.parametrize(
    ("name", "digest", "ids"),
    [
        ("partiprompts", "3441728da597636f", ("partiprompts-0000", "partiprompts-1631")),
        ("t2i_compbench", "04de3b6180e8e7d9", ("color-000", "complex-299")),
        ("t2i_compbench/non_spatial", "5b8fc64bd070e180", ("non_spatial-000", "non_spatial-299")),
    ],
)
def test_digests_and_ids_never_change(name, digest, ids):
    """Another digest is another list: runs over it are not resumed and do not compare."""
    for task in (ClipScoreTask(name), VqaScoreTask(name)):
        samples = task.samples()
        assert task.digest().startswith(digest) and (samples[0].id, samples[-1].id) == ids


def test_a_folder_called_like_a_list_is_taken_when_written_as_a_path(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    Path("partiprompts").mkdir()
    Path("partiprompts/captions.jsonl").write_text('{"id": "mine", "prompt": "a cat"}')
    for given in ("./partiprompts", "partiprompts/", str(tmp_path / "partiprompts"), Path("partiprompts")):
        assert not is_name(given)
        assert [s.id for s in ClipScoreTask(given).samples()] == ["mine"]
    with caplog.at_level(logging.WARNING):
        assert len(ClipScoreTask("partiprompts").samples()) == 1632
    assert "for the folder here give --data ./partiprompts" in caplog.text
    caplog.clear()
    assert len(ClipScoreTask("t2i_compbench").samples()) == 2400 and not caplog.text


@pytest.mark.parametrize("name", ["partiprompt", "t2i_compbench/colour", "partiprompts/animals", "x" * 5000])
def test_an_unknown_name_is_one_line_with_the_lists(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["--task", "clipscore", "--data", name, "--model", "dummy", "--judge", "dummy"]
    done = CliRunner().invoke(main, ["run", *settings])
    [line] = done.stderr.splitlines()
    assert done.exit_code == 2 and name[:30] in line and "captions.jsonl" in line
    assert "lists are partiprompts, t2i_compbench, and of the latter t2i_compbench/color|shape" in line
    assert not list(tmp_path.iterdir())


def test_fid_says_that_lists_have_no_reference(tmp_path):
    for name in ("partiprompts", "t2i_compbench/color"):
        with pytest.raises(InputError, match=f"'{name}' has no reference pictures.*clipscore or vqascore.*./{name}"):
            evaluate("fid", "dummy", judge="sticker-features", output=tmp_path / "run", data=name)
    assert not (tmp_path / "run").exists()


def test_data_get_says_that_the_lists_are_here():
    done = CliRunner().invoke(main, ["data", "get", "--task", "vqascore"])
    assert done.exit_code == 2 and "run --data partiprompts|t2i_compbench" in done.output


def test_a_run_over_a_list_has_a_figure_for_each_file_and_says_what_it_is_not(clip_folder, tmp_path):
    made = evaluate("clipscore", "dummy", judge=f"clip:{clip_folder}", data="t2i_compbench", limit=16,
                    output=tmp_path / "run", quiet=True, tracking__enabled=False)  # fmt: skip
    figures = made.results["metrics"]
    name = "clipscore-tiny-clip"
    assert list(figures) == [name, *(f"{name}:{file}" for file in FILES)]
    assert figures[name]["n"] == 16 and all(figures[f"{name}:{file}"]["n"] == 2 for file in FILES)
    rows = [json.loads(line) for line in open(tmp_path / "run" / "scores.jsonl")]
    colors = [100 * row["value"] for row in rows if row["group"] == "color"]
    assert figures[f"{name}:color"]["value"] == pytest.approx(sum(colors) / 2)
    card = made.manifest["task"]["card"]
    assert card["licence"] == "MIT (prompts)" and "commit 1b70949" in card["data"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Not T2I-CompBench" in page and "UniDet" in page and "Of the group color alone." in page


def test_a_run_over_partiprompts_keeps_the_challenge(clip_folder, tmp_path):
    made = evaluate("clipscore", "dummy", judge=f"clip:{clip_folder}", data="partiprompts", limit=12,
                    output=tmp_path / "run", quiet=True, report=False, tracking__enabled=False)  # fmt: skip
    assert len(made.results["metrics"]) == 1 + 12
    assert "had people compare pictures" in made.manifest["task"]["card"]["worth"]
    records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "images").glob("*/metadata.jsonl")]
    challenges = {s.prompt: s.metadata["challenge"] for s in read("partiprompts").samples}
    assert len(records) == 12 and all(challenges[r["prompt"]] == r["challenge"] for r in records)


def test_the_card_of_a_part_names_it_and_that_of_other_data_is_the_tasks_own(tmp_path):
    assert ClipScoreTask("t2i_compbench/shape").card["data"].endswith("8 x 300, bundled; here shape_val.txt alone")
    assert ClipScoreTask().card == ClipScoreTask(tmp_path).card == ClipScoreTask.card
