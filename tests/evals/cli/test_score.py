"""`blip3o-eval score` on recorded inputs: right answers to stdout, one clear line for bad input."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.cli.score import _table, command
from evals.errors import EvalError

GOOD: dict[str, Any] = {
    "id": "a",
    "image_size": [64, 64],
    "metadata": {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]},
    "detections": [
        {"class": "dog", "box": [1, 2, 30.5, 40], "score": 0.5, "color_logits": [9, *range(9)]}
    ],
}


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=True)


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def complaint(*args: str | Path) -> str:
    """The one line of an error that ends in exit status 2, with nothing on stdout."""
    result = run(*args)
    assert result.stdout == ""
    if isinstance(result.exception, SystemExit):
        assert result.exit_code == 2
        return result.stderr.strip().splitlines()[-1]
    assert isinstance(result.exception, EvalError), repr(result.exception)
    assert result.exception.exit_code == 2
    assert "\n" not in str(result.exception)
    return str(result.exception)


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def with_detection(**changes: Any) -> dict[str, Any]:
    return changed(detections=[{**GOOD["detections"][0], **changes}])


def with_clause(**changes: Any) -> dict[str, Any]:
    clause = {"class": "dog", "count": 1, **changes}
    return changed(metadata={"tag": "colors", "include": [clause]})


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key}


def test_recorded_detections_get_the_official_verdicts(golden: Path) -> None:
    path = golden / "geneval" / "verdicts.jsonl"
    result = run("--task", "geneval", "--detections", path, "--json")
    assert result.exit_code == 0 and result.stderr == ""
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == len(cases) == 42
    for row, case in zip(rows, cases, strict=True):
        assert list(row) == ["id", "correct", "reason", "details"]
        assert row["id"] == case["id"]
        assert row["correct"] is case["official"]["correct"]
        assert row["reason"] in case["official"]["reason_any_of"]
        assert row["details"] == case["official"]["details"]


def test_recorded_crops_are_cut_as_upstream_cuts_them(golden: Path) -> None:
    path = golden / "geneval" / "color_crops.jsonl"
    result = run("--task", "geneval", "--crops", path, "--json")
    assert result.exit_code == 0
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows == [
        {"id": c["id"], "size": c["official"]["size"], "pixels": c["official"]["pixels"]}
        for c in cases
    ]
    assert len(rows) == 6


def test_upstream_results_are_summarised(tmp_path: Path) -> None:
    rows = [
        {"filename": f"{i}.png", "tag": t, "prompt": "p", "correct": c, "reason": "", "metadata": m}
        for i, (t, c, m) in enumerate(
            [("counting", True, "{1}"), ("counting", False, "{1}"), ("colors", False, "{2}")]
        )
    ]
    path = write(tmp_path / "results.jsonl", *rows)
    result = run("--task", "geneval", "--results", path, "--json")
    assert json.loads(result.stdout) == {
        "total_images": 3,
        "total_prompts": 2,
        "correct_images_percent": pytest.approx(100 / 3),
        "correct_prompts_percent": 50.0,
        "tags": {"counting": 0.5, "colors": 0.0},
        "tag_order": ["counting", "colors"],
        "overall": None,
    }
    assert result.stderr == (
        "note: overall is not given: no rows of single_object, two_object, position, color_attr\n"
    )


def test_upstream_results_of_all_six_tags_have_an_overall_whatever_the_number_of_rows(
    tmp_path: Path,
) -> None:
    tags = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    rows = [{"metadata": t, "tag": t, "correct": t == "colors"} for t in tags]
    result = run("--task", "geneval", "--results", write(tmp_path / "r.jsonl", *rows), "--json")
    assert result.exit_code == 0 and result.stderr == ""
    assert json.loads(result.stdout)["overall"] == pytest.approx(1 / 6)


def test_without_json_a_table_is_printed_and_terminals_are_safe(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", changed(id="\x1b[2J\ud800"), changed(detections=[]))
    result = run("--task", "geneval", "--detections", path)
    assert result.stdout.splitlines() == [
        "id               correct  reason",
        "\\u001b[2J\\ud800  yes",
        "a                no       expected dog>=1, found 0",
        "correct: 1 of 2",
    ]


@pytest.mark.parametrize(
    "record",
    [
        changed(metadata={"tag": ""}),
        without(GOOD, "image_size"),
        changed(official={"correct": "whatever"}, group=7),
        with_detection(box=[30, 40, -1, -2.5]),
        with_detection(**{"class": "unicorn"}),
        with_clause(**{"class": "unicorn"}),
        with_clause(color="mauve"),
        with_clause(count=0),
        changed(metadata={"tag": "x", "include": [{"class": "dog", "count": 1}]}, detections=[]),
        changed(
            metadata={"tag": "x", "include": [{"class": "dog", "count": 1}]},
            detections=[{"class": "dog", "box": [0, 0, 1, 1], "score": 1}],
        ),
    ],
)
def test_unusual_but_valid_lines_are_scored(tmp_path: Path, record: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl", record)
    result = run("--task", "geneval", "--detections", path, "--json")
    assert result.exit_code == 0, result.exception
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (without(GOOD, "id"), "id is missing"),
        (without(GOOD, "metadata"), "metadata is missing"),
        (without(GOOD, "detections"), "detections is missing"),
        (changed(id=3), "id must be a string, got 3"),
        (changed(metadata="x"), 'metadata must be an object, got "x"'),
        (changed(metadata={}), "metadata.tag is missing"),
        (changed(metadata={"tag": None}), "metadata.tag must be a string, got null"),
        (changed(metadata={"tag": "", "include": {}}), "metadata.include must be a list"),
        (changed(metadata={"tag": "", "exclude": None}), "metadata.exclude must be a list"),
        (changed(detections={}), "detections must be a list, got {}"),
        (changed(detections=[[]]), "detections[0] must be an object"),
        (changed(image_size=[3]), "image_size must be a list of 2 finite numbers, got [3]"),
        (with_clause(count="1"), "metadata.include[0].count must be a whole number"),
        (with_clause(count=1.0), "metadata.include[0].count must be a whole number, got 1.0"),
        (with_clause(count=True), "metadata.include[0].count must be a whole number, got true"),
        (with_clause(color=None), "metadata.include[0].color must be a string"),
        (with_clause(position=["left of"]), "position must be [relation, number of an earlier"),
        (with_clause(position=["left of", 0]), "names clause 0, but only the 0 clauses before"),
        (with_detection(box=[1, 2, 3]), "detections[0].box must be a list of 4 finite numbers"),
        (with_detection(box=[1, 2, 3, "4"]), "detections[0].box must be a list of 4 finite"),
        (with_detection(box=[1, 2, 3, True]), "detections[0].box must be a list of 4 finite"),
        (with_detection(box=[1, 2, 3, 10**400]), "detections[0].box must be a list of 4 finite"),
        (with_detection(box=[1, 2, 3, 1e39]), "detections[0].box must stay within float32"),
        (with_detection(score="0.5"), "detections[0].score must be a finite number"),
        (with_detection(score=None), "detections[0].score must be a finite number, got null"),
        (with_detection(**{"class": 1}), "detections[0].class must be a string, got 1"),
        (with_detection(color_logits=[1]), "color_logits must be a list of 10 finite numbers"),
        (
            changed(detections=[without(GOOD["detections"][0], "color_logits")]),
            "no color_logits",
        ),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(
    tmp_path: Path, record: dict[str, Any], expected: str
) -> None:
    path = write(tmp_path / "d.jsonl", GOOD, record)
    message = complaint("--task", "geneval", "--detections", path, "--json")
    assert message.startswith(f"{path}:2: ")
    assert expected in message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"id": ', "not JSON"),
        (b"[1]", "must be an object, got [1]"),
        (b'{"a": NaN', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1} {"b": 2}', "Extra data at column 10"),
    ],
)
def test_a_line_that_is_not_a_json_object_is_refused(
    tmp_path: Path, raw: bytes, expected: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + raw)
    message = complaint("--task", "geneval", "--detections", path)
    assert message.startswith(f"{path}:3: ") and expected in message


def test_constants_of_python_are_taken_where_nobody_reads_them(tmp_path: Path) -> None:
    spare = {**GOOD, "official": {"overall": float("nan"), "others": [float("inf"), -float("inf")]}}
    path = write(tmp_path / "d.jsonl", GOOD, spare)
    plain = write(tmp_path / "plain.jsonl", GOOD, GOOD)
    scored, wanted = (run("--task", "geneval", "--detections", p, "--json") for p in (path, plain))
    assert scored.exit_code == 0 and scored.stdout == wanted.stdout
    for record, expected in (
        (with_detection(score=float("nan")), "detections[0].score must be a finite number, got NaN"),
        (with_detection(box=[0, 0, 1, float("inf")]), "box must be a list of 4 finite numbers"),
        (changed(id=float("nan")), "id must be a string, got NaN"),
        (with_clause(count=-float("inf")), "count must be a whole number, got -Infinity"),
    ):
        write(path, GOOD, record)
        message = complaint("--task", "geneval", "--detections", path)
        assert message.startswith(f"{path}:2: ") and expected in message


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (lambda text: gzip.compress(text.encode()), "looks gzip-compressed; unpack it first"),
        (lambda text: text.encode("utf-16"), "looks like UTF-16; save it as UTF-8"),
        (lambda text: text.encode("utf-16-be"), "looks like UTF-16; save it as UTF-8"),
        (lambda text: text.replace("\n", "\r").encode(), "its lines end in carriage returns alone"),
    ],
)
def test_a_file_of_another_form_is_called_by_its_name(
    tmp_path: Path, encoded: Callable[[str], bytes], expected: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(encoded(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n"))
    message = complaint("--task", "geneval", "--detections", path)
    assert message.startswith(f"{path}: ") and expected in message


def test_a_packed_file_is_read_as_the_file(tmp_path: Path) -> None:
    text = f"{json.dumps(GOOD)}\n{json.dumps(changed(id='other'))}\n".encode()
    plain, packed = tmp_path / "d.jsonl", tmp_path / "d.jsonl.gz"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    results = [run("--task", "geneval", "--json", "--detections", path) for path in (plain, packed)]
    assert [result.exit_code for result in results] == [0, 0]
    assert results[0].stdout == results[1].stdout and results[0].stdout.count("\n") == 2
    packed.write_bytes(gzip.compress(text)[:-20])
    message = complaint("--task", "geneval", "--detections", packed)
    assert message.startswith(f"{packed}: cannot be read: ")
    packed.write_bytes(text)
    assert "Not a gzipped file" in complaint("--task", "geneval", "--detections", packed)


def test_a_file_without_lines_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text(" \n\n")
    assert "holds no lines" in complaint("--task", "geneval", "--detections", empty)
    missing = tmp_path / "no.jsonl"
    assert "No such file" in complaint("--task", "geneval", "--detections", missing)
    assert "Is a directory" in complaint("--task", "geneval", "--detections", tmp_path)


def test_a_table_has_the_columns_of_all_rows_whichever_comes_first(tmp_path: Path) -> None:
    plain = {"value": 1.0, "parsed": True}
    odd = {"value": None, "unscored": "no answer"}
    for rows in ([plain, odd], [odd, plain]):
        lines = _table(rows)
        assert set(lines[0].split()) == {"value", "parsed", "unscored"}
        texts = " ".join(lines)
        assert "no answer" in texts and "yes" in texts
        assert lines[-1] == "parsed: 1 of 1"


def test_crops_that_make_no_picture_are_refused(tmp_path: Path) -> None:
    crop = {
        "id": "c",
        "mode": "L",
        "pixels": [[1, 2], [3, 4]],
        "mask": None,
        "box": [0, 0, 2, 2],
    }
    for change, expected in (
        ({"mode": "P"}, "mode must be one of 1, L, LA, RGB"),
        ({"pixels": [[1, 2], [3]]}, "pixels must be rows of equal length of numbers from 0 to 255"),
        ({"pixels": [[1, 256]]}, "pixels must be rows of equal length of numbers from 0 to 255"),
        ({"pixels": []}, "pixels must be rows of equal length"),
        ({"mode": "RGB"}, "pixels must be rows of equal length of pixels"),
        ({"mode": "RGB", "pixels": [[[1, 2]]]}, "pixels must have 3 numbers per pixel"),
        ({"mask": [[1, 0]]}, "mask must be null or 2 rows of 2 zeros and ones"),
        ({"mask": [[1, 0], [2, 0]]}, "mask must be null or 2 rows of 2 zeros and ones"),
        ({"box": [2, 0, 0, 2]}, "box cannot be cut out of 2 x 2 pixels"),
        ({"box": [0, 0, 1e9, 1e9]}, "box cannot be cut out of 2 x 2 pixels"),
        ({"box": [0, 0, 4000, 4000]}, "2 x 2 pixels: 4000 x 4000 is far larger"),
        ({"box": [1, 0, 1, 1e7]}, "2 x 2 pixels: 0 x 1e+07 is far larger"),
        ({"box": [-1e308, 0, 1e308, 1]}, "2 x 2 pixels: inf x 1 is far larger"),
    ):
        path = write(tmp_path / "c.jsonl", crop, {**crop, **change})
        message = complaint("--task", "geneval", "--crops", path)
        assert message.startswith(f"{path}:2: ") and expected in message, (change, message)


def test_results_with_a_verdict_that_is_not_a_truth_value_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"tag": "colors", "metadata": "{}", "correct": 1})
    message = complaint("--task", "geneval", "--results", path)
    assert message == f"{path}:1: correct must be true or false, got 1"


def test_one_input_that_the_task_reads_is_needed(tmp_path: Path) -> None:
    needs = "needs one input (--detections FILE or --results FILE or --crops FILE or --images DIR)"
    assert complaint("--task", "geneval") == f"score --task geneval {needs}, got none"
    message = complaint("--task", "geneval", "--detections", "a", "--crops", "b")
    assert message == f"score --task geneval {needs}, got --detections and --crops"
    message = complaint("--task", "geneval", "--answers", tmp_path)
    assert "cannot be scored from --answers here; it reads --detections FILE or" in message
    message = complaint("--task", "mme", "--images", tmp_path)
    assert message == "task 'mme' cannot be scored from --images here; it reads --answers FILE"


def test_options_of_a_folder_beside_recorded_inputs_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", GOOD)
    for option in ("--judge=stickers", "--limit=3", "--fresh", "--output=x"):
        message = complaint("--task", "geneval", "--detections", path, option)
        name = option.partition("=")[0]
        assert message.startswith(f"{name} belongs to --images: recorded detections are scored")


def test_an_unknown_task_is_refused_with_a_suggestion() -> None:
    assert complaint("--task", "genval", "--detections", "a") == (
        "Unknown task 'genval'. Did you mean: geneval, geneval_long?"
    )
