"""Recorded inputs of every task with one thing in them changed: a verdict in finite JSON, or one line.

The lines are the recorded ones of `tests/golden`; hypothesis removes a value, replaces it, or puts
something else beside it. Whatever still fits the documented form is scored.
"""

from __future__ import annotations

import copy
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from evals import discovery, registry
from evals.errors import InputError
from evals.recorded import Field

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = {
    ("geneval", "detections"): "geneval/verdicts.jsonl",
    ("geneval", "crops"): "geneval/color_crops.jsonl",
    ("dpg", "answers"): "dpg/scores.jsonl",
    ("mme", "answers"): "understanding/mme.jsonl",
    ("mmmu", "answers"): "understanding/mmmu_val.jsonl",
    ("vqav2", "answers"): "understanding/vqav2_val.jsonl",
    ("textvqa", "answers"): "understanding/textvqa_val.jsonl",
    ("realworldqa", "answers"): "understanding/realworldqa.jsonl",
    ("seedbench", "answers"): "understanding/seedbench.jsonl",
    ("mmbench", "answers"): "understanding/mmbench_en_dev_static.jsonl",
}
SCALARS = st.sampled_from(
    [None, True, False, 0, -1, 1, 0.3, -0.0, 1e308, -1e308, 10**30, -(10**400), 2**63, "", " ", "0", "-1",
     "yes", "A", "\x00", "\ud800", "\u202e", "<script>alert(1)</script>", "a\nb", "[", "{}", "['a', 'b']",
     "1,2", "1,,2", "(" * 500, "9" * 5000, "\u0663", "counting", "left of", float("inf"), float("nan")]
) | st.integers() | st.floats() | st.text(max_size=6)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["class", "count", "box", "score", "tag", "1", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@cache
def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a value that a change could be made to; long lists at their ends only."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [*enumerate(value)][:3] + [*enumerate(value)][-1:]
    else:
        return [path]
    return [path, *(p for key, inner in items for p in places(inner, (*path, key)))]


def changed(case: dict[str, Any], path: tuple[Any, ...], how: str, value: Any) -> dict[str, Any]:
    case = copy.deepcopy(case)
    holder: Any = case
    for key in path[:-1]:
        holder = holder[key]
    if how == "remove":
        del holder[path[-1]]
    elif how == "twice" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[path[-1]]))
    else:
        holder[path[-1]] = value
    return case


@given(
    kind=st.sampled_from(sorted(INPUTS)),
    number=st.integers(0, 100),
    place=st.integers(0, 10_000),
    how=st.sampled_from(["replace", "replace", "remove", "twice"]),
    value=VALUES,
)
def test_a_changed_line_is_scored_or_refused_with_its_place(
    kind: tuple[str, str], number: int, place: int, how: str, value: Any
) -> None:
    discovery.discover()
    task, option = registry.tasks.get(kind[0])(), kind[1]
    cases = recorded(INPUTS[kind])
    case = cases[number % len(cases)]
    # The recorded answers of the original scorers are not read.
    read = {k: v for k, v in case.items() if k not in ("official", "result", "prompt")}
    paths = places(read)[1:]
    case = changed(read, paths[place % len(paths)], how, value)
    modes = ("lmms-eval", None) if hasattr(task, "compat_modes") else (None,)
    for mode in modes:
        began = time.process_time()
        try:
            extra = () if mode is None else (mode,)
            rows = task.score_recorded(option, [Field(case, "file:1")], *extra)
        except InputError as error:
            assert str(error).startswith("file:1: ") and "\n" not in str(error)
            assert len(str(error)) < 1000
        else:
            json.dumps(rows, allow_nan=False)
        assert time.process_time() - began < 20


@given(
    st.lists(st.tuples(st.sampled_from(["", "counting", "\ud800", "a"]), st.booleans()), min_size=1)
)
def test_figures_of_any_results_are_shares(rows: list[tuple[str, bool]]) -> None:
    discovery.discover()
    task = registry.tasks.get("geneval")()
    lines = [
        Field({"metadata": tag, "tag": tag, "correct": correct}, f"file:{i}")
        for i, (tag, correct) in enumerate(rows, 1)
    ]
    (row,) = task.score_recorded("results", lines)
    assert row["total_images"] == len(rows)
    assert 0 <= row["correct_images_percent"] <= row["correct_prompts_percent"] + 100
    assert all(0 <= value <= 1 for value in row["tags"].values())
    assert row["overall"] is None  # five of the six tags are missing


LONG = 300_000


@pytest.mark.parametrize("task_name", ["mme", "vqav2", "mmmu", "textvqa", "mmbench", "seedbench"])
@pytest.mark.parametrize(
    "piece",
    ["a", " ", "1", "(", "(A)", "1,", "A ", "= ", " so is thus .", "1.2e5 ", "1e999 -inf nan "],
)
def test_an_answer_of_300_kilobytes_is_judged_in_seconds(task_name: str, piece: str) -> None:
    discovery.discover()
    task = registry.tasks.get(task_name)()
    name = INPUTS[task_name, "answers"]
    case = {**recorded(name)[0], "response": piece * (LONG // len(piece))}
    for mode in ("lmms-eval", None):
        extra = () if mode is None else (mode,)
        began = time.process_time()
        rows = task.score_recorded("answers", [Field(case, "file:1")], *extra)
        json.dumps(rows, allow_nan=False)
        assert time.process_time() - began < 30


@pytest.mark.parametrize("task_name", ["vqav2", "textvqa"])
def test_a_list_in_place_of_a_picture_id_is_refused(task_name: str) -> None:
    """It cannot be counted as one picture: the interval ended in `unhashable type: 'list'`."""
    discovery.discover()
    case = copy.deepcopy(recorded(INPUTS[task_name, "answers"])[0])
    case["doc"]["image_id"] = [None]
    with pytest.raises(InputError, match=r"file:1: doc.image_id must be a string, got \[null\]"):
        registry.tasks.get(task_name)().score_recorded("answers", [Field(case, "file:1")])
