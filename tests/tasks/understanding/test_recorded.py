"""Recorded answers through the command line: equal to lmms-eval's scores, and repaired without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.cli.main import main

FILES = {
    "mme": "mme",
    "mmmu": "mmmu_val",
    "vqav2": "vqav2_val",
    "textvqa": "textvqa_val",
    "realworldqa": "realworldqa",
    "seedbench": "seedbench",
    "mmbench": "mmbench_en_dev_static",
}


def score(task: str, path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["score", "--task", task, "--answers", str(path), *options])


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def cases(golden: Path, task: str) -> list[dict[str, Any]]:
    path = golden / "understanding" / f"{FILES[task]}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("task", FILES)
def test_prompts_and_scores_are_those_of_lmms_eval(golden: Path, task: str) -> None:
    folder = golden / "understanding"
    path = folder / f"{FILES[task]}.jsonl"
    rows = objects(score(task, path, "--compat", "lmms-eval", "--json"))
    expected = cases(golden, task)
    assert len(expected) == 20
    assert rows[:-1] == [{k: case[k] for k in ("n", "prompt", "result")} for case in expected]
    wanted = json.loads((folder / f"{FILES[task]}.aggregate.json").read_text())["metrics"]
    assert list(rows[-1]) == ["aggregate"]
    assert rows[-1]["aggregate"] == {"metrics": pytest.approx(wanted, abs=1e-9)}
    assert list(rows[-1]["aggregate"]["metrics"]) == list(wanted)


@pytest.mark.parametrize("options", [(), ("--compat", "lmms-eval")])
@pytest.mark.parametrize("task", ["realworldqa", "mme"])
def test_answers_that_stand_twice_in_a_file_are_named(
    golden: Path, tmp_path: Path, task: str, options: tuple[str, ...]
) -> None:
    found = cases(golden, task)
    once = score(task, write(tmp_path / "a.jsonl", *found), *options)
    assert " lines (" not in once.stderr
    twice = score(task, write(tmp_path / "a.jsonl", *found, *found), *options)
    first = found[0]["n"]
    assert twice.exit_code == 0
    assert f"note: n {first} stands in 2 lines (20 repeated in all); every line counts" in twice.stderr
    if task == "mme":
        picture = found[0]["doc"]["question_id"]
        assert f"note: picture '{picture}' has 4 instead of two scored answers" in twice.stderr


@pytest.mark.parametrize("task", FILES)
def test_the_own_rules_give_every_answer_a_value_and_figures_with_intervals(
    golden: Path, task: str
) -> None:
    path = golden / "understanding" / f"{FILES[task]}.jsonl"
    rows = objects(score(task, path, "--json"))
    metrics = rows[-1]["aggregate"]["metrics"]
    assert [row["n"] for row in rows[:-1]] == list(range(20))
    assert all(0 <= row["result"]["value"] <= 1 for row in rows[:-1])
    headline = next(iter(metrics.values()))
    assert headline["n"] > 0 and headline["unscored"] == 0
    assert headline["ci95"][0] <= headline["value"] <= headline["ci95"][1]
    assert metrics["unparsed"]["value"] == sum(r["result"]["unparsed"] for r in rows[:-1]) / 20
    assert metrics["unparsed"]["higher_is_better"] is False


@pytest.mark.parametrize("task", ["vqav2", "textvqa", "realworldqa", "seedbench", "mmbench"])
def test_without_repairs_to_make_both_figures_agree(golden: Path, task: str) -> None:
    folder = golden / "understanding"
    rows = objects(score(task, folder / f"{FILES[task]}.jsonl", "--json"))
    wanted = json.loads((folder / f"{FILES[task]}.aggregate.json").read_text())["metrics"]
    scale = 0.01 if task == "mmbench" else 1
    overall = wanted["seed_all"] if task == "seedbench" else next(iter(wanted.values()))
    got = rows[-1]["aggregate"]["metrics"]["accuracy"]["value"]
    assert got == pytest.approx(scale * overall)


@pytest.mark.parametrize("task", FILES)
def test_an_error_is_no_answer(golden: Path, tmp_path: Path, task: str) -> None:
    lines = cases(golden, task)
    lines[0] = {**lines[0], "response": None}
    lines[1] = {**lines[1], "error": "RuntimeError: out of memory"}
    del lines[2]["response"]
    path = write(tmp_path / "answers.jsonl", *lines)
    rows = objects(score(task, path, "--json"))
    assert [row["result"]["value"] for row in rows[:3]] == [None] * 3
    assert rows[0]["result"]["unscored"] == "output failed: no response"
    assert "out of memory" in rows[1]["result"]["unscored"]
    metrics = rows[-1]["aggregate"]["metrics"]
    assert metrics["unparsed"]["n"] == 17 and metrics["unparsed"]["unscored"] == 3
    for name in ("accuracy", "accuracy_lmms_eval"):
        if name in metrics and task != "mmbench":
            assert metrics[name]["n"] == 17 and metrics[name]["unscored"] == 3
    # What lmms-eval would read as the word "None" is refused here.
    refused = score(task, path, "--compat", "lmms-eval", "--json")
    assert refused.exit_code == 2
    assert f"{path}:1: response must be a string, got null" in refused.stderr


def test_only_the_named_keys_are_read(golden: Path, tmp_path: Path) -> None:
    lines = cases(golden, "mme")
    bare = [{k: line[k] for k in ("n", "doc", "response")} for line in lines]
    spoiled = [{**line, "result": 3, "prompt": None, "response_class": []} for line in lines]
    options = ("--compat", "lmms-eval", "--json")
    found = [
        score("mme", write(tmp_path / f"{i}.jsonl", *part), *options).stdout
        for i, part in enumerate((lines, bare, spoiled))
    ]
    assert found[0] == found[1] == found[2] != ""


def test_without_json_there_is_a_table_and_the_figures_below(golden: Path) -> None:
    path = golden / "understanding" / "mme.jsonl"
    lines = score("mme", path, "--compat", "lmms-eval").stdout.splitlines()
    assert lines[0].split() == ["n", "metric", "question_id", "category", "score", "parsed"]
    assert lines[-2:] == ["mme_perception_score: 850.0000", "mme_cognition_score: 600.0000"]
    assert len(lines) == 23
    own = score("mme", path).stdout.splitlines()
    assert "perception: 400.0000  (n 14, without a score 0)" in own


def test_an_unknown_compat_is_refused(golden: Path) -> None:
    path = golden / "understanding" / "mme.jsonl"
    result = score("mme", path, "--compat", "lm-eval")
    assert result.exit_code == 2
    assert "--compat 'lm-eval' is not known; allowed is lmms-eval" in result.stderr
    result = score("dpg", golden / "dpg" / "scores.jsonl", "--compat", "lmms-eval")
    assert result.exit_code == 2 and "this task has its own rules only" in result.stderr


@pytest.mark.parametrize(
    ("task", "change", "expected"),
    [
        ("mme", {"answer": "Maybe"}, 'doc.answer must be yes or no, got "Maybe"'),
        ("mme", {"question": None}, "doc.question must be a string, got null"),
        ("mmmu", {"options": "red, blue"}, "doc.options must be the text of a list of options"),
        ("mmmu", {"options": "[]"}, "doc.options must be the text of a list of options"),
        ("mmmu", {"id": "x"}, 'doc.id must be like validation_Art_Theory_1, got "x"'),
        ("mmmu", {"answer": 3}, "doc.answer must be a string, got 3"),
        ("vqav2", {"answers": []}, "doc.answers must hold the annotators' answers"),
        ("vqav2", {"answers": [{}]}, "doc.answers[0].answer is missing"),
        ("textvqa", {"answers": [3]}, "doc.answers[0] must be a string, got 3"),
        ("realworldqa", {"answer": 7}, "doc.answer must be a string, got 7"),
        ("seedbench", {"choice_c": None}, "doc.choice_c must be a string, got null"),
        ("mmbench", {"index": "7"}, "doc.index must be a whole number"),
        ("mmbench", {"index": -3}, "doc.index must be 0 or more, got -3"),
        ("mmbench", {"A": 3}, "doc.A must be a string, got 3"),
    ],
)
def test_a_wrong_document_is_refused_with_line_and_column(
    golden: Path, tmp_path: Path, task: str, change: dict[str, Any], expected: str
) -> None:
    good = cases(golden, task)[0]
    bad = {**good, "doc": {**good["doc"], **change}}
    path = write(tmp_path / "answers.jsonl", good, bad)
    for options in (("--json",), ("--json", "--compat", "lmms-eval")):
        result = score(task, path, *options)
        assert result.exit_code == 2 and result.stdout == ""
        assert f"{path}:2: {expected}" in result.stderr


@pytest.mark.parametrize("task", FILES)
@pytest.mark.parametrize("answer", ["", "1" * 100_000, "1" * 99_999 + "x", "A " * 50_000])
def test_endless_and_empty_answers_are_scored_in_no_time(
    golden: Path, tmp_path: Path, task: str, answer: str
) -> None:
    line = {**cases(golden, task)[0], "response": answer}
    path = write(tmp_path / "answers.jsonl", line)
    for options in (("--json",), ("--json", "--compat", "lmms-eval")):
        assert len(objects(score(task, path, *options))) == 2
