"""Files of a run folder that were cut short, or in which bits flipped.

Every damage is either found, with the file named and the next step said, or it changes nothing: the
command that made the run leaves a folder equal to an undisturbed one. ``BLIP3O_EVAL_TEST_FLIPS`` sets
the number of flips per file (default 3).
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from evals.errors import EvalError, InputError
from evals.io.checksums import is_sound, line_problem, seal, seal_line
from evals.io.files import write_json
from evals.io.jsonl import LineWriter, read_rows
from evals.results import comparable, load

FLIPS = int(os.environ.get("BLIP3O_EVAL_TEST_FLIPS", "3"))
PICTURE = "images/00004/samples/00002.png"
FILES = (
    "manifest.json", "outputs.jsonl", "scores.jsonl", "results.json", PICTURE,
    "images/00004/metadata.jsonl", ".run.lock", ".manifest.copy.json",
)  # fmt: skip


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def bits(path: Path, count: int) -> list[int]:
    return random.Random(path.name).sample(range(path.stat().st_size * 8), count)


def readers_find_it(root: Path, good: dict[str, str]) -> bool:
    """What every reader of a finished run does. True if one names the damaged file."""
    try:
        run = load(root)
        outputs, scores = list(run.outputs()), list(run.scores())
    except InputError as error:
        assert str(root) in str(error) and "the command that made the run" in str(error)
        return True
    finished = load(root)
    assert (len(outputs), len(scores)) == (36, 36) and finished.results == run.results
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_or_harmless(
    evaluate, whole: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = comparable(whole)
    good = load(whole)
    for bit in bits(whole / name, FLIPS):
        root = Path(shutil.copytree(whole, tmp_path / "run"))
        flip(root / name, bit)
        caplog.clear()
        found = readers_find_it(root, expected)
        if name in ("manifest.json", "results.json", "outputs.jsonl", "scores.jsonl"):
            assert found or load(root).results == good.results, f"{name}, bit {bit}"
        made = evaluate(root, verify=True)
        assert made.problem is None and comparable(root) == expected, f"{name}, bit {bit}"
        if name in (PICTURE, "images/00004/metadata.jsonl", "outputs.jsonl", "scores.jsonl"):
            assert name.rpartition("/")[2] in caplog.text
        shutil.rmtree(root)


@pytest.mark.parametrize("name", [n for n in FILES if not n.startswith(".")])
def test_a_file_cut_short_anywhere_is_mended(
    evaluate, whole: Path, tmp_path: Path, name: str
) -> None:
    size = (whole / name).stat().st_size
    for length in (0, size // 2, size - 1):
        root = Path(shutil.copytree(whole, tmp_path / "run"))
        os.truncate(root / name, length)
        assert evaluate(root, verify=True).problem is None
        assert comparable(root) == comparable(whole), f"{name} cut at {length}"
        shutil.rmtree(root)


def test_every_single_bit_of_a_line_counts() -> None:
    line = seal_line('{"sample_id": "00004", "value": 0.7}')
    assert line_problem(line) is None
    for bit in range(len(line) * 8):
        data = bytearray(line)
        data[bit // 8] ^= 1 << bit % 8
        assert line_problem(bytes(data)) is not None


def test_every_single_bit_of_a_json_file_counts(tmp_path: Path) -> None:
    """A flip that leaves the content as it was, as 1e-3 for 1E-3, is none that matters."""
    value = {"metrics": {"overall": {"value": 0.7125, "n": 36}}, "note": "größer"}
    write_json(tmp_path / "a.json", value)
    data = (tmp_path / "a.json").read_bytes()
    sealed = seal(value)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read = json.loads(changed)
        except ValueError:
            continue
        assert read == sealed or not isinstance(read, dict) or not is_sound(read)


def test_a_flipped_bit_in_a_shard_is_made_again(evaluate, whole: Path, tmp_path: Path) -> None:
    expected = comparable(whole)
    evaluate(tmp_path / "start", shard=(0, 2))
    name = "outputs.0-of-2.jsonl"
    for bit in bits(tmp_path / "start" / name, FLIPS):
        root = Path(shutil.copytree(tmp_path / "start", tmp_path / "run"))
        flip(root / name, bit)
        assert evaluate(root, shard=(1, 2)).pending == 5
        assert evaluate(root, shard=(0, 2)).problem is None
        assert comparable(root) == expected, f"bit {bit}"
        shutil.rmtree(root)


def test_a_flipped_picture_never_reaches_the_judge(evaluate, copy: Path) -> None:
    (copy / "scores.jsonl").unlink()
    flip(copy / PICTURE, 1000)
    with pytest.raises(EvalError, match="00002.png differs from its recorded checksum.*--verify"):
        evaluate(copy)
    assert evaluate(copy, verify=True).problem is None


def test_both_manifests_damaged_is_said_and_nothing_is_touched(evaluate, copy: Path) -> None:
    before = (copy / "outputs.jsonl").read_bytes()
    flip(copy / "manifest.json", 99)
    flip(copy / ".manifest.copy.json", 99)
    with pytest.raises(EvalError, match="manifest.json is damaged.*no sound copy.*--output.*--fresh"):
        evaluate(copy)
    assert (copy / "outputs.jsonl").read_bytes() == before


def test_only_scores_of_a_damaged_batch_are_made_again(
    evaluate, copy: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture lost out of a run that a judge took hours for must not cost all its verdicts."""
    judged = []
    from evals.judges.dummy import DummyJudge

    real = DummyJudge.detect

    def detect(judge, images, classes):
        judged.append(len(images))
        return real(judge, images, classes)

    monkeypatch.setattr(DummyJudge, "detect", detect)
    (copy / PICTURE).unlink()  # output 18: generation batch 15 to 19, judge's batches 14 to 20
    assert evaluate(copy).problem is None
    assert judged == [7] and comparable(copy) == comparable(whole)


def test_a_torn_report_is_written_again(evaluate, whole: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "run"))
    pytest.importorskip("matplotlib")
    evaluate(root, report=True)
    page = (root / "report.html").read_bytes()
    for damage in (page[: len(page) // 2], page.replace(b"fruit", b"frxit", 1)):
        (root / "report.html").write_bytes(damage)
        evaluate(root, report=True)
        assert (root / "report.html").read_bytes() not in (damage, b"")


def test_texts_that_no_encoding_knows_come_back_as_they_were(tmp_path: Path) -> None:
    with LineWriter(tmp_path / "a.jsonl") as writer:
        writer.append([{"text": "lone \ud800 surrogate"}, {"text": "é"}])
    assert [r["text"] for r in read_rows(tmp_path / "a.jsonl")] == ["lone \ud800 surrogate", "é"]
    write_json(tmp_path / "a.json", {"text": "\udfff"})
    assert is_sound(json.loads((tmp_path / "a.json").read_bytes()))
